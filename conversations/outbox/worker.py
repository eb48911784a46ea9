"""The worker's loop: take what is due, do it in a few threads, sweep once a minute, stop cleanly."""

import logging
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from threading import Event
from typing import Final

from django.db import DatabaseError, close_old_connections, connections
from django.utils import timezone

from conversations.flow.retention import sweep
from conversations.models import Revocation
from conversations.outbox.revocations import lease_revocations, revoke

THREADS: Final = 8
SWEEP_EVERY: Final = timedelta(minutes=1)
_IDLE_SECONDS: Final = 1.0

logger = logging.getLogger("consumer_delegation.worker")


def run(stop: Event) -> None:
    """Work until `stop` is set; what is under way is finished first."""
    running: set[Future[None]] = set()
    next_sweep = timezone.now()
    with ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="outbox") as threads:
        while not stop.is_set():
            now = timezone.now()
            running = {future for future in running if not future.done()}
            taken: list[Revocation] = []
            try:
                if now >= next_sweep:
                    sweep(now)
                    next_sweep = now + SWEEP_EVERY
                taken = lease_revocations(now, THREADS - len(running))
            except DatabaseError:  # a restart or a deadlock of the database; the next turn asks again
                logger.exception("the outbox could not be read")
                close_old_connections()
            running |= {threads.submit(_in_thread, revocation) for revocation in taken}
            if not taken:
                _wait(running, stop)


def run_once(now: datetime | None = None) -> int:
    """Sweep, and do everything that is due now, one after the other; return how many. For cron and tests."""
    sweep(now or timezone.now())
    done = 0
    # One at a time: the last of several would be leased for longer than a lease lasts.
    while taken := lease_revocations(now or timezone.now(), 1):
        revoke(taken[0])
        done += 1
    return done


def _in_thread(revocation: Revocation) -> None:
    try:
        revoke(revocation)
    except Exception:  # a fault of ours must not end the worker; the lease brings the row back
        logger.exception("an outbox entry failed", extra={"revocation": str(revocation.uuid)})
    finally:
        connections.close_all()


def _wait(running: set[Future[None]], stop: Event) -> None:
    """Wait a second; shorter, where something finishes and may make room for more."""
    if running:
        wait(running, timeout=_IDLE_SECONDS, return_when=FIRST_COMPLETED)
    else:
        stop.wait(_IDLE_SECONDS)
