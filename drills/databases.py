"""The databases of drills: PostgreSQL as durable as in production, on its own or on a small disk, and a pooler."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from tests.own_postgresql import ACCOUNT, BINARIES, OwnPostgreSQL, folder_of_account, pgbouncer

MAX_CONNECTIONS: Final = 200
_DURABLE: Final = f"-c fsync=on -c full_page_writes=on -c max_connections={MAX_CONNECTIONS}"
# PostgreSQL's own files, one WAL segment after another, and what a hundred journeys write.
SMALL_DISK_MIB: Final = 256
_POOLED: Final = {"transaction": 20, "session": 150}


class Database(Protocol):
    """What every drill needs of the database that its product uses."""

    @property
    def url(self) -> str: ...

    def sql(self, statement: str) -> list[Any]: ...


class DurablePostgreSQL(OwnPostgreSQL):
    """A server whose commits are on the disk, as in production; those of tests need not be."""

    def start(self, options: str = "", *, is_awaited: bool = True) -> None:
        """Start the server, and wait until it answers."""
        super().start(f"{_DURABLE} {options}", is_awaited=is_awaited)

    def ensure_running(self) -> None:
        """Start the server, as its own unit would, if it ended by itself because of what it met."""
        status = subprocess.run(
            [BINARIES / "pg_ctl", "status", "-D", str(self.folder)], user=ACCOUNT, capture_output=True, check=False
        )
        if status.returncode:
            self.start()


@contextmanager
def postgresql(template: OwnPostgreSQL, *, on_small_disk: bool = False) -> Iterator[DurablePostgreSQL]:
    """Run a copy of a stopped server until the block ends."""
    with ExitStack() as stack:
        folder = stack.enter_context(folder_of_account())
        if on_small_disk:
            stack.enter_context(mounted(folder))
        server = DurablePostgreSQL(folder / "primary")
        server.make_copy_of(template)
        server.start()
        stack.callback(server.stop, "immediate")
        yield server


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Mount a small disk at a folder until the block ends."""
    size = f"size={SMALL_DISK_MIB}m,mode=0777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "drill", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def no_mounts() -> str:
    """Return why no small disk can be mounted here; empty if one can."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        return "a disk can be mounted by root only"
    try:
        with folder_of_account() as folder, mounted(folder):
            return ""
    except subprocess.CalledProcessError as refused:
        return f"no disk can be mounted here: {refused.stderr.decode(errors='replace').strip()}"


class Pooler:
    """A PgBouncer before the server, which can be stopped and started again at the same port."""

    def __init__(self, server: OwnPostgreSQL, mode: str, port: int) -> None:
        self._server, self._mode, self._port = server, mode, port
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """The address for the product: in transaction mode with the setting that says so."""
        named = "?DISABLE_SERVER_SIDE_CURSORS=true" if self._mode == "transaction" else ""
        return f"{self.server_url}{named}"

    @property
    def server_url(self) -> str:
        """The address without the product's own settings."""
        return f"postgres://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        server = f"host=127.0.0.1 port={self._server.port} dbname=postgres user=postgres"
        pooled = pgbouncer(server, mode=self._mode, pool=_POOLED[self._mode], port=self._port)
        self._running.enter_context(pooled)

    def stop(self) -> None:
        """Stop it at once: its clients' connections break."""
        self._running.close()


def no_pooler() -> str:
    """Return why no pooler can run here; empty if one can."""
    return "" if shutil.which("pgbouncer") else "pgbouncer is not installed"
