"""No fault at all: what the load alone does to the product on this machine."""

import time
from typing import Final

from drills.promises import Drill
from drills.stage import Stage

_SECONDS: Final = 20


def nothing(_stage: Stage) -> None:
    """Wait about as long as most faults take."""
    time.sleep(_SECONDS)


CONTROL: Final = Drill(
    name="control",
    promise=f"no fault, {_SECONDS} s: no error, nothing lost, no webhook late",
    inject=nothing,
    is_control=True,
)
