"""Counters, gauges and histograms of this process for Prometheus, in a file that `manage.py metrics` adds up.

Each web process and worker writes a file of its own in `METRICS_FOLDER` (prometheus-client's multiprocess mode), so a
process that dies loses nothing. Without the setting nothing is counted, and the library is not loaded.

A label never has a value that a stranger chooses, or one for each conversation. A brand's label is its UUID; the
process that serves the metrics replaces it by the brand's slug. So counting needs no query.
"""

import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.conf import settings

BRAND: Final = "brand"
PREFIX: Final = "delegation_"
# The audit event that each change of a challenge writes.
_CHALLENGE_CHANGED: Final = "challenge.changed"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
# In seconds. A token read takes less than a millisecond, a long poll half a minute.
_OF_CALLS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
# We wait 10 seconds for a brand's server.
_OF_BRANDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0)

logger = logging.getLogger("consumer_delegation.metrics")


class _Measures:
    def __init__(self, client: Any) -> None:
        self.served = client.CollectorRegistry()
        to = {"registry": self.served}

        def counter(name: str, words: str, *labels: str) -> Any:
            return client.Counter(PREFIX + name, words, labels, **to)

        def histogram(name: str, words: str, buckets: tuple[float, ...], *labels: str) -> Any:
            return client.Histogram(PREFIX + name, words, labels, buckets=buckets, **to)

        def gauge(name: str, words: str, *labels: str) -> Any:
            # The sum over the processes that live.
            return client.Gauge(PREFIX + name, words, labels, multiprocess_mode="livesum", **to)

        self.calls = counter("calls", "Answered requests.", "operation", "method", "status")
        self.call_seconds = histogram("call_seconds", "How long requests took.", _OF_CALLS, "operation")
        self.challenges = counter("challenges", "Changes of challenges, by the new status.", BRAND, "outcome")
        self.token_reads = counter("token_reads", "Reads that were answered with a token.", BRAND)
        self.exchange_seconds = histogram("exchange_seconds", "How long token requests took.", _OF_BRANDS, BRAND)
        self.exchange_errors = counter("exchange_errors", "Token requests that brought no token.", BRAND, "error")
        self.api_calls = counter("api_calls", "Calls of brands' APIs.", BRAND, "outcome")
        self.api_call_seconds = histogram("api_call_seconds", "How long brands' APIs took.", _OF_BRANDS, BRAND)
        self.places = gauge("places_in_use", "Requests that wait for a brand's server.", "kind")
        self.waiters = gauge("waiters", "Long polls that wait.")
        self.limits = counter("limits_hit", "What was refused because of a limit.", "limit")
        self.redis_failures = counter("redis_failures", "Commands that Redis did not carry out.")
        self.workers = gauge("workers", "Worker processes that run.")


class _Process:
    measures: _Measures | None = None


def start() -> None:
    """Count from now on, if `METRICS_FOLDER` is set. Web processes and workers call this as they start."""
    if not settings.METRICS_FOLDER:
        return
    # The library reads this once, when it is loaded.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = settings.METRICS_FOLDER
    _Process.measures = _Measures(import_module("prometheus_client"))


def stop() -> None:
    """Count no more. Tests call it."""
    _Process.measures = None


def forget_process(pid: int) -> None:
    """Remove the gauges of a process that has ended: what it did no longer goes on. Its counters stay."""
    for path in Path(settings.METRICS_FOLDER).glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)


def _note(write: Callable[[_Measures], object]) -> None:
    """Write to the measures, if this process counts. A folder that was deleted must not end a sign-in."""
    if _Process.measures is None:
        return
    try:
        write(_Process.measures)
    except OSError:
        _Process.measures = None
        logger.exception("METRICS_FOLDER cannot be written: this process counts no more until it is restarted")


def count_call(operation: str, method: str, status: int, seconds: float) -> None:
    """Count an answered request. `operation` is the name of the route, never a path."""

    def write(measures: _Measures) -> None:
        measures.calls.labels(operation, method if method in _METHODS else "other", status).inc()
        measures.call_seconds.labels(operation).observe(seconds)

    _note(write)


def count_event(kind: str, outcome: str, brand_uuid: UUID) -> None:
    """Count an audit event after its commit. Only changes of challenges are counted, without the error's code."""
    if kind == _CHALLENGE_CHANGED:
        _note(lambda measures: measures.challenges.labels(brand_uuid, outcome.partition(":")[0]).inc())


def count_token_read(brand_uuid: UUID) -> None:
    _note(lambda measures: measures.token_reads.labels(brand_uuid).inc())


def count_exchange(brand_uuid: UUID, seconds: float, error: str) -> None:
    """Count a token request (RFC 6749 section 4.1.3). `error` is a code of ours, empty after a success."""

    def write(measures: _Measures) -> None:
        measures.exchange_seconds.labels(brand_uuid).observe(seconds)
        if error:
            measures.exchange_errors.labels(brand_uuid, error).inc()

    _note(write)


def count_api_call(brand_uuid: UUID, seconds: float, outcome: str) -> None:
    """Count a call of a brand's API. `outcome` is a class of statuses, or a code of ours."""

    def write(measures: _Measures) -> None:
        measures.api_calls.labels(brand_uuid, outcome).inc()
        measures.api_call_seconds.labels(brand_uuid).observe(seconds)

    _note(write)


def change_places(kind: str, change: int) -> None:
    """Note that a request of this kind begins to wait for a brand's server (1), or ends to (-1)."""
    _note(lambda measures: measures.places.labels(kind).inc(change))


def set_waiters(number: int) -> None:
    _note(lambda measures: measures.waiters.set(number))


def count_limit(name: str) -> None:
    """Count something that was refused. `name` is the limit's, never whose it is."""
    _note(lambda measures: measures.limits.labels(name).inc())


def count_redis_failure() -> None:
    _note(lambda measures: measures.redis_failures.inc())


def mark_worker() -> None:
    """Note that this process is a worker, for as long as it lives."""
    _note(lambda measures: measures.workers.set(1))
