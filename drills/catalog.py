"""All drills: the control run, then the most important first."""

from typing import Final

from drills.faults import cache, control, database, keys, patroni, second_node, web, workers
from drills.promises import Drill

DRILLS: Final[tuple[Drill, ...]] = (
    control.CONTROL,
    *web.DRILLS,
    *workers.DRILLS,
    *database.DRILLS,
    *patroni.DRILLS,
    *second_node.DRILLS,
    *cache.DRILLS,
    *keys.DRILLS,
)
