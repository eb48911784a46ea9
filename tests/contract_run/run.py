"""Start the product on PostgreSQL with seeded data, and run schemathesis against it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from brands.models import BotKey
from demo.processes import AS_IN_PRODUCTION, Servers
from tests.demo.machines import free_ports
from tests.installation import ROOT, Installation

CONFIGURATION: Final = Path(__file__).with_name("schemathesis.toml")
ENCRYPTION_KEYS: Final = "run:9l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A="
_COUNTS: Final = re.compile(r"([0-9,]+) generated")
BRAND: Final = """
[brand]
slug = "{slug}"
name = "{name}"

[[authorization_servers]]
key = "orders"
authorization_endpoint = "https://login.{slug}.example/authorize"
token_endpoint = "https://login.{slug}.example/token"
client_id = "{slug}-client"
client_secret = "of-the-run"
scope = "orders.read profile"
same_person_checks = ["completion_code", "chat_page"]
chat_page_url = "https://chat.{slug}.example/"
"""


@dataclass(frozen=True)
class Product:
    """A running product, and the settings for schemathesis."""

    address: str
    configuration: Path


@dataclass(frozen=True)
class Outcome:
    """The result of a run: output, number of generated cases, and whether every check passed."""

    output: str
    cases: int
    exit_status: int


@contextmanager
def running_product(folder: Path) -> Iterator[Product]:
    """Run gunicorn as in production over a seeded database."""
    (port,) = free_ports(1)
    address = f"http://localhost:{port}"
    # As behind a proxy, which sends the client's address: the limit of one address must not end the run.
    settings = {"PUBLIC_BASE_URL": address, "ALLOW_LOCAL_ENDPOINTS": "1", "TRUSTED_PROXY_COUNT": "1"}
    installation = Installation(folder, ENCRYPTION_KEYS, settings)
    installation.manage("migrate", "--verbosity", "0")
    bots = [_make_bot(installation, name) for name in ("Acme", "Rival")]
    (folder / "bots.json").write_text(json.dumps({"auth": bots}))
    seeded = installation.run("-m", "tests.contract_run.seed")
    assert seeded.returncode == 0, seeded.stderr
    for name, ids in json.loads(seeded.stdout.strip().splitlines()[-1]).items():
        (folder / name).write_text("".join(f'"{value}"\n' for value in ids))
    (folder / CONFIGURATION.name).write_text(CONFIGURATION.read_text())  # in addition to the lists that it names
    with Servers(folder) as servers:
        servers.start(
            "product", "delegation_site.wsgi", port, installation.environment, "/health/ready", options=AS_IN_PRODUCTION
        )
        yield Product(address, folder / CONFIGURATION.name)


def _make_bot(installation: Installation, name: str) -> dict[str, Any]:
    """Create a brand and a bot key with all scopes. Returns how the bot authenticates (Web Fuzzing Commons)."""
    slug = name.lower()
    installation.manage("apply_config", "-", text=BRAND.format(slug=slug, name=name))
    scopes = [part for scope in BotKey.Scope.values for part in ("--scope", scope)]
    bot_key = installation.manage("create_bot_key", slug, "--label", f"{slug}-bot", *scopes)
    return {"name": f"{slug}-bot", "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {bot_key}"}]}


def make_up_calls(product: Product, *arguments: str, quietly: bool = False) -> Outcome:
    """Run schemathesis."""
    contract = f"{product.address}/api/v1/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(product.configuration), "run", contract]
    with subprocess.Popen(
        [*command, *arguments],
        cwd=product.configuration.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        assert run.stdout
        lines = []
        for line in run.stdout:
            lines.append(line)
            if not quietly:
                sys.stdout.write(line)
                sys.stdout.flush()
    output = "".join(lines)
    counted = _COUNTS.findall(output)
    return Outcome(output, int(counted[-1].replace(",", "")) if counted else 0, run.returncode)
