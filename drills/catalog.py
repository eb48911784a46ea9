"""All drills: the control run, then the most important first."""

from typing import Final

from drills.faults import cache, control, database, keys, patroni, web, workers
from drills.promises import Drill

DRILLS: Final[tuple[Drill, ...]] = (
    control.CONTROL,
    *web.DRILLS,
    *workers.DRILLS,
    *database.DRILLS,
    *patroni.DRILLS,
    *cache.DRILLS,
    *keys.DRILLS,
)
