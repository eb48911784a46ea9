"""How long PostgreSQL may keep a web process waiting: a lock that nobody releases must not stop every thread.

Web processes alone have these limits; migrations, `prune`, `reencrypt` and the worker may take their time. They are
sent as start-up options, which cost no round trip. A pooler that hands connections around between transactions refuses
or drops those: behind one, each transaction sets them itself, in the same message as its first statement.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

# In milliseconds. A thread that waits longer than the first one is free again, for probes among others.
LIMITS: Final = {"lock_timeout": 4_000, "statement_timeout": 8_000, "idle_in_transaction_session_timeout": 20_000}
# What stores a token that a brand has issued waits longer: giving up would lose it. The proxy waits 35 seconds.
PATIENT: Final = LIMITS | {"lock_timeout": 20_000, "statement_timeout": 20_000}

START_UP_OPTIONS: Final = " ".join(f"-c {name}={limit}" for name, limit in LIMITS.items())


def _in_transaction(limits: dict[str, int]) -> str:
    return "".join(f"SET LOCAL {name} = {limit}; " for name, limit in limits.items())


_IN_TRANSACTION: Final = _in_transaction(LIMITS)
_PATIENT_IN_TRANSACTION: Final = _in_transaction(PATIENT)

logger = logging.getLogger("consumer_delegation.time_outs")


@dataclass
class _Process:
    """Whether this process has limits, and whether a pooler stands before its PostgreSQL."""

    is_limited: bool = False
    is_pooled: bool = False


_process = _Process()
_is_patient: ContextVar[bool] = ContextVar("is_patient", default=False)


def limit_from_now_on() -> None:
    """Say that this process serves."""
    _process.is_limited = True


def meet_pooler() -> None:
    """Send no start-up options from now on: what stands before PostgreSQL does not pass them on."""
    if not _process.is_pooled:
        _process.is_pooled = True
        logger.warning("a pooler: each transaction sets its own time-outs from now on; see DISABLE_SERVER_SIDE_CURSORS")


def start_up_options(*, is_pooler_named: bool) -> str:
    """Return what a new connection of this process sets for itself; nothing where a pooler would not pass it on."""
    return START_UP_OPTIONS if _process.is_limited and not (_process.is_pooled or is_pooler_named) else ""


def in_transaction(*, has_options: bool) -> str:
    """Return the statements that go before the first one of a transaction, or of none; `""` for none."""
    if not _process.is_limited:
        return ""
    if _is_patient.get():
        return _PATIENT_IN_TRANSACTION
    return "" if has_options else _IN_TRANSACTION


@contextmanager
def patience() -> Iterator[None]:
    """Wait longer for locks in the transactions that begin in this block: what they store cannot be had again."""
    before = _is_patient.set(True)
    try:
        yield
    finally:
        _is_patient.reset(before)
