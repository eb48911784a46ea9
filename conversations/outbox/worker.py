"""The worker's loop: take what is due, do it in a few threads, sweep once a minute, stop cleanly."""

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from threading import Event
from typing import Any, Final

from django.db import DatabaseError, close_old_connections, connections
from django.utils import timezone

from conversations.flow.retention import sweep
from conversations.outbox.revocations import lease_revocations, revoke
from conversations.outbox.webhooks import deliver, lease_deliveries

# For each kind of work, so that no number of webhooks keeps a token from being revoked.
THREADS: Final = 8
SWEEP_EVERY: Final = timedelta(minutes=1)
_IDLE_SECONDS: Final = 1.0

# How rows are taken, and what is done with each.
WORK: tuple[tuple[Callable[[datetime, int], list[Any]], Callable[[Any], None]], ...] = (
    (lease_revocations, revoke),
    (lease_deliveries, deliver),
)

logger = logging.getLogger("consumer_delegation.worker")


def run(stop: Event) -> None:
    """Work until `stop` is set; what is under way is finished first."""
    running: list[set[Future[None]]] = [set() for _ in WORK]
    next_sweep = timezone.now()
    with ThreadPoolExecutor(max_workers=THREADS * len(WORK), thread_name_prefix="outbox") as threads:
        while not stop.is_set():
            now = timezone.now()
            taken = 0
            try:
                if now >= next_sweep:
                    sweep(now)
                    next_sweep = now + SWEEP_EVERY
                for (lease, do), busy in zip(WORK, running, strict=True):
                    taken += _start(threads, lease, do, busy, now)
            except DatabaseError:  # a restart or a deadlock of the database; the next turn asks again
                logger.exception("the outbox could not be read")
                close_old_connections()
            if not taken:
                _wait(set().union(*running), stop)


def run_once(now: datetime | None = None) -> int:
    """Sweep, and do everything that is due now, one after the other; return how many. For cron and tests."""
    sweep(now or timezone.now())
    done = 0
    for lease, do in WORK:
        # One at a time: the last of several would be leased for longer than a lease lasts.
        while taken := lease(now or timezone.now(), 1):
            do(taken[0])
            done += 1
    return done


def _start(
    threads: ThreadPoolExecutor,
    lease: Callable[[datetime, int], list[Any]],
    do: Callable[[Any], None],
    busy: set[Future[None]],
    now: datetime,
) -> int:
    """Take as many rows of one kind as it has free threads; return how many."""
    busy -= {future for future in busy if future.done()}
    free = THREADS - len(busy)
    rows = lease(now, free) if free else []
    busy |= {threads.submit(_in_thread, do, row) for row in rows}
    return len(rows)


def _in_thread(do: Callable[[Any], None], row: Any) -> None:
    try:
        do(row)
    except Exception:  # a fault of ours must not end the worker; the lease brings the row back
        logger.exception("an outbox entry failed", extra={"entry": str(row.uuid)})
    finally:
        connections.close_all()


def _wait(running: set[Future[None]], stop: Event) -> None:
    """Wait a second; shorter, where something finishes and may make room for more."""
    if running:
        wait(running, timeout=_IDLE_SECONDS, return_when=FIRST_COMPLETED)
    else:
        stop.wait(_IDLE_SECONDS)
