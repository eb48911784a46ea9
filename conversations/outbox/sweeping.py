"""The worker's sweep: one worker at a time, once a minute, however many run."""

from collections.abc import Callable
from datetime import datetime

from conversations.flow.retention import sweep
from infrastructure import database_clock
from infrastructure.outbox import SweepTurn, note_heartbeat


def sweep_in_turn(now: datetime, is_stopping: Callable[[], bool]) -> bool:
    """Sweep, unless another worker does, or has begun to in this minute: then return False. Raises as `sweep` does."""
    turn = SweepTurn.take(now)
    if turn is None:
        return False
    try:
        sweep_and_note(now, lambda: is_stopping() or turn.is_lost())
    finally:
        turn.end()
    return True


def sweep_and_note(now: datetime, is_stopping: Callable[[], bool] = lambda: False) -> None:
    """Sweep, and note when. Raises what `sweep` raises."""
    sweep(now, is_stopping)
    note_heartbeat(now, swept=True)


def sweep_failure(error: Exception) -> str:
    """Say why a sweep was not done, or not all of it."""
    if isinstance(error, database_clock.ClockDiffers):
        return f"no sweep: {error}"
    return f"the sweep was incomplete: {error}"
