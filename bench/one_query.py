"""A2: the yardstick with one `SELECT 1` on a persistent connection, under the same gunicorn.

It shows what one database query costs a view through Django's cursor. With four threads that is more than the
statement's own time.
"""

import os

import environ
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path


def ask(request: HttpRequest) -> JsonResponse:  # noqa: ARG001  # Django's signature
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        ((one,),) = cursor.fetchall()
    return JsonResponse({"status": "ok", "one": one})


urlpatterns = [path("", ask)]

settings.configure(
    SECRET_KEY="of-one-query-alone",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    DATABASES={"default": environ.Env.db_url_config(os.environ["DATABASE_URL"]) | {"CONN_MAX_AGE": None}},
)
application = get_wsgi_application()
