"""The doctor's run for a brand's admin: bounded in time, and telling nothing of what is inside our network (N9).

If an address is blocked, has no DNS entry, refuses the connection, answers too late or speaks no HTTP over TLS, the
admin reads the same sentence, after the same time. To delay fast failures is not enough, because a slow resolver can
make a time-out take longer than any fixed delay. So nobody waits for the call itself, and an answer after that time
counts as none. Each step runs in a thread of its own. Otherwise the findings of a step, and their time, would depend on
how an earlier step failed. A thread that nobody waits for any more ends by the transport's own deadline. Runs share no
threads: the next run would wait for such threads.

Everything else is shown: status, codes, and the problem with a certificate come from addresses that were checked to be
public, or inside a private network in which the operator lets this brand be called (N14).
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from threading import BoundedSemaphore, Event
from typing import Final, TypeVar

from brands.doctor.examination import Examination, Step, Unanswered
from brands.doctor.findings import Finding, found
from oauth_client import transport
from oauth_client.addresses import allowing

SECONDS_UNTIL_NO: Final = 5.0
SECONDS_FOR_ALL: Final = 20.0
# Each run holds a thread of the web process until it ends.
RUNS_AT_ONCE: Final = 2
_runs = BoundedSemaphore(RUNS_AT_ONCE)

LookedUp = TypeVar("LookedUp")

logger = logging.getLogger("consumer_delegation.doctor")


class AnotherRun(Exception):
    """This process already runs as many examinations as it may at once."""


def run_within_bounds(examination: Examination, steps: tuple[Step, ...], seconds: float | None = None) -> list[Finding]:
    """Run the steps at the same time, and return their findings. Blocks for up to `seconds`, or `SECONDS_FOR_ALL`.

    The log gets the reason of each missing answer, for the operator. Raises `AnotherRun`.
    """
    if not _runs.acquire(blocking=False):
        raise AnotherRun
    threads = ThreadPoolExecutor(max_workers=len(steps), thread_name_prefix="doctor")
    try:
        started = time.monotonic()
        runs = [_Run(step, examination, threads, seconds or SECONDS_FOR_ALL) for step in steps]
        return [finding for run in runs for finding in run.findings(started)]
    finally:
        threads.shutdown(wait=False)
        _runs.release()


class NotAnswered(Exception):
    """No answer came in time. The message is what may be told beyond that: what is wrong with a certificate, or ""."""


def look_up_within_bounds(
    examination: Examination, title: str, field: str, look_up: Callable[[], LookedUp]
) -> LookedUp:
    """Return what `look_up` returns. It raises `Unanswered` if the server gave no answer.

    Bounded as a run of one step. Raises `AnotherRun` and `NotAnswered`.
    """
    results: list[LookedUp] = []

    def step(_: Examination) -> Iterator[Finding]:
        results.append(look_up())
        return iter(())

    findings = run_within_bounds(examination, (Step(title, field, step),))
    if findings:
        raise NotAnswered("" if findings[0].code == "no_answer" else f" {findings[0].meaning}")
    return results[0]


class _Run:
    """One step in its thread. `_heard` is set by the first HTTP response, or if the step ends with findings."""

    def __init__(self, step: Step, examination: Examination, threads: Executor, seconds: float) -> None:
        self._step = step
        self._seconds = seconds
        self._heard = Event()
        self._findings: list[Finding] = []
        self._silent = step.no_answer()
        self._examination = replace(examination, heard=self._heard.set)
        self._networks = examination.server.private_networks  # here, because a thread reads no database
        self._is_silent = threads.submit(self._take)
        self._is_silent.add_done_callback(self._hear_the_end)

    def _hear_the_end(self, is_silent: Future[bool]) -> None:
        if is_silent.exception() or not is_silent.result():
            self._heard.set()

    def _take(self) -> bool:
        """Run the step. Return True if it ended because no answer came."""
        try:
            with transport.within(self._seconds), allowing(self._networks):
                for finding in self._step.run(self._examination):
                    self._findings.append(finding)
        except Unanswered as unanswered:
            if not isinstance(unanswered.error, transport.CertificateNotAccepted | transport.ResponseTooLarge):
                self._log(unanswered.error)
                self._silent = replace(self._silent, field=unanswered.field, tried=unanswered.tried)
                return True
            self._findings.append(unanswered.finding())
        return False

    def _log(self, error: transport.OutboundError) -> None:
        server = {"authorization_server": str(self._examination.server.uuid)}
        logger.warning(
            "a server did not answer the doctor", extra={**server, "field": self._step.field, "error": str(error)}
        )

    def findings(self, started: float) -> list[Finding]:
        """Wait for the step's end, or for the time limit. Return the findings."""
        step, until_end = self._step, started + self._seconds
        if not self._heard.wait(_seconds_until(started + SECONDS_UNTIL_NO)):
            return [step.no_answer()]
        try:
            is_silent = self._is_silent.result(_seconds_until(until_end))
        except TimeoutError:
            return [*self._findings, found("unfinished", field=step.field, tried=step.title)]
        if is_silent:
            time.sleep(_seconds_until(until_end))  # however soon a later call of the step failed
            return [*self._findings, self._silent]
        return self._findings


def _seconds_until(moment: float) -> float:
    return max(0.0, moment - time.monotonic())
