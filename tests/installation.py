"""An installation of the product with its own database and environment, and processes in that environment."""

import fcntl
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg2

from tests import databases

ROOT: Final = Path(__file__).parent.parent
START: Final = "import os, sys, django; django.setup()\n"


@dataclass
class Installation:
    """Its folder, and the keys for its next processes."""

    folder: Path
    encryption_keys: str
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database_url = self._own_database_url = new_database(self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """The complete environment of its processes."""
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
        return kept | {
            "DJANGO_SETTINGS_MODULE": "delegation_site.settings",
            "SECRET_KEY": "of-an-installation-of-its-own-8fJ2xQm4WZr7sLtKpYdNbEcHfUgAoRiT5q",
            "ENCRYPTION_KEYS": self.encryption_keys,
            "DATABASE_URL": self.database_url,
            "PUBLIC_BASE_URL": "https://delegation.example",
            **self.settings,
        }

    def migrate(self) -> None:
        """Make the tables. Those of a database of the run's own are made once for all processes, and copied."""
        if self.database_url != self._own_database_url:  # a test has put another server in its place
            self.manage("migrate", "-v0")
            return
        template = databases.run_folder() / "migrated"
        with Path(f"{template}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not template.exists():
                template.mkdir()
                made = Installation(template, self.encryption_keys)
                made.manage("migrate", "-v0")
                (template / "address").write_text(made.database_url)
        # At the same address, which processes may know by now.
        copy_database((template / "address").read_text(), self.database_url)

    def run(self, *command: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a process to its end."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=ROOT, env=self.environment, input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def manage(self, *arguments: str, text: str = "") -> str:
        """Run a management command that must succeed. Returns its output."""
        result = self.run("manage.py", *arguments, text=text)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def python(self, code: str) -> str:
        """Run Python code in a process of the product. Returns its output."""
        result = self.run("-c", START + code)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def start(self, code: str) -> Any:
        """Start Python code in a process of the product. The caller ends it by closing its standard input."""
        return subprocess.Popen(
            [sys.executable, "-c", START + code],
            cwd=ROOT, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


def database_file(folder: Path) -> Path:
    """The database file of an installation, in a run with SQLite."""
    return folder / "installation.sqlite3"


def new_database(folder: Path) -> str:
    """Create an empty database for an installation in this folder. Returns its address."""
    if databases.chosen() == databases.SQLITE:
        return f"sqlite:///{database_file(folder)}"
    name = f"installation_{uuid.uuid4().hex}"
    _run_sql(f'CREATE DATABASE "{name}"')
    return os.environ["TEST_POSTGRESQL_URL"].replace("@/postgres?", f"@/{name}?")


def copy_database(source: str, target: str) -> None:
    """Replace the database at the address `target` by a copy of another one, to which nobody may be connected."""
    if databases.chosen() == databases.SQLITE:
        shutil.copy(source.removeprefix("sqlite:///"), target.removeprefix("sqlite:///"))
        return
    old, new = (urlsplit(address).path[1:] for address in (source, target))
    _run_sql(f'DROP DATABASE "{new}"', f'CREATE DATABASE "{new}" TEMPLATE "{old}"')


def _run_sql(*statements: str) -> None:
    connection = psycopg2.connect(os.environ["TEST_POSTGRESQL_URL"])
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()
