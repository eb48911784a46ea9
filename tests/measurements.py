"""Measurements of tests, stored in `test-output` for each database and printed at the end of a run."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests import databases

FILE: Final = Path(__file__).parent.parent / "test-output" / f"measurements-{databases.chosen()}.json"


def forget() -> None:
    """Delete the measurements of an earlier run."""
    FILE.unlink(missing_ok=True)


def note(subject: str, circumstances: str, measured: Mapping[str, float]) -> None:
    """Store a measurement, beside those of the run's other processes."""
    FILE.parent.mkdir(exist_ok=True)
    with FILE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        noted = json.loads(FILE.read_text()) if FILE.exists() else {}
        noted.setdefault(subject, {})[circumstances] = dict(measured)
        FILE.write_text(json.dumps(noted, indent=2))


def lines() -> Iterator[str]:
    """Yield a line for each measurement."""
    noted = json.loads(FILE.read_text()) if FILE.exists() else {}
    for subject, by_circumstances in noted.items():
        for circumstances, measured in by_circumstances.items():
            figures = ", ".join(f"{name.replace('_', ' ')} {figure:,}" for name, figure in measured.items())
            yield f"{subject}, {circumstances}: {figures}"
