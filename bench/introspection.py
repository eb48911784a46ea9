"""django-oauth-toolkit's introspection endpoint (RFC 7662), set up as in its documentation.

It is Django's closest equivalent of our token read: a program asks about a token, and the answer is in a database.

The resource server authenticates with a bearer token of the scope `introspection`. HTTP Basic would be slower, because
each call would compute a password hash. There is no middleware, and connections are persistent.
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
