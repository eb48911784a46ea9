"""The databases of a run: PostgreSQL from a Python package, or SQLite files."""

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
    """A PostgreSQL server, or a folder with SQLite files. `pid` is PostgreSQL's first process."""

    kind: str
    folder: Path
    pid: int | None = None
    socket_folder: str = ""

    def create(self, name: str, *, again: bool = False, like: str = "") -> str:
        """Create a database; return its `DATABASE_URL`. It is empty, or on PostgreSQL a copy of `like`.

        `again`: one of this name may be kept, and is used.
        """
        if self.kind == SQLITE:
            return f"sqlite:///{self.file(name)}"
        if not (again and self.execute("postgres", f"SELECT FROM pg_database WHERE datname = '{name}'")):
            self.execute("postgres", f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{like}"' if like else ""))
        return f"postgres://postgres@/{name}?host={self.socket_folder}"

    def drop(self, name: str) -> None:
        """Delete a database, because the next one may need the space."""
        if self.kind == SQLITE:
            for file in self.folder.glob(f"{name}.sqlite3*"):
                file.unlink()
        else:
            self.execute("postgres", f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        """Run one PostgreSQL statement as the owner; return its rows, if it has any."""
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
        """CPU seconds of all PostgreSQL processes. SQLite runs in the server's process and counts there."""
        return cpu_seconds(self.pid) if self.pid else 0.0


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[Databases]:
    """Start the database server, if there is one, and stop it at the end of the block."""
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
            start_new_session=True,  # Ctrl-C must not reach it; it stops when its input closes
        )
    try:
        printed = server.stdout
        socket_folder, pid = (printed.readline().strip(), printed.readline().strip()) if printed else ("", "")
        if not pid:
            raise RuntimeError("PostgreSQL did not start; its reason stands above")
        yield Databases(POSTGRESQL, folder, int(pid), socket_folder)
    finally:
        server.communicate(timeout=120)
