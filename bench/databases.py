"""The databases of a run: PostgreSQL installed from a wheel, or SQLite files."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg2

from bench.processes import OTHER_CORE, ROOT, base_environment, cpu_seconds, on_core

POSTGRESQL: Final = "postgresql"
SQLITE: Final = "sqlite"


@dataclass(frozen=True)
class Databases:
    """A PostgreSQL server, or a folder of SQLite files. `pid` is PostgreSQL's main process."""

    kind: str
    folder: Path
    pid: int | None = None
    socket_folder: str = ""

    def create(self, name: str) -> str:
        """Create an empty database. Returns its address, as in `DATABASE_URL`."""
        if self.kind == SQLITE:
            return f"sqlite:///{self.file(name)}"
        self.execute("postgres", f'CREATE DATABASE "{name}"')
        return f"postgres://postgres@/{name}?host={self.socket_folder}"

    def drop(self, name: str) -> None:
        """Delete the database, to free disk space for the next one."""
        if self.kind == SQLITE:
            for file in self.folder.glob(f"{name}.sqlite3*"):
                file.unlink()
        else:
            self.execute("postgres", f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement on PostgreSQL as the database's owner. Returns its rows, if any."""
        connection = psycopg2.connect(dbname=name, user="postgres", host=self.socket_folder)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def count(self, name: str, table: str) -> int:
        statement = f'SELECT count(*) FROM "{table}"'  # noqa: S608  # names of the product's tables
        if self.kind == POSTGRESQL:
            return int(self.execute(name, statement)[0][0])
        with closing(sqlite3.connect(self.file(name), timeout=20)) as connection:
            return int(connection.execute(statement).fetchone()[0])

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.sqlite3"

    def cpu_seconds(self) -> float:
        """CPU time of all PostgreSQL processes. SQLite's is included in the server's."""
        return cpu_seconds(self.pid) if self.pid else 0.0


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[Databases]:
    """Start the database server, if this kind needs one, for the duration of the block."""
    if kind == SQLITE:
        yield Databases(SQLITE, folder)
        return
    with on_core(OTHER_CORE):
        server = subprocess.Popen(
            [sys.executable, "-m", "bench.postgresql_server", str(folder / "postgresql")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=base_environment() | {"XDG_RUNTIME_DIR": str(folder)},
            start_new_session=True,  # Ctrl-C must not reach it; it stops when its standard input closes
        )
    try:
        printed = server.stdout
        socket_folder, pid = (printed.readline().strip(), printed.readline().strip()) if printed else ("", "")
        if not pid:
            raise RuntimeError("PostgreSQL did not start; see its output above")
        yield Databases(POSTGRESQL, folder, int(pid), socket_folder)
    finally:
        server.communicate(timeout=120)
