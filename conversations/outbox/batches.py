"""Work on the rows of one lease, one after the other: make the calls first, and store their results at the end.

One statement stores all results of a kind, because a commit for each would cost as much as the call. If the worker is
killed meanwhile, the calls of this batch are made again when the lease ends.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Final

from infrastructure.database_errors import is_unavailable
from infrastructure.outbox import give_back, give_back_rest, put_off_after_fault

# A batch ends after this time, and what is left of it is given back: other endpoints and workers may have their turn.
BATCH_SECONDS: Final = 1.0
FAULT: Final = "an outbox entry failed"

# Stores results. It is safe to call it again after a database failure.
Store = Callable[[], object]

logger = logging.getLogger("consumer_delegation.worker")


@dataclass(frozen=True)
class Accepted:
    """The result of a call that worked, after which the next row may follow.

    `together` takes the rows of a batch that have this outcome, and returns how to store it.
    """

    row: Any
    outcome: str
    together: Callable[[list[Any], str], Store]


# Makes the call to the other server for one row. Any result but `Accepted` ends the batch.
Call = Callable[[Any], Store | Accepted]


@dataclass(frozen=True)
class Worked:
    """What came of a batch: how to store it, in this order, how many rows were tried, and the error of the last."""

    stores: list[Store]
    tried: int
    error: Exception | None = None


def work_on(batch: list[Any], call: Call, is_stopping: Callable[[], bool] = lambda: False) -> Worked:
    """Call for the rows of one lease, until one does not work, the time is over, or the worker stops.

    If a call raises an error, its row is put off, or given back if the error is that of an unavailable database.
    """
    until = monotonic() + BATCH_SECONDS
    accepted: list[Accepted] = []
    for tried, row in enumerate(batch, 1):
        try:
            result = call(row)
        except Exception as error:  # noqa: BLE001  an internal error must not end the worker; it is logged
            return Worked(_stores(accepted, _put_off(row, error), batch[tried:]), tried, error)
        if not isinstance(result, Accepted):
            return Worked(_stores(accepted, result, batch[tried:]), tried)
        accepted.append(result)
        if monotonic() >= until or is_stopping():
            break
    return Worked(_stores(accepted, None, batch[len(accepted) :]), len(accepted))


def _put_off(row: Any, error: Exception) -> Store:
    if is_unavailable(error):
        return partial(give_back, row)
    logger.error(FAULT, extra={"entry": str(row.uuid)}, exc_info=error)
    return partial(put_off_after_fault, row)


def _stores(accepted: list[Accepted], last: Store | None, rest: list[Any]) -> list[Store]:
    """Return how to store what worked, the result that ended the batch, and that the rest was not tried."""
    by_outcome: dict[str, list[Accepted]] = {}
    for result in accepted:
        by_outcome.setdefault(result.outcome, []).append(result)
    stores = [
        results[0].together([result.row for result in results], outcome) for outcome, results in by_outcome.items()
    ]
    if last is not None:
        stores.append(last)
    return [*stores, partial(give_back_rest, rest)] if rest else stores
