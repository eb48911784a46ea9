"""Serve the metrics of this machine to Prometheus: `manage.py metrics`.

What processes counted comes from their files (`infrastructure.metrics`). What the database knows is measured here, in a
thread, so that a scrape never waits for a query, and web processes ask none for it. While the database is away, those
measures are left out, and `delegation_database_up` is 0.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Final

from django.conf import settings
from django.db import Error, connection, connections
from django.db.models import Count, Min, QuerySet
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from accounts.second_factors import count_second_factors_by_key_id
from brands.models import Brand, ServerHealth
from conversations.flow.key_usage import counts_by_key
from conversations.models import Revocation, WebhookDelivery
from infrastructure import database_clock, metrics
from infrastructure.columns import NO_KEY
from infrastructure.crypto import key_ring
from infrastructure.outbox import heartbeat

_SECONDS_BETWEEN_MEASUREMENTS: Final = 15.0
# Counting by key reads every encrypted value, so it is done rarely, and only during a rotation.
_SECONDS_BETWEEN_COUNTS_OF_KEYS: Final = 3600.0
_GONE: Final = "(deleted)"
_MISSING: Final = "(missing)"
_ENDED: Final = "ended"

logger = logging.getLogger("consumer_delegation.metrics")


def serve(address: tuple[str, int], stop: Event) -> None:
    """Serve the metrics until `stop` is set. Raises `OSError` if the address cannot be used."""
    measures = _FromDatabase("database", measure_database, _SECONDS_BETWEEN_MEASUREMENTS)
    keys = _FromDatabase("encryption keys", measure_keys, _SECONDS_BETWEEN_COUNTS_OF_KEYS)
    served = CollectorRegistry()
    served.register(_FromFiles(measures))
    served.register(measures)
    served.register(keys)
    server, thread = start_http_server(address[1], address[0], served)
    threads = [Thread(target=one.run, args=(stop,), daemon=True) for one in (measures, keys)]
    for each in threads:
        each.start()
    stop.wait()
    server.shutdown()
    server.server_close()
    thread.join()


class _FromDatabase:
    """Measures that a thread takes from time to time. A scrape gets the last ones."""

    def __init__(self, name: str, measure: Callable[[], Iterable[Metric]], seconds: float) -> None:
        self._name, self._measure, self._seconds = name, measure, seconds
        self._last: list[Metric] = []
        self.slugs: dict[str, str] = {}

    def run(self, stop: Event) -> None:
        """Measure until `stop` is set."""
        while not stop.is_set():
            self.take()
            stop.wait(self._seconds if self._last else _SECONDS_BETWEEN_MEASUREMENTS)

    def take(self) -> None:
        """Measure now. A database that is away leaves no measures: old ones would look like good news."""
        try:
            self._last = list(self._measure())
            self.slugs = {str(uuid): slug for uuid, slug in Brand.objects.values_list("uuid", "slug")}
        except Error:
            logger.exception("metrics of the %s could not be taken", self._name)
            self._last = []
        finally:
            connections.close_all()

    def collect(self) -> Iterator[Metric]:
        """Yield the last measures. prometheus-client calls this at each scrape."""
        if self._measure is measure_database:
            yield _gauge("database_up", "Whether the last measurement of the database succeeded.", bool(self._last))
        yield from self._last

    def describe(self) -> list[Metric]:
        """Say that no names are known beforehand, so that nothing is measured when this is registered."""
        return []


def measure_database() -> Iterator[Metric]:
    """Measure outbox, failing servers, heartbeat and connections. Raises Django's database errors."""
    database_clock.measure()
    now = database_clock.now()
    waiting = GaugeMetricFamily(metrics.PREFIX + "outbox_waiting", "Rows that wait.", labels=["kind"])
    late = GaugeMetricFamily(
        metrics.PREFIX + "outbox_oldest_due_seconds", "How long the oldest due row has waited.", labels=["kind"]
    )
    for kind, rows, of_working in _outboxes():
        number, oldest = _number_and_oldest(rows, of_working)
        waiting.add_metric([kind], number)
        late.add_metric([kind], max(0.0, (now - oldest).total_seconds()) if oldest else 0.0)
    yield waiting
    yield late
    given_up = WebhookDelivery.objects.dead().count()
    yield _gauge("webhooks_given_up", "Webhook deliveries that were given up in the last 7 days.", given_up)
    yield from _measure_failing_servers()
    yield from _measure_heartbeat()
    yield from _measure_connections()
    yield _gauge("encryption_keys", "Keys in ENCRYPTION_KEYS.", len(key_ring().ids))


def measure_keys() -> Iterator[Metric]:
    """Count the stored values by column and key, if there is more than one key. Raises Django's database errors."""
    family = GaugeMetricFamily(
        metrics.PREFIX + "encryption_key_rows", "Stored values by column and key.", labels=["column", "key", "newest"]
    )
    ring = key_ring()
    if len(ring.ids) > 1:
        found = counts_by_key(database_clock.now()) | {"authenticator.data": count_second_factors_by_key_id()}
        for column, counts in found.items():
            named: defaultdict[str, int] = defaultdict(int)
            for key_id, number in counts.items():
                # An id that is not ours may come from a row that was tampered with.
                named[key_id if key_id in ring.ids or key_id == NO_KEY else _MISSING] += number
            for key_id, number in named.items():
                family.add_metric([column, key_id, "yes" if key_id == ring.newest_id else "no"], number)
    yield family


def _outboxes() -> list[tuple[str, QuerySet[Any], QuerySet[Any]]]:
    """Return each kind, its waiting rows, and those that nothing but us delays."""
    deliveries = WebhookDelivery.objects.waiting().order_by()
    active = deliveries.filter(endpoint__is_active=True, endpoint__brand__is_active=True)
    checks = ServerHealth.objects.of_active_servers().order_by()
    if not settings.HEALTH_CHECK_INTERVAL_HOURS:
        checks = checks.none()
    revocations = Revocation.objects.order_by()
    return [
        ("webhook", deliveries, active.filter(endpoint__failing_since=None)),
        ("revocation", revocations, revocations),
        ("health_check", checks, checks),
    ]


def _number_and_oldest(rows: QuerySet[Any], of_working: QuerySet[Any]) -> tuple[int, datetime | None]:
    number: int = rows.aggregate(number=Count("pk"))["number"] or 0
    oldest: datetime | None = of_working.aggregate(oldest=Min("next_attempt_at"))["oldest"]
    return number, oldest


def _measure_failing_servers() -> Iterator[Metric]:
    """Yield how many servers of each brand are marked as failing.

    Counts of token requests do not tell: nobody gets that far if pushed requests or sign-in pages fail.
    """
    family = GaugeMetricFamily(
        metrics.PREFIX + "servers_failing", "Authorization servers that are marked as failing.", labels=[metrics.BRAND]
    )
    failing = ServerHealth.objects.failing().order_by().values("authorization_server__brand__slug")
    for slug, number in failing.values_list("authorization_server__brand__slug", Count("pk")):
        family.add_metric([slug], number)
    yield family


def _measure_heartbeat() -> Iterator[Metric]:
    """Yield when a worker last ran and swept: 0 if none ever has, so that an alert sees that, too."""
    last = heartbeat()
    beat, swept = (last.beat_at, last.swept_at) if last else (None, None)
    said = "When a worker last"
    yield _gauge("worker_heartbeat_timestamp_seconds", f"{said} ran.", beat.timestamp() if beat else 0)
    yield _gauge("sweep_timestamp_seconds", f"{said} completed a sweep.", swept.timestamp() if swept else 0)


def _measure_connections() -> Iterator[Metric]:
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
            " FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        used, most = cursor.fetchone()
    yield _gauge("database_connections", "Connections of the whole database server that are open.", used)
    yield _gauge("database_connections_limit", "Connections that it allows us.", most)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(metrics.PREFIX + name, words, value=value)


class _FromFiles:
    """What processes counted, with the slugs of the brands."""

    def __init__(self, brands: _FromDatabase) -> None:
        self._brands = brands
        self._lock = Lock()  # of two scrapes at once, one would read what the other folds

    def collect(self) -> Iterator[Metric]:
        """Yield the sums over all processes. prometheus-client calls this at each scrape."""
        with self._lock:
            fold_ended(Path(settings.METRICS_FOLDER))
            counted = list(MultiProcessCollector(None, settings.METRICS_FOLDER).collect())
        for metric in counted:
            yield _with_slugs(metric, self._brands.slugs)

    def describe(self) -> list[Metric]:
        """Say that no names are known beforehand."""
        return []


def _with_slugs(metric: Metric, slugs: dict[str, str]) -> Metric:
    """Replace the UUIDs of brands. Several that are gone become one series: Prometheus refuses a series twice."""
    sums: defaultdict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
    for sample in metric.samples:
        labels = dict(sample.labels)
        if metrics.BRAND in labels:
            labels[metrics.BRAND] = slugs.get(labels[metrics.BRAND], _GONE)
        sums[sample.name, tuple(labels.items())] += sample.value
    metric.samples = []
    for (name, labels_of_series), value in sums.items():
        metric.add_sample(name, dict(labels_of_series), value)
    return metric


def fold_ended(folder: Path) -> None:
    """Add the files of processes that have ended into one for each type, and remove their gauges.

    Otherwise each restart would leave files that every scrape reads. The sum is written to a new file that takes the
    old one's place. If this process is killed between that and the last `unlink`, some counts are there twice: we
    accept that, because the other order would lose them.
    """
    for typ in ("counter", "histogram"):
        ended = [path for path in folder.glob(f"{typ}_*.db") if _has_ended(path)]
        if ended:
            _fold(folder / f"{typ}_{_ENDED}.db", ended)
    for path in folder.glob("gauge_live*.db"):
        if _has_ended(path):
            path.unlink(missing_ok=True)


def _has_ended(path: Path) -> bool:
    """Whether the process whose number ends a file's name is gone."""
    number = path.stem.rpartition("_")[2]
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as somebody else
        return False
    return False


def _fold(target: Path, ended: list[Path]) -> None:
    sums: defaultdict[str, float] = defaultdict(float)
    for path in [*ended, target]:
        if path.exists():
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                sums[key] += value
    new = target.with_suffix(".new")
    new.unlink(missing_ok=True)
    written = MmapedDict(str(new))
    for key, value in sums.items():
        written.write_value(key, value, 0.0)
    written.close()
    new.replace(target)
    for path in ended:
        path.unlink(missing_ok=True)
