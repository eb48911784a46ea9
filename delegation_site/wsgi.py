"""WSGI entry point. It refuses dangerous settings under any server."""

import os

from django.core.wsgi import get_wsgi_application

from delegation_site.checks import refuse_dangerous_settings
from infrastructure.postgresql.base import limit_from_now_on
from infrastructure.prepared import prepare_from_now_on

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delegation_site.settings")
refuse_dangerous_settings()
application = get_wsgi_application()
prepare_from_now_on()
limit_from_now_on()
