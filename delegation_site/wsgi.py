"""WSGI entry point. It refuses dangerous settings under any server, and answers bots before Django's handler."""

import os
from importlib import import_module

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from delegation_site.checks import refuse_dangerous_settings
from infrastructure import metrics
from infrastructure.logs import collect_no_more_than_is_written
from infrastructure.postgresql.base import limit_from_now_on
from infrastructure.prepared import prepare_from_now_on
from infrastructure.stopping import run_cleanup_at_exit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delegation_site.settings")
refuse_dangerous_settings()
_django = get_wsgi_application()
# Not at the top: it imports models, which are loaded only now.
_before = import_module("conversations.before_django").before
if settings.METRICS_FOLDER:
    metrics.start()
    application = import_module("web.measured").measured(_before)
else:
    application = _before(_django)
collect_no_more_than_is_written()
prepare_from_now_on()
limit_from_now_on()
run_cleanup_at_exit()
