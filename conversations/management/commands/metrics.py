"""`manage.py metrics`: serve the metrics of this machine's processes, and of the database, to Prometheus."""

import signal
from threading import Event
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from conversations.outbox import exporter
from infrastructure.postgresql.base import limit_from_now_on


class Command(BaseCommand):
    """Runs until SIGTERM or SIGINT."""

    help = "Serve metrics to Prometheus at METRICS_BIND, from METRICS_FOLDER and the database."

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve. Exits with 1 if the settings or the address cannot be used."""
        if not settings.METRICS_FOLDER:
            raise CommandError("Set METRICS_FOLDER, for this process, web processes and workers.")
        stop = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        limit_from_now_on()
        try:
            exporter.serve(settings.METRICS_BIND, stop)
        except OSError as error:
            raise CommandError(f"METRICS_BIND cannot be used: {error.strerror}.") from None
