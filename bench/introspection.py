"""django-oauth-toolkit's introspection endpoint (RFC 7662), set up as its documentation says.

It is the closest comparison in Django: a program asks about a token, and a database answers.

The resource server authenticates with a bearer token of the scope `introspection`, the cheaper of the two ways: HTTP
Basic would cost a password hash for each call. No middleware and persistent connections: nothing that it does not need.
"""

import os
from typing import Final

import environ
from django.conf import settings
from django.core.wsgi import get_wsgi_application

INTROSPECTION: Final = "introspection"

_database = environ.Env.db_url_config(os.environ["DATABASE_URL"])
_database |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}

settings.configure(
    SECRET_KEY="of-the-introspection-endpoint-alone",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="bench.introspection_urls",
    MIDDLEWARE=[],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    DATABASES={"default": _database},
    USE_TZ=True,
    OAUTH2_PROVIDER={"SCOPES": {INTROSPECTION: "Introspect tokens", "orders.read": "Read orders"}},
)
application = get_wsgi_application()
