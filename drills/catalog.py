"""All drills, the most important first."""

from typing import Final

from drills.faults import database, web
from drills.promises import Drill

DRILLS: Final[tuple[Drill, ...]] = (*web.DRILLS, *database.DRILLS)
