"""The yardstick with the request of a call, by bare `requests` with a kept session, under the same gunicorn.

Beyond A1 it costs what any client of the brand's API would: so what a call costs more than both is ours.
"""

import os

import requests
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from bench.cast import access_token

_session = requests.Session()
_session.verify = os.environ["CA_FILE"]
_HEADERS = {"Authorization": f"Bearer {access_token(1)}"}


def pass_on(request: HttpRequest) -> JsonResponse:  # noqa: ARG001  # Django's signature
    answer = _session.get(os.environ["URL"], headers=_HEADERS, timeout=10)
    return JsonResponse({"status": answer.status_code, "body": answer.json()})


urlpatterns = [path("", pass_on)]

settings.configure(
    SECRET_KEY="of-one-request-alone",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
)
application = get_wsgi_application()
