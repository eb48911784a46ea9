"""gunicorn's configuration: `gunicorn -c delegation_site/gunicorn.py`."""

import gc
import logging
import os
import re
import sys
from typing import Any

import django
from django.conf import settings
from django.core.checks import Tags, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections
from gunicorn.glogging import Logger

from delegation_site.checks import PRIVATE_NETWORKS_NOT_VALID
from delegation_site.preloading import load_what_requests_need
from infrastructure import metrics, stopping
from infrastructure.log_stream import patient
from infrastructure.logs import RequestIdFilter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delegation_site.settings")
wsgi_app = "delegation_site.wsgi:application"
bind = settings.BIND
worker_class = "gthread"
workers = settings.WORKERS
threads = settings.THREADS
keepalive = 30
limit_request_line = 8190  # an authorization code may have 4 KB, and so may a state
timeout = 30
# A callback that holds a fresh token must have time to store or revoke it. Keep this below
# the 40 seconds that systemd waits, which is set in deploy/.
graceful_timeout = 35
# By default a header of a peer on this machine sets SCRIPT_NAME. A proxy may pass that header on from any client, who
# would choose how `request.path` begins.
forwarder_headers = ""
# gunicorn 27 would use its parser in C (`gunicorn_h1c`) in any version from 0.4.1 that happens to be installed. It asks
# for 0.6.14 itself, which has fixes in how the end of a request is found.
http_parser = "python"
# By default gunicorn 27 opens a control socket in the home folder (H9).
control_socket_disable = True
# gunicorn's default access log contains the request line and the referrer, hence codes, states and the tokens of links
# and receipts (H3).
accesslog = "-" if settings.ACCESS_LOG else None
access_log_format = (
    '{"time":"%(t)s","method":"%(m)s","request_id":"%({x-request-id}o)s",'
    '"status":%(s)s,"bytes":"%(b)s","seconds":%(L)s}'
)


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger, which bypasses Django's handlers.

    It removes secrets from paths, and malformed requests (H1, H3). A log that nobody reads stops no process.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.addFilter(RequestIdFilter())
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            if type(handler) is logging.StreamHandler:  # a file has no reader that could stop
                handler.setStream(patient(handler.stream))

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log why a request is malformed, without the request itself, which may hold a secret."""
        super().warning(_INVALID_REQUEST.sub(r"\1", msg) if isinstance(msg, str) else msg, *args, **kwargs)


_INVALID_REQUEST = re.compile(r"^(Invalid request from ip=\S*: [^:'\"]*).*", re.DOTALL)
logger_class = QuietLogger


def connections_in_words() -> str:
    """Say how many database connections this group of processes needs at most: each thread keeps one."""
    each = settings.WORKERS * settings.THREADS
    return f"up to {each} database connections for this group (WORKERS {settings.WORKERS} x THREADS {settings.THREADS})"


def on_starting(server: Any) -> None:
    """Exit if a system check fails. Django runs no checks when a WSGI server starts (N10)."""
    django.setup()
    try:
        call_command("check", deploy=True, fail_level="ERROR")
    except SystemCheckError as error:
        sys.exit(str(error))
    server.log.info(connections_in_words())
    for warning in run_checks(tags=[Tags.database], databases=["default"]):
        is_ready = warning.id == PRIVATE_NETWORKS_NOT_VALID
        server.log.warning("%s%s", warning, "" if is_ready else " Until this is fixed, /health/ready says 503.")
    # Load the application before the workers are forked, so that they share its memory. The garbage collector writes
    # into each object that it looks at; frozen ones it leaves alone.
    server.app.wsgi()
    load_what_requests_need()
    connections.close_all()  # forked processes must not share a connection
    gc.collect()
    gc.freeze()


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  # gunicorn's signature
    """Forget what a worker that has ended was busy with, however it ended."""
    if settings.METRICS_FOLDER:
        metrics.forget_process(worker.pid)


def post_worker_init(worker: Any) -> None:
    """Let long polls end early when their worker is stopping, so that a restart does not wait for them."""
    stopping.set_check(lambda: not worker.alive)
