"""The worker's loop: lease due rows, work on them in a few threads, sweep, count and watch once a minute, stop cleanly.

No failure stops the other work: each kind of work, the sweep and the clock report their failures separately. Only if
the database is unavailable, everything waits, with growing pauses. If the database goes down during a call, the call's
result is kept in memory. It is stored first when the database is back, so that no call is repeated. If a worker dies,
its leases expire and another worker leases the rows.
"""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime
from functools import partial
from threading import Event
from time import monotonic
from typing import Any, Final

from django.db import Error, OperationalError, close_old_connections, connection, connections

from conversations.flow.events import longest_wait
from conversations.flow.retention import SweepIncomplete
from conversations.outbox.batches import FAULT, Call, Store, work_on
from conversations.outbox.health_checks import attempt_check, lease_checks, watch
from conversations.outbox.revocations import attempt_revocation, lease_revocations
from conversations.outbox.sweeping import sweep_and_note, sweep_failure, sweep_in_turn
from conversations.outbox.webhooks import attempt_delivery, lease_deliveries, threads_for_deliveries
from conversations.statistics import count_events
from infrastructure import database_clock
from infrastructure.database_errors import is_unavailable
from infrastructure.outbox import LastingFailure, note_heartbeat

# Each kind of work has threads of its own, so that many webhooks cannot delay a revocation.
_THREADS_FOR_REVOCATIONS: Final = 8
# A check may be late. The doctor runs no more than two at once.
_THREADS_FOR_CHECKS: Final = 2
SWEEP_EVERY_SECONDS: Final = 60.0
# How long an event of an idle endpoint waits at most. Asking costs a millisecond.
_IDLE_SECONDS: Final = 0.25
# The database counts as available again after this time without an error.
_QUIET_SECONDS: Final = 10.0

# Leases rows that are due: takes the time and the most leases to take. Returns the rows of each lease.
Lease = Callable[[datetime, int], list[list[Any]]]


def _one_by_one(lease: Callable[[datetime, int], list[Any]]) -> Lease:
    return lambda now, most: [[row] for row in lease(now, most)]


# The last element says how many threads the kind of work has.
WORK: Final[tuple[tuple[str, Lease, Call, Callable[[], int]], ...]] = (
    ("revocation", _one_by_one(lease_revocations), attempt_revocation, lambda: _THREADS_FOR_REVOCATIONS),
    ("webhook delivery", lease_deliveries, attempt_delivery, threads_for_deliveries),
    ("health check", _one_by_one(lease_checks), attempt_check, lambda: _THREADS_FOR_CHECKS),
)
# The sweep's, and that of watching, which may wait for a mail server.
_THREADS_FOR_THE_MINUTES_WORK: Final = 2

_NOT_COUNTED: Final = "the audit log cannot be counted"
_NOT_WATCHED: Final = "the servers' health cannot be watched"

logger = logging.getLogger("consumer_delegation.worker")


def run(stop: Event) -> None:
    """Work until `stop` is set. Calls that are running then are finished first."""
    worker = _Worker(stop)
    threads = ThreadPoolExecutor(max_workers=threads_of_worker(), thread_name_prefix="outbox")
    with threads:
        while not stop.is_set():
            worker.iterate(threads)
    worker.finish()


def threads_of_worker() -> int:
    """Return how many threads of a worker may each have a database connection. Its main thread has one, too."""
    return sum(most() for *_, most in WORK) + _THREADS_FOR_THE_MINUTES_WORK


def run_once(now: datetime | None = None) -> int:
    """Sweep, do everything that is due, one row at a time, count and watch. For cron and tests. Return the number.

    If the sweep, the counting, the watching or a row fails, the rest is done and `RunIncomplete` is raised. Raises the
    database's error if the database is unavailable.
    """
    failures = []
    try:
        note_heartbeat(now or database_clock.now())
        sweep_and_note(now or database_clock.checked_now())
    except (database_clock.ClockDiffers, SweepIncomplete) as error:
        failures.append(sweep_failure(error))
    done = 0
    for name, lease, call, _ in WORK:
        # One lease at a time: if several were taken together, the last could expire before we reach its rows.
        while batches := lease(now or database_clock.now(), 1):
            tried, failed = _process_batch(call, batches[0])
            done += tried - len(failed)
            failures += [f"{name} {row.uuid} failed" for row in failed]
    for said, part in ((_NOT_COUNTED, count_events), (_NOT_WATCHED, watch)):
        try:
            part(now or database_clock.now())
        except Exception as error:
            if is_unavailable(error):
                raise
            logger.exception(said)
            failures.append(f"{said} ({type(error).__name__})")
    if failures:
        raise RunIncomplete(done, failures)
    return done


class RunIncomplete(Exception):
    """Parts of `run_once` failed; the rest was done. The message names them. `done` is the number of rows."""

    def __init__(self, done: int, failures: list[str]) -> None:
        self.done = done
        super().__init__("; ".join(failures))


def _process_batch(call: Call, batch: list[Any]) -> tuple[int, list[Any]]:
    """Work on the rows of one lease. Return how many were tried, and those that failed by an internal error.

    Raises the error of an unavailable database.
    """
    worked = work_on(batch, call)
    for store in worked.stores:
        _store_or_raise(store)
    if worked.error is None:
        return worked.tried, []
    if is_unavailable(worked.error):
        raise worked.error
    return worked.tried, [batch[worked.tried - 1]]


def _store_or_raise(store: Store) -> None:
    try:
        store()
    except Exception as error:
        if not is_unavailable(error):
            raise
        connection.close()  # perhaps only this connection was broken
        store()


class _Backlog(Exception):
    """Webhooks become due faster than they are delivered. The message says how late, and to which endpoint."""


class _Queue:
    """One kind of work: how its rows are leased and done, and its running calls. Logs if leasing fails."""

    def __init__(self, name: str, lease: Lease, call: Call, threads: Callable[[], int]) -> None:
        self.name, self.lease, self.call, self._threads = name, lease, call, threads()
        self.busy: set[Future[None]] = set()
        self.looks_at = 0.0
        self.leasing = LastingFailure(f"leasing a {name} failed", f"leasing a {name} works again")

    def take(self) -> list[list[Any]]:
        """Take one lease for each free thread. Return the rows of each. Raises the error of an unavailable database.

        The database is asked four times a second, and when a call has ended: nothing else frees a place of ours.
        """
        running = {future for future in self.busy if not future.done()}
        if len(running) == len(self.busy) and monotonic() < self.looks_at:
            return []
        self.busy, self.looks_at = running, monotonic() + _IDLE_SECONDS
        free = self._threads - len(self.busy)
        if not free or self.leasing.pause:
            return []
        try:
            batches = self.lease(database_clock.now(), free)
        except Exception as error:
            if is_unavailable(error):
                raise
            self.leasing.failed(error, traceback=True)
            return []
        self.leasing.succeeded()
        return batches


class _Worker:
    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._queues = [_Queue(*work) for work in WORK]
        # The first failure is not logged: Django replaces a broken connection at the next try.
        self._database = LastingFailure(
            "the database is unavailable: the worker waits",
            "the database is available again",
            silent=1,
            quiet_seconds=_QUIET_SECONDS,
        )
        self._clock = LastingFailure("the clock is wrong: no sweep", "the clock is right again")
        self._counts = LastingFailure(_NOT_COUNTED, "the audit log can be counted again")
        self._sweeps = LastingFailure("the sweep was incomplete", "the sweep is complete again")
        self._watching = LastingFailure(_NOT_WATCHED, "the servers' health is watched again")
        self._backlog = LastingFailure("webhook deliveries wait too long", "webhook deliveries no longer wait too long")
        self._next_minute = 0.0
        # The threads of the minute's work. The second may wait for a mail server, which must not delay a sweep.
        self._minutes_work: dict[Callable[[datetime], None], Future[None]] = {}
        self._kept: deque[Store] = deque()

    def iterate(self, threads: ThreadPoolExecutor) -> None:
        """Start the work that is due. Then wait for more work, or for the database to come back."""
        try:
            if self._database.is_failing:
                _refuse_read_only()
            self._store_kept()
            self._work_once_a_minute(threads)
            started = sum(self._start(threads, queue) for queue in self._queues)
        except Exception as error:  # noqa: BLE001  `LastingFailure` logs it; the worker must go on
            connection.close()
            self._database.failed(error)
            self._stop.wait(self._database.pause)
            return
        self._database.succeeded()
        if not started:
            self._wait()

    def finish(self) -> None:
        """Store the remaining results, if the database accepts them."""
        try:
            self._store_kept()
        except Error as error:
            extra = {"entries": len(self._kept), "error": type(error).__name__}
            logger.error("results could not be stored: these calls will be repeated", extra=extra)  # noqa: TRY400
        finally:
            connections.close_all()

    def _start(self, threads: ThreadPoolExecutor, queue: _Queue) -> int:
        batches = queue.take()
        queue.busy |= {threads.submit(self._in_thread, queue.call, batch) for batch in batches}
        return len(batches)

    def _in_thread(self, call: Call, batch: list[Any]) -> None:
        try:
            worked = work_on(batch, call, self._stop.is_set)
            if worked.error is not None and is_unavailable(worked.error):
                self._database.failed(worked.error)
            for store in worked.stores:
                self._store(store)
        except Exception:  # an internal error must not end the worker
            logger.exception(FAULT, extra={"entry": str(batch[0].uuid)})
        finally:
            connections.close_all()

    def _store(self, store: Store) -> None:
        """Store a result. On failure, try once more on a new connection; then keep the result for later."""
        for _ in range(2):
            try:
                store()
            except Error as error:
                if not is_unavailable(error):
                    raise
                self._database.failed(error)
                connections.close_all()
            else:
                return
        self._kept.append(store)

    def _store_kept(self) -> None:
        """Store the results that were kept. Raises the error of a database that is still unavailable."""
        while self._kept:
            try:
                self._kept[0]()
            except Exception as error:
                if is_unavailable(error):
                    raise
                logger.exception(FAULT)
            self._kept.popleft()

    def _work_once_a_minute(self, threads: ThreadPoolExecutor) -> None:
        """Check the clock, then sweep, count and watch in threads of their own, so that a slow one delays nothing."""
        if monotonic() < self._next_minute:
            return
        close_old_connections()
        note_heartbeat(database_clock.now())
        try:
            now = database_clock.checked_now()
        except database_clock.ClockDiffers as error:
            self._clock.failed(error)
        else:
            self._clock.succeeded()
            for work in (self._sweep, self._watch):
                running = self._minutes_work.get(work)
                if running is None or running.done():
                    self._minutes_work[work] = threads.submit(work, now)
        self._next_minute = monotonic() + SWEEP_EVERY_SECONDS

    def _sweep(self, now: datetime) -> None:
        try:
            if self._run_part(self._sweeps, partial(sweep_in_turn, now, self._stop.is_set)):
                self._run_part(self._counts, partial(count_events, now, self._stop.is_set))
        finally:
            connections.close_all()

    def _watch(self, now: datetime) -> None:
        try:
            self._run_part(self._watching, partial(self._watch_parts, now))
        finally:
            connections.close_all()

    def _watch_parts(self, now: datetime) -> None:
        if found := longest_wait(now):
            waited, endpoint = found
            self._backlog.failed(_Backlog(f"{waited.total_seconds():.0f} s, for the endpoint {endpoint.uuid}"))
        else:
            self._backlog.succeeded()
        watch(now)

    def _run_part(self, failure: LastingFailure, work: Callable[[], object]) -> bool:
        """Run `work` and log in `failure` if it fails. Returns False if the database is unavailable.

        That is logged once for the whole worker. Work that returns False was left to another worker.
        """
        try:
            is_done = work() is not False
        except Exception as error:  # noqa: BLE001  `LastingFailure` logs it
            is_outage = is_unavailable(error)
            (self._database if is_outage else failure).failed(error, traceback=not is_outage)
            return not is_outage
        if is_done:
            failure.succeeded()
        return True

    def _wait(self) -> None:
        """Wait until a queue looks for work again, or a call finishes and its thread is free."""
        seconds = max(0.0, min(queue.looks_at for queue in self._queues) - monotonic())
        if calls := set().union(*(queue.busy for queue in self._queues)):
            wait(calls, timeout=seconds, return_when=FIRST_COMPLETED)
        else:
            self._stop.wait(seconds)


def _refuse_read_only() -> None:
    """Raise `OperationalError` if the database answers but accepts no writes, as after a switchover."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_read_only')")
        if cursor.fetchone() != ("off",):
            raise OperationalError("the database accepts no writes")
