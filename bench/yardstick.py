"""A1, the yardstick: bare Django, no middleware, one constant JSON answer, under the same gunicorn.

All other targets are compared with it in the same run, because requests per second depend more on the machine than on
the program.
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
