"""A drill, what came of it, and whether its promise was kept."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from drills.stage import Stage

# A request that got no answer at all: the connection was refused or broke.
NO_ANSWER: Final = "no answer"
# The consumer's page that offers another try, because too many codes are exchanged with the brand at once. This is a
# limit and no fault: whoever waited for a start comes in together.
BUSY: Final = "503 busy"
AWAY: Final = frozenset({"503"})
# nginx answers 502 for a process that went away with the request.
BROKEN_OFF: Final = frozenset({"502"})
NONE: Final[frozenset[str]] = frozenset()
# Codes of one brand that are exchanged at once: four in each of two web processes. If the connection breaks in a
# commit, nobody knows whether the token was stored, so it is neither revoked nor certainly held.
UNDER_WAY: Final = 8
# A webhook that waited longer is late. With 20 processes that want two cores some wait 3.4 s, and nothing is wrong.
LATE_SECONDS: Final = 5
RECOVERY_SECONDS: Final = 150.0


class FaultDidNotTakeHold(Exception):
    """What a drill wanted to break was not broken, so that nothing can be said of its promise."""


@dataclass(frozen=True)
class Shape:
    """How the product stands while the fault is injected. The default is that of `deploy/`."""

    # The mode of a PgBouncer before the database; empty: there is none.
    pool_mode: str = ""
    # Whether the listening sockets outlive the web processes, as systemd's socket units have it.
    holds_sockets: bool = True
    # Whether a reader, which can stop reading, takes what the web processes print.
    has_log_reader: bool = False
    # `own`: one PostgreSQL; `small_disk`: one on a small disk; `patroni`: three of them.
    database: str = "own"


@dataclass(frozen=True, kw_only=True)
class Drill:
    """One fault. `inject` returns when the fault is over; nothing else may have to be done for the product.

    `inject` proves by `Stage.prove` that the fault took hold; the control run has none. `allowed` are the statuses of
    errors that bots and people may meet. `needs` returns why the drill cannot run here, or an empty string. So many
    tokens as `most_orphans` says may stay valid at the brand. `recovers_within` so many seconds after the fault there
    are no errors and no late webhooks any more.
    """

    name: str
    promise: str
    inject: "Callable[[Stage], None]"
    allowed: frozenset[str] = NONE
    needs: Callable[[], str] = lambda: ""
    most_orphans: int = 0
    recovers_within: float = RECOVERY_SECONDS
    is_control: bool = False
    shape: Shape = Shape()


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What was acknowledged and is not there any more.

    `orphans` are tokens that the brand issued, and that are neither stored nor revoked.
    """

    tokens: int = 0
    audit_rows: int = 0
    webhooks: int = 0
    orphans: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was seen in one drill. `recovered_after` is None if it did not recover.

    `per_second` are the sign-ins of the whole drill, `late` and `slowest` (seconds) are of its webhooks, `load` is the
    machine's load average at the end.
    """

    done: int
    unfinished: int
    errors: "Counter[str]" = field(default_factory=Counter)
    lost: Lost = Lost()
    recovered_after: float | None = 0.0
    per_second: float = 0.0
    late: int = 0
    slowest: float = 0.0
    load: float = 0.0


def broken(drill: Drill, outcome: Outcome) -> list[str]:
    """Say what of the promise was not kept; empty if all of it was."""
    lost = outcome.lost
    found = [
        f"{count} x {status}"
        for status, count in sorted(outcome.errors.items())
        if status not in {*drill.allowed, BUSY}
    ]
    counted = {"tokens": lost.tokens, "audit rows": lost.audit_rows, "webhooks": lost.webhooks}
    found += [f"{count} {what} lost" for what, count in counted.items() if count]
    if lost.orphans > drill.most_orphans:
        found.append(f"{lost.orphans} tokens left valid at the brand")
    if drill.is_control and outcome.late:
        found.append(f"{outcome.late} webhooks late")
    if outcome.unfinished:
        found.append(f"{outcome.unfinished} journeys did not end")
    if outcome.recovered_after is None:
        found.append("it did not recover")
    elif outcome.recovered_after > drill.recovers_within:
        found.append(f"it recovered after more than {drill.recovers_within:.0f} s")
    if not outcome.done:
        found.append("no journey was done")
    return found
