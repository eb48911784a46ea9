"""A rotation of the encryption keys, in the steps of the operators' page."""

from typing import Final

from drills.promises import Drill
from drills.stage import Stage, manage, new_key


def rotate(stage: Stage) -> None:
    """Add a key behind the old one, then put it in front, then re-encrypt. Everything is restarted at each step."""
    first, second = stage.made.encryption_key, new_key("second")
    for keys in (f"{first},{second}", f"{second},{first}"):
        stage.use(ENCRYPTION_KEYS=keys)
        for service in (*stage.web, *stage.workers):
            service.restart()
        stage.wait_until_ready()
    held = manage(stage.environment, "reencrypt")
    stage.prove("stored values are held by the new key", holds="is held by: second " in held)


DRILLS: Final = (
    Drill(
        name="key_rotation",
        promise="a new key in three steps, everything restarted twice: no error, nothing lost",
        inject=rotate,
    ),
)
