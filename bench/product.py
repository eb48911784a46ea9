"""The product as in production: gunicorn with our configuration, behind a trusted proxy."""

import base64
import io
import json
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.processes import OTHER_CORE, ROOT, SERVER_CORE, free_port, python, running, wait_for_port

HOST: Final = "delegation.test"
PUBLIC_BASE_URL: Final = f"https://{HOST}"


@dataclass(frozen=True)
class Installation:
    """An installation with its own database and random keys. `code` is the build that seeds and serves it."""

    folder: Path
    database_url: str
    environment: dict[str, str]
    code: Path = ROOT

    @classmethod
    def new(cls, folder: Path, database_url: str, ca_file: Path | None = None, code: Path = ROOT) -> "Installation":
        """Create an installation. `ca_file` is the CA for the brands' servers."""
        environment = {
            "DJANGO_SETTINGS_MODULE": "delegation_site.settings",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ENCRYPTION_KEYS": f"bench:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            "DATABASE_URL": database_url,
            "PUBLIC_BASE_URL": PUBLIC_BASE_URL,
            "ALLOWED_HOSTS": HOST,
            "TRUSTED_PROXY_COUNT": "1",
            "ALLOW_LOCAL_ENDPOINTS": "1",
            "MALLOC_ARENA_MAX": "2",  # as in deploy/
            "OUTBOUND_CA_FILE": str(ca_file) if ca_file else "",
        }
        return cls(folder, database_url, environment, code)

    def make_tables(self) -> None:
        """Create empty tables, which other databases can be copies of."""
        python("django", "migrate", "--verbosity", "0", environment=self.environment, core=SERVER_CORE)

    def seed(self, name: str, **wanted: Any) -> dict[str, Any]:
        """Create tables and rows (`bench.seeding.Wanted`) by the build's code. Return the data needed for requests."""
        order, made = self.folder / f"{name}.order.json", self.folder / f"{name}.json"
        order.write_text(json.dumps(wanted))
        # On the servers' core, which is idle now. The database uses the other.
        arguments = ("bench.seeding", str(order), str(made))
        python(*arguments, environment=self.environment, core=SERVER_CORE, code=self.code)
        seeded: dict[str, Any] = json.loads(made.read_text())
        return seeded

    def python(self, module: str, *arguments: str, core: int = OTHER_CORE) -> dict[str, Any]:
        """Run one of our modules inside this installation; return the JSON that it writes."""
        written = self.folder / f"{module}.json"
        python(module, *arguments, str(written), environment=self.environment, core=core)
        answer: dict[str, Any] = json.loads(written.read_text())
        return answer


def can_seed(commit: str) -> bool:
    """Whether git has this commit, and it has the module that fills its database."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:bench/seeding.py"]
    return not subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode


def build_of(commit: str, folder: Path) -> Path:
    """Unpack the product as of a commit into a new folder. Raises `CalledProcessError` if git has no such commit."""
    command = ["git", "archive", "--format=tar", "--end-of-options", commit]
    packed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    build = folder / "build"
    build.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(build, filter="data")
    return build


@contextmanager
def serving(installation: Installation, *, workers: int, threads: int) -> Iterator["Server"]:
    """Serve an installation until the block ends."""
    port = free_port()
    log = installation.folder / f"product-{port}.log"
    environment = installation.environment | {
        "BIND": f"127.0.0.1:{port}",
        "WORKERS": str(workers),
        "THREADS": str(threads),
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "delegation_site/gunicorn.py"]
    with running(command, core=SERVER_CORE, environment=environment, log=log, cwd=installation.code) as process:
        wait_for_port(port, process, log)
        yield Server(port, process.pid)


@contextmanager
def serving_wsgi(
    application: str, folder: Path, environment: dict[str, str], *, workers: int, threads: int
) -> Iterator["Server"]:
    """Serve another WSGI application under the same gunicorn, with the same kind of workers."""
    port = free_port()
    log = folder / f"{application.partition(':')[0]}-{port}.log"
    command = [
        sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--workers", str(workers),
        "--threads", str(threads), "--keep-alive", "30", "--no-control-socket",
        "--bind", f"127.0.0.1:{port}", application,
    ]  # fmt: skip
    with running(command, core=SERVER_CORE, environment=environment, log=log) as process:
        wait_for_port(port, process, log)
        yield Server(port, process.pid)


@dataclass(frozen=True)
class Server:
    """A running server; `pid` is its first process."""

    port: int
    pid: int
