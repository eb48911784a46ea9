"""A1, the yardstick: plain Django without middleware, one constant JSON answer, under the same gunicorn.

All other figures are compared with it in the same run, because a rate alone depends mostly on the machine.
"""

from typing import Final

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

ANSWER: Final = {"status": "ok"}


def constant(request: HttpRequest) -> JsonResponse:  # noqa: ARG001  # Django's signature
    return JsonResponse(ANSWER)


urlpatterns = [path("", constant)]

settings.configure(
    SECRET_KEY="of-the-yardstick-alone",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
)
application = get_wsgi_application()
