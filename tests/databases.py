"""Which database a test run uses: `TEST_DATABASE=sqlite` (the default) or `postgresql`.

Each run has its own folder, so that two runs in one work tree do not collide. The first process of a run creates the
folder and starts the server. The worker processes of pytest-xdist inherit both through the environment.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Final

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"


def chosen() -> str:
    name = os.environ.get("TEST_DATABASE", SQLITE)
    if name not in {SQLITE, POSTGRESQL}:
        raise ValueError(f"TEST_DATABASE is {SQLITE} or {POSTGRESQL}, not {name}")
    return name


def enter() -> None:
    """Point `DATABASE_URL` at the chosen database. The first process of the run starts PostgreSQL."""
    if chosen() == SQLITE:
        os.environ["DATABASE_URL"] = f"sqlite:///{run_folder() / 'never-opened.sqlite3'}"
        return
    if "TEST_POSTGRESQL_URL" not in os.environ:
        make_run_folder()
        os.environ["TEST_POSTGRESQL_URL"] = _start_postgresql()
    os.environ["DATABASE_URL"] = os.environ["TEST_POSTGRESQL_URL"]


def run_folder() -> Path:
    """The folder of this run. It may not exist yet: mypy reads the settings too, and needs none."""
    name = f"consumer-delegation-tests-{uuid.uuid4().hex}"
    return Path(os.environ.setdefault("TEST_RUN_FOLDER", str(Path(tempfile.gettempdir()) / name)))


def make_run_folder() -> None:
    """Create the folder of this run if needed. It is removed when the process that created it ends."""
    folder = run_folder()
    if not folder.exists():
        folder.mkdir(mode=0o700)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _start_postgresql() -> str:
    """Start `tests.postgresql_server`, which stops when this process ends. Returns its address."""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(run_folder())}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.postgresql_server", str(run_folder() / "postgresql")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )
    atexit.register(_stop, server)
    assert server.stdout
    address = server.stdout.readline().strip()
    if not address:
        raise RuntimeError("PostgreSQL did not start; see its output above")
    return address


def _stop(server: subprocess.Popen[str]) -> None:
    """Close the server's input and wait until it has stopped, so that its folder can be removed."""
    server.communicate(timeout=60)
