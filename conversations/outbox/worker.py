"""The worker's loop: take what is due, do it in a few threads, sweep and count once a minute, stop cleanly.

Nothing that fails takes the rest along. Each kind of work, the sweep and the clock have their own trouble. Only where
the database is away does everything wait, in growing pauses; what was done meanwhile is written down once it is back,
before anything new is taken, so that it is not done a second time. A worker that ends before loses nothing: the rows
are free again when their leases run out.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime
from functools import partial
from threading import Event
from time import monotonic
from typing import Any, Final

from django.db import Error, OperationalError, close_old_connections, connection, connections

from conversations.flow.retention import SweepIncomplete, sweep
from conversations.outbox.revocations import lease_revocations, present
from conversations.outbox.webhooks import attempt, lease_deliveries
from conversations.statistics import count_events
from infrastructure import database_clock
from infrastructure.database_errors import is_unavailable
from infrastructure.outbox import Trouble, give_back, put_off_after_fault

# For each kind of work, so that no number of webhooks keeps a token from being revoked.
THREADS: Final = 8
SWEEP_EVERY_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 10.0

# How rows are taken, and what is done with each: the call to somebody else, which returns how to write its result down.
Lease = Callable[[datetime, int], list[Any]]
Do = Callable[[Any], Callable[[], None]]
WORK: tuple[tuple[str, Lease, Do], ...] = (
    ("revocation", lease_revocations, present),
    ("webhook delivery", lease_deliveries, attempt),
)

_FAULT: Final = "an outbox entry failed"
_NOT_COUNTED: Final = "the audit log cannot be counted"

logger = logging.getLogger("consumer_delegation.worker")


def run(stop: Event) -> None:
    """Work until `stop` is set; what is under way is finished first."""
    worker = _Worker(stop)
    threads = ThreadPoolExecutor(max_workers=THREADS * len(WORK) + 1, thread_name_prefix="outbox")
    with threads:
        while not stop.is_set():
            worker.turn(threads)
    worker.finish()


def run_once(now: datetime | None = None) -> int:
    """Sweep, do everything that is due now, one after the other, and count; return how many. For cron and tests.

    Where the sweep, the counting or an entry fails, the rest is done, and `OnceIncomplete` is raised. Raises the
    database's error where that is away.
    """
    failures = []
    try:
        sweep(now or database_clock.checked_now())
    except (database_clock.ClockDiffers, SweepIncomplete) as error:
        failures.append(_said_of_sweep(error))
    done = 0
    for name, lease, do in WORK:
        # One at a time: the last of several would be leased for longer than a lease lasts.
        while taken := lease(now or database_clock.now(), 1):
            if _is_done(do, taken[0]):
                done += 1
            else:
                failures.append(f"{name} {taken[0].uuid} failed")
    try:
        count_events(now or database_clock.now())
    except Exception as error:
        if is_unavailable(error):
            raise
        logger.exception(_NOT_COUNTED)
        failures.append(f"{_NOT_COUNTED} ({type(error).__name__})")
    if failures:
        raise OnceIncomplete(done, failures)
    return done


class OnceIncomplete(Exception):
    """Something of `run_once` failed, the rest was done; the message says what, and `done` how many entries were."""

    def __init__(self, done: int, failures: list[str]) -> None:
        self.done = done
        super().__init__("; ".join(failures))


def _said_of_sweep(error: Exception) -> str:
    if isinstance(error, database_clock.ClockDiffers):
        return f"nothing was swept: {error}"
    return f"the sweep left something undone: {error}"


def _is_done(do: Do, row: Any) -> bool:
    """Do one entry and write its result down. Raises the database's error where that is away."""
    try:
        write = do(row)
    except Exception as error:
        if is_unavailable(error):
            raise
        logger.exception(_FAULT, extra={"entry": str(row.uuid)})
        put_off_after_fault(row)
        return False
    try:
        write()
    except Exception as error:
        if not is_unavailable(error):
            raise
        connection.close()  # it may have been this connection alone
        write()
    return True


class _Kind:
    """One kind of work: its threads that are busy, and its own trouble."""

    def __init__(self, name: str, lease: Lease, do: Do) -> None:
        self.name, self.lease, self.do = name, lease, do
        self.busy: set[Future[None]] = set()
        self.trouble = Trouble(f"no {name} can be taken up", f"a {name} can be taken up again")

    def take(self) -> list[Any]:
        """Lease as many rows as there are free threads. Raises the database's error where that is away."""
        self.busy = {future for future in self.busy if not future.done()}
        free = THREADS - len(self.busy)
        if not free or self.trouble.pause:
            return []
        try:
            rows = self.lease(database_clock.now(), free)
        except Exception as error:
            if is_unavailable(error):
                raise
            self.trouble.met(error, traceback=True)
            return []
        self.trouble.worked()
        return rows


class _Worker:
    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._kinds = [_Kind(*kind) for kind in WORK]
        # The first failure is not said: a kept connection that has died is replaced by then.
        self._database = Trouble(
            "the database cannot be used: waiting for it",
            "the database can be used again",
            silent=1,
            quiet_seconds=_QUIET_SECONDS,
        )
        self._clock = Trouble("the clock is wrong: nothing is swept", "the clock is right again")
        self._counts = Trouble(_NOT_COUNTED, "the audit log can be counted again")
        self._sweeps = Trouble("the sweep left something undone", "the sweep leaves nothing undone")
        self._next_sweep, self._sweeping = 0.0, Future[None]()
        self._sweeping.set_result(None)
        self._unwritten: deque[Callable[[], None]] = deque()

    def turn(self, threads: ThreadPoolExecutor) -> None:
        """Take what is due; afterwards wait for something to do, or for the database to come back."""
        try:
            if self._database.is_met:
                _refuse_read_only()
            self._write_results()
            self._sweep_once_a_minute(threads)
            taken = sum(self._start(threads, kind) for kind in self._kinds)
        except Exception as error:  # noqa: BLE001  `Trouble` says it; a worker that ends would take everything along
            connection.close()
            self._database.met(error)
            self._stop.wait(self._database.pause)
            return
        self._database.worked()
        if not taken:
            self._wait()

    def finish(self) -> None:
        """Write down what still can be."""
        try:
            self._write_results()
        except Error as error:
            extra = {"entries": len(self._unwritten), "error": type(error).__name__}
            logger.error("results could not be written; these entries are done again", extra=extra)  # noqa: TRY400
        finally:
            connections.close_all()

    def _start(self, threads: ThreadPoolExecutor, kind: _Kind) -> int:
        rows = kind.take()
        kind.busy |= {threads.submit(self._in_thread, kind.do, row) for row in rows}
        return len(rows)

    def _in_thread(self, do: Do, row: Any) -> None:
        try:
            self._write(self._do(do, row))
        except Exception:  # a fault of ours must not end the worker
            logger.exception(_FAULT, extra={"entry": str(row.uuid)})
        finally:
            connections.close_all()

    def _do(self, do: Do, row: Any) -> Callable[[], None]:
        """Make the call; return how to write down what came of it, and be it nothing."""
        try:
            return do(row)
        except Exception as error:
            if is_unavailable(error):
                self._database.met(error)
                return partial(give_back, row)
            logger.exception(_FAULT, extra={"entry": str(row.uuid)})
            return partial(put_off_after_fault, row)

    def _write(self, write: Callable[[], None]) -> None:
        """Write a result down; once more on a new connection; and where the database is away, when it is back."""
        for _ in range(2):
            try:
                write()
            except Error as error:
                if not is_unavailable(error):
                    raise
                self._database.met(error)
                connections.close_all()
            else:
                return
        self._unwritten.append(write)

    def _write_results(self) -> None:
        """Write down what could not be before. Raises the database's error where it still cannot."""
        while self._unwritten:
            try:
                self._unwritten[0]()
            except Exception as error:
                if is_unavailable(error):
                    raise
                logger.exception(_FAULT)
            self._unwritten.popleft()

    def _sweep_once_a_minute(self, threads: ThreadPoolExecutor) -> None:
        """Measure the clock, sweep and count in a thread: whatever holds it up holds up nothing else."""
        if monotonic() < self._next_sweep:
            return
        close_old_connections()
        try:
            now = database_clock.checked_now()
        except database_clock.ClockDiffers as error:
            self._clock.met(error)
        else:
            self._clock.worked()
            if self._sweeping.done():
                self._sweeping = threads.submit(self._sweep, now)
        self._next_sweep = monotonic() + SWEEP_EVERY_SECONDS

    def _sweep(self, now: datetime) -> None:
        try:
            self._run_part(self._sweeps, partial(sweep, now, self._stop.is_set))
            self._run_part(self._counts, partial(count_events, now, self._stop.is_set))
        finally:
            connections.close_all()

    def _run_part(self, trouble: Trouble, work: Callable[[], object]) -> None:
        """Do it, and say it if that fails. Where the database is away, whatever meets that first says so once."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  `Trouble` says it
            is_away = is_unavailable(error)
            (self._database if is_away else trouble).met(error, traceback=not is_away)
        else:
            trouble.worked()

    def _wait(self) -> None:
        """Wait a second; shorter, where something finishes and may make room for more."""
        if running := _unfinished(kind.busy for kind in self._kinds):
            wait(running, timeout=_IDLE_SECONDS, return_when=FIRST_COMPLETED)
        else:
            self._stop.wait(_IDLE_SECONDS)


def _unfinished(busy: Iterable[set[Future[None]]]) -> set[Future[None]]:
    """Return what is still running: waiting for what has finished would be no waiting."""
    return {future for futures in busy for future in futures if not future.done()}


def _refuse_read_only() -> None:
    """Raise where the database answers and takes no writes, as after a switchover."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_read_only')")
        if cursor.fetchone() != ("off",):
            raise OperationalError("it takes no writes")
