"""The product as it stands in production, once for each drill: proxy, web groups, workers, Redis, PostgreSQL."""

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import requests

from bench.processes import ROOT, base_environment, wait_for_port
from demo.bot_api import BotApi
from demo.processes import Certificate, throw_away_certificate
from drills.brand import CLIENT_ID
from drills.databases import Database, DurablePostgreSQL, Pooler, postgresql
from drills.journeys import Load
from drills.members import Cluster, cluster
from drills.promises import LATE_SECONDS, FaultDidNotTakeHold, Shape
from drills.services import PIPE_BYTES, START_SECONDS, Service, WebGroup
from tests import nginx
from tests.demo.machines import free_ports
from tests.own_postgresql import ACCOUNT, OwnPostgreSQL, own_postgresql

WORKERS: Final = 2
# What the control run bears on two cores that others use, too (load 15 to 20). The table's head says the same.
SIGN_INS_PER_SECOND: Final = 1.0
TOKEN_MILLISECONDS: Final = 100
RECEIVER_MILLISECONDS: Final = 20
WEBHOOK_CONNECTIONS: Final = 4
_HOST: Final = "localhost"
_BRAND: Final = """
[brand]
slug = "acme"
name = "Acme"

[[authorization_servers]]
key = "orders"
issuer = "{brand}"
authorization_endpoint = "{brand}/authorize"
token_endpoint = "{brand}/token"
revocation_endpoint = "{brand}/revoke"
authorization_response_iss_parameter_supported = true
client_id = "{client_id}"
client_secret_env = "ACME_CLIENT_SECRET"
scope = "orders.read"
same_person_checks = ["completion_code"]

[[webhooks]]
url = "{brand}/hooks"
"""


def new_key(name: str) -> str:
    """Make a key for `ENCRYPTION_KEYS`."""
    return f"{name}:{base64.b64encode(secrets.token_bytes(32)).decode()}"


@dataclass(frozen=True)
class Prepared:
    """What all drills of a run share: a stopped database with Acme and its bot in it, ports, keys and certificate."""

    folder: Path
    template: OwnPostgreSQL
    certificate: Certificate
    ports: dict[int, int]
    brand_port: int
    bot_key: str = field(repr=False)
    encryption_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    @staticmethod
    def load_in_words() -> str:
        """Say how much is asked of the product in each drill."""
        return (
            f"Sign-ins a second: {SIGN_INS_PER_SECOND:.0f} at most, with five webhooks each; late after "
            f"{LATE_SECONDS} s; token endpoint {TOKEN_MILLISECONDS} ms, receiver {RECEIVER_MILLISECONDS} ms, "
            f"`WEBHOOK_CONNECTIONS={WEBHOOK_CONNECTIONS}`"
        )

    @property
    def base_url(self) -> str:
        return f"https://{_HOST}:{self.ports[nginx.HTTPS]}"

    @property
    def brand_url(self) -> str:
        return f"https://localhost:{self.brand_port}"

    def environment(self, database_url: str) -> dict[str, str]:
        """Return the product's settings."""
        return {
            "SECRET_KEY": self.secret_key,
            "ENCRYPTION_KEYS": self.encryption_key,
            "DATABASE_URL": database_url,
            "PUBLIC_BASE_URL": self.base_url,
            "ALLOWED_HOSTS": _HOST,
            "TRUSTED_PROXY_COUNT": "1",
            "ALLOW_LOCAL_ENDPOINTS": "1",
            "OUTBOUND_CA_FILE": str(self.certificate.ca_file),
            "HEALTH_CHECK_INTERVAL_HOURS": "0",
            "WORKERS": "2",
            "THREADS": "8",
            "WEBHOOK_CONNECTIONS": str(WEBHOOK_CONNECTIONS),
        }


@contextmanager
def prepared(folder: Path) -> Iterator[Prepared]:
    """Make the database that each drill gets a copy of."""
    names = (nginx.HTTPS, nginx.HTTP, nginx.BOTS, nginx.PEOPLE)
    _ensure_account(folder)
    *ports, brand_port = free_ports(len(names) + 1)
    by_name = dict(zip(names, ports, strict=True))
    by_name[nginx.WAITING_BOTS] = by_name[nginx.BOTS]
    with own_postgresql() as template:
        made = Prepared(
            folder,
            template,
            throw_away_certificate(folder),
            by_name,
            brand_port,
            bot_key="",
            encryption_key=new_key("first"),
            secret_key=secrets.token_urlsafe(50),
        )
        environment = made.environment(template.url) | {"ACME_CLIENT_SECRET": secrets.token_urlsafe(32)}
        (folder / "acme.toml").write_text(_BRAND.format(brand=made.brand_url, client_id=CLIENT_ID))
        manage(environment, "migrate", "--verbosity", "0")
        manage(environment, "apply_config", str(folder / "acme.toml"))
        scopes = [part for scope in ("challenge:create", "challenge:read", "token:read") for part in ("--scope", scope)]
        key = manage(environment, "create_bot_key", "acme", "--label", "Drills", *scopes).strip()
        template.stop()
        os.environ["DEMO_CA_FILE"] = str(made.certificate.ca_file)  # for the bot and the browsers of this process
        yield Prepared(**{**vars(made), "bot_key": key})


def _ensure_account(folder: Path) -> None:
    """PostgreSQL refuses to run as root. Its package makes an account when it starts for the first time."""
    if ACCOUNT and subprocess.run(["id", ACCOUNT], capture_output=True, check=False).returncode:
        first = [sys.executable, "-m", "tests.postgresql_server", str(folder / "first")]
        environment = base_environment() | {"XDG_RUNTIME_DIR": str(folder)}
        subprocess.run(first, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def missing_parts() -> str:
    """Return what no drill can do without and is not installed; empty if all is there."""
    there = {"nginx": nginx.executable(), "redis-server": shutil.which("redis-server")}
    return ", ".join(f"{name} is not installed" for name, path in there.items() if not path)


def manage(environment: dict[str, str], *arguments: str) -> str:
    """Run a management command; return what it prints. Raises `RuntimeError` if it fails."""
    command = [sys.executable, "manage.py", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, env=base_environment() | environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"manage.py {arguments[0]} failed:\n{result.stderr[-3000:]}")
    return result.stdout


@dataclass
class Stage:
    """Everything that runs in one drill, for the fault to take hold of."""

    folder: Path
    made: Prepared
    shape: Shape
    database: Database
    pooler: Pooler | None = None
    load: Load = field(init=False)
    proofs: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.load = Load(BotApi(self.made.base_url, self.made.bot_key), SIGN_INS_PER_SECOND)
        address = self.pooler.url if self.pooler else self.database.url
        self.environment = self.made.environment(address) | {"REDIS_URL": f"unix://{self.redis_socket}"}

    @property
    def redis_socket(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def postgresql(self) -> DurablePostgreSQL:
        """The one server of this drill. Raises `TypeError` if it has several."""
        if not isinstance(self.database, DurablePostgreSQL):
            raise TypeError("this drill has no database of its own")
        return self.database

    @property
    def cluster(self) -> Cluster:
        """The several servers of this drill. Raises `TypeError` if it has one."""
        if not isinstance(self.database, Cluster):
            raise TypeError("this drill has one database")
        return self.database

    @cached_property
    def redis(self) -> Service:
        where = ["--port", "0", "--unixsocket", str(self.redis_socket), "--save", "", "--dir", str(self.folder)]
        return Service("redis", [shutil.which("redis-server") or "redis-server", *where], {}, self.folder)

    @cached_property
    def brand(self) -> Service:
        files = (str(self.made.certificate.certificate_file), str(self.made.certificate.key_file))
        arguments = (str(self.made.brand_port), *files, str(TOKEN_MILLISECONDS), str(RECEIVER_MILLISECONDS))
        return Service("brand", [sys.executable, "-m", "drills.brand", *arguments], {}, self.folder)

    @cached_property
    def proxy(self) -> Service:
        certificate = self.made.certificate
        written = nginx.write_configuration(
            self.folder, self.made.ports, certificate.certificate_file, certificate.key_file
        )
        return Service("nginx", [nginx.executable() or "nginx", "-c", str(written)], {}, self.folder)

    @cached_property
    def bots(self) -> WebGroup:
        return self._group("bots", self.made.ports[nginx.BOTS])

    @cached_property
    def people(self) -> WebGroup:
        return self._group("people", self.made.ports[nginx.PEOPLE])

    @property
    def web(self) -> tuple[WebGroup, WebGroup]:
        return (self.bots, self.people)

    @cached_property
    def workers(self) -> list[Service]:
        command = [sys.executable, "manage.py", "worker"]
        return [Service(f"worker-{number}", command, self.environment, self.folder) for number in range(WORKERS)]

    def _group(self, name: str, port: int) -> WebGroup:
        command = [sys.executable, "-m", "gunicorn", "--config", "delegation_site/gunicorn.py"]
        environment = self.environment | {"BIND": f"127.0.0.1:{port}"}
        holds = self.shape.holds_sockets
        group = WebGroup(name, command, environment, self.folder, port=port, holds_socket=holds)
        if self.shape.has_log_reader:
            with group.log.open("ab") as written:
                group.reader = subprocess.Popen(
                    ["cat"], stdin=subprocess.PIPE, stdout=written, pipesize=PIPE_BYTES, start_new_session=True
                )
        return group

    def start(self) -> None:
        """Start everything, and wait until it is ready."""
        services = [self.redis, self.brand, *self.web, *self.workers, self.proxy]
        for service in services:
            service.start()
        for port, service in ((self.made.brand_port, self.brand), (self.made.ports[nginx.HTTPS], self.proxy)):
            if service.process is not None:
                wait_for_port(port, service.process, service.log)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until both web groups are ready."""
        for group in self.web:
            group.wait_until_ready(_HOST)

    def restart_and_wait(self, worker: Service) -> None:
        """Restart a worker, and wait until it says that it starts. Raises `RuntimeError` if it does not in time."""
        before = self._starts(worker)
        worker.restart()
        if not wait_until(lambda: self._starts(worker) > before, START_SECONDS):
            raise RuntimeError(f"{worker.name} did not start again")

    def _starts(self, worker: Service) -> int:
        return sum(line["message"] == "the worker starts" for line in self.lines_of(worker))

    def end(self) -> None:
        """End everything, whatever state it is in."""
        for service in (self.proxy, *self.workers, *self.web, self.brand, self.redis):
            service.end()
        for group in self.web:
            group.close()

    def prove(self, what: str, *, holds: bool) -> None:
        """Note that the fault took hold, and by what that was seen. Raises `FaultDidNotTakeHold` if it was not."""
        if not holds:
            raise FaultDidNotTakeHold(f"not seen: {what}")
        if what not in self.proofs:
            self.proofs.append(what)

    def use(self, **settings: str) -> None:
        """Change settings of web processes and workers; they count from their next start."""
        for service in (*self.web, *self.workers):
            service.environment = service.environment | settings
        self.environment = self.environment | settings

    def notes_of_brand(self) -> dict[str, Any]:
        """Return what the brand has issued, revoked and received."""
        answer = requests.get(f"{self.made.brand_url}/notes", verify=str(self.made.certificate.ca_file), timeout=30)
        notes: dict[str, Any] = answer.json()
        return notes

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the JSON lines that web processes and workers have printed."""
        for service in (*self.web, *self.workers):
            yield from self.lines_of(service)

    def lines_of(self, service: Service) -> Iterator[dict[str, Any]]:
        """Yield the JSON lines of one of them."""
        for line in service.log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):  # not cut by a kill
                yield json.loads(line)


@contextmanager
def standing(made: Prepared, shape: Shape, name: str) -> Iterator[Stage]:
    """Run everything for one drill until the block ends."""
    folder = made.folder / name
    folder.mkdir(mode=0o755)
    with ExitStack() as stack:
        database: Database
        pooler: Pooler | None = None
        if shape.database == "patroni":
            database = stack.enter_context(cluster(made.template))
        else:
            on_small_disk = shape.database == "small_disk"
            database = own = stack.enter_context(postgresql(made.template, on_small_disk=on_small_disk))
            if shape.pool_mode:
                pooler = Pooler(own, shape.pool_mode, free_ports(1)[0])
                pooler.start()
                stack.callback(pooler.stop)
        stage = Stage(folder, made, shape, database, pooler)
        stack.callback(stage.end)
        stage.start()
        yield stage


def wait_until(is_so: Any, seconds: float, every: float = 0.2) -> bool:
    """Wait until a function returns true; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(every)
    return False
