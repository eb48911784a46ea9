"""Three members of Patroni with synchronous mode, on this machine. They agree by Raft, so no other server is needed."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg2
import requests

from bench.processes import ROOT, base_environment
from drills.databases import MAX_CONNECTIONS
from tests.demo.machines import free_ports
from tests.own_postgresql import ACCOUNT, BINARIES, OwnPostgreSQL, folder_of_account

_PATRONI: Final = ROOT / ".venv-drills" / "bin" / "patroni"
_MEMBERS: Final = 3
# The shortest time to live that Patroni allows: a leader that is killed is replaced after it.
_TTL_SECONDS: Final = 20
_START_SECONDS: Final = 120


def no_patroni() -> str:
    """Return why Patroni cannot run here; empty if it can."""
    if not _PATRONI.exists():
        return "Patroni is not installed in .venv-drills (make drills installs it)"
    try:
        subprocess.run([_PATRONI, "--version"], user=ACCOUNT, cwd="/", capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"the account {ACCOUNT} cannot run the Python of .venv-drills"
    return ""


@dataclass
class Member:
    """A Patroni with its PostgreSQL."""

    name: str
    folder: Path
    port: int
    api_port: int
    raft_port: int
    process: "subprocess.Popen[bytes] | None" = None

    def configuration(self, others: list["Member"]) -> dict[str, Any]:
        """Return its file. JSON is YAML."""
        trusted = [f"host {database} postgres 127.0.0.1/32 trust" for database in ("all", "replication")]
        postgres = {"username": "postgres"}
        return {
            "scope": "drills",
            "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{self.api_port}", "connect_address": f"127.0.0.1:{self.api_port}"},
            "raft": {
                "data_dir": str(self.folder / f"{self.name}-raft"),
                "self_addr": f"127.0.0.1:{self.raft_port}",
                "partner_addrs": [f"127.0.0.1:{other.raft_port}" for other in others],
            },
            "bootstrap": {
                "dcs": {
                    "ttl": _TTL_SECONDS,
                    "loop_wait": 2,
                    "retry_timeout": 5,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": MAX_CONNECTIONS}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.folder / self.name),
                "bin_dir": str(BINARIES),
                "authentication": {"superuser": postgres, "replication": postgres, "rewind": postgres},
                "parameters": {"unix_socket_directories": ""},
                "pg_hba": trusted,
            },
        }

    def start(self, others: list["Member"]) -> None:
        """Start Patroni, which starts PostgreSQL."""
        file = self.folder / f"{self.name}.yml"
        file.write_text(json.dumps(self.configuration(others)))
        with (self.folder / f"{self.name}.log").open("ab") as printed:
            self.process = subprocess.Popen(
                [_PATRONI, file],
                user=ACCOUNT,
                cwd=self.folder,
                env=base_environment() | {"HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to Patroni and to everything of its PostgreSQL, as if the machine was gone."""
        if self.process is None:
            return
        postmaster = self.folder / self.name / "postmaster.pid"
        pids = [self.process.pid, *([int(postmaster.read_text().split()[0])] if postmaster.exists() else [])]
        for pid in pids:
            for process in _with_children(pid):
                with suppress(psutil.NoSuchProcess):  # PostgreSQL's end by themselves as soon as one is killed
                    process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def is_leader(self) -> bool:
        """Whether it says that it is the primary."""
        try:
            return requests.get(f"http://127.0.0.1:{self.api_port}/primary", timeout=3).ok
        except requests.RequestException:
            return False


def _with_children(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants; none if it has ended."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass
class Cluster:
    """The members, and the address that names all of them: only the primary takes writes."""

    members: list[Member]

    @property
    def url(self) -> str:
        """The address, as the operators' page has it."""
        hosts = ",".join("127.0.0.1" for _ in self.members)
        ports = ",".join(str(member.port) for member in self.members)
        return f"postgres://postgres@/postgres?host={hosts}&port={ports}&target_session_attrs=read-write"

    @property
    def leader(self) -> Member:
        """The primary. Raises `RuntimeError` if there is none."""
        found = [member for member in self.members if member.is_leader()]
        if len(found) != 1:
            raise RuntimeError(f"{len(found)} members say that they are the primary")
        return found[0]

    def sql(self, statement: str) -> list[Any]:
        """Run a statement on the primary."""
        session = psycopg2.connect(self.url)
        session.autocommit = True
        try:
            with session.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            session.close()

    def start(self, member: Member) -> None:
        """Start a member, which finds the others."""
        member.start([other for other in self.members if other is not member])

    def wait_until_synchronous(self, standbys: int) -> None:
        """Wait for a primary, so many standbys, and one of them that each commit waits for. Raises `RuntimeError`."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                states = [state for (state,) in self.sql("SELECT sync_state FROM pg_stat_replication")]
            except psycopg2.OperationalError:
                states = []
            if len(states) >= standbys and "sync" in states:
                return
            time.sleep(0.5)
        logs = "\n".join((one.folder / f"{one.name}.log").read_text()[-1500:] for one in self.members)
        raise RuntimeError(f"Patroni did not come to a synchronous standby:\n{logs}")

    def switch_over(self) -> None:
        """Ask Patroni to let a standby take over, and wait until that one says so."""
        before = self.leader
        asked = requests.post(
            f"http://127.0.0.1:{before.api_port}/switchover", json={"leader": before.name}, timeout=60
        )
        if not asked.ok:
            raise RuntimeError(f"Patroni refuses to switch over: {asked.text}")

    def end(self) -> None:
        """End everything."""
        for member in self.members:
            member.kill()


@contextmanager
def cluster(template: OwnPostgreSQL) -> Iterator[Cluster]:
    """Run three members with a copy of a stopped server's database until the block ends."""
    with ExitStack() as stack:
        folder = stack.enter_context(folder_of_account())
        ports = iter(free_ports(3 * _MEMBERS))
        made = Cluster([Member(f"member{n}", folder, next(ports), next(ports), next(ports)) for n in range(_MEMBERS)])
        stack.callback(made.end)
        for member in made.members:
            made.start(member)
        made.wait_until_synchronous(_MEMBERS - 1)
        _copy(template, made)
        yield made


def _copy(template: OwnPostgreSQL, made: Cluster) -> None:
    template.start()
    try:
        dumped = subprocess.run([str(BINARIES / "pg_dump"), template.url], check=True, capture_output=True)
    finally:
        template.stop()
    target = f"postgres://postgres@127.0.0.1:{made.leader.port}/postgres"
    restore = [str(BINARIES / "psql"), "--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", target]
    subprocess.run(restore, input=dumped.stdout, check=True, stdout=subprocess.DEVNULL)
