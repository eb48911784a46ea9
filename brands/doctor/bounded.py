"""The doctor's run for a brand's admin: bounded in time, and telling nothing of what is inside our network (N9).

An address that is blocked, has no DNS entry, refuses the connection, answers too late or speaks no HTTP over TLS is one
sentence after one time. Padding alone could not do that: a time-out has no upper bound that a slow resolver keeps. So
nobody waits for the call itself, and what comes later than that time counts as no answer. Each step runs in a thread of
its own. Otherwise what a step tells, and when, would depend on how an earlier one failed. A thread that nobody waits
for any more ends by the transport's own deadline. Runs share no threads: the next one would wait for those.

All else is told as it is: status, codes, and what is wrong with a certificate come from addresses that were checked to
be public.
"""

import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from threading import BoundedSemaphore, Event
from typing import Final

from brands.doctor.examination import Examination, Step, Unanswered
from brands.doctor.findings import Finding, found
from oauth_client import transport

SECONDS_UNTIL_NO: Final = 5.0
SECONDS_FOR_ALL: Final = 20.0
# Each holds a thread of the web process until it ends.
RUNS_AT_ONCE: Final = 2
_runs = BoundedSemaphore(RUNS_AT_ONCE)


class AnotherRun(Exception):
    """This process has as many runs under way as it may."""


def run_within_bounds(examination: Examination, steps: tuple[Step, ...]) -> list[Finding]:
    """Run the steps at the same time, and return what they found. Blocks for up to `SECONDS_FOR_ALL`.

    Raises `AnotherRun`.
    """
    if not _runs.acquire(blocking=False):
        raise AnotherRun
    threads = ThreadPoolExecutor(max_workers=len(steps), thread_name_prefix="doctor")
    try:
        started = time.monotonic()
        runs = [_Run(step, examination, threads) for step in steps]
        return [finding for run in runs for finding in run.told(started)]
    finally:
        threads.shutdown(wait=False)
        _runs.release()


class _Run:
    """One step in its thread. `heard` is set by an HTTP answer, or by an end that told something else."""

    def __init__(self, step: Step, examination: Examination, threads: Executor) -> None:
        self._step = step
        self._heard = Event()
        self._findings: list[Finding] = []
        self._examination = replace(examination, heard=self._heard.set)
        self._is_silent = threads.submit(self._take)
        self._is_silent.add_done_callback(self._hear_the_end)

    def _hear_the_end(self, is_silent: Future[bool]) -> None:
        if is_silent.exception() or not is_silent.result():
            self._heard.set()

    def _take(self) -> bool:
        """Take the step; tell whether an answer was missing."""
        try:
            with transport.within(SECONDS_FOR_ALL):
                for finding in self._step.run(self._examination):
                    self._findings.append(finding)
        except Unanswered as unanswered:
            if not isinstance(unanswered.error, transport.CertificateNotAccepted | transport.ResponseTooLarge):
                return True
            self._findings.append(unanswered.told())
        return False

    def told(self, started: float) -> list[Finding]:
        """Wait for the step's end, or for the time after which nothing counts."""
        step, until_end = self._step, started + SECONDS_FOR_ALL
        if not self._heard.wait(_seconds_until(started + SECONDS_UNTIL_NO)):
            return [step.no_answer()]
        try:
            is_silent = self._is_silent.result(_seconds_until(until_end))
        except TimeoutError:
            return [*self._findings, found("unfinished", field=step.field, tried=step.title)]
        if is_silent:
            time.sleep(_seconds_until(until_end))  # however soon a later call of the step failed
            return [*self._findings, step.no_answer()]
        return self._findings


def _seconds_until(moment: float) -> float:
    return max(0.0, moment - time.monotonic())
