"""All drills, the most important first."""

from typing import Final

from drills.faults import cache, database, keys, patroni, web, workers
from drills.promises import Drill

DRILLS: Final[tuple[Drill, ...]] = (
    *web.DRILLS,
    *workers.DRILLS,
    *database.DRILLS,
    *patroni.DRILLS,
    *cache.DRILLS,
    *keys.DRILLS,
)
