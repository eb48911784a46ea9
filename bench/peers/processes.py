"""Start a brand at which codes are exchanged, and oidc-provider to compare with."""

import base64
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cast import opaque_token
from bench.processes import OTHER_CORE, SERVER_CORE, free_port, running, wait_for_port
from bench.product import Server
from demo.processes import throw_away_certificate

FOLDER: Final = Path(__file__).parent
BASIC: Final = base64.b64encode(b"bench:of-the-benchmark-alone").decode()


@dataclass(frozen=True)
class Brand:
    """The brand's authorization server, and the CA file for its certificate."""

    issuer: str
    ca_file: Path


@contextmanager
def brand(folder: Path) -> Iterator[Brand]:
    """Run the brand's token endpoint until the block ends."""
    files = throw_away_certificate(folder)
    port, log = free_port(), folder / "brand.log"
    command = [sys.executable, "-m", "bench.peers.brand", str(port), str(files.certificate_file), str(files.key_file)]
    with running(command, core=OTHER_CORE, environment={}, log=log) as process:
        wait_for_port(port, process, log)
        yield Brand(f"https://localhost:{port}", files.ca_file)


def missing() -> str:
    """Return why oidc-provider cannot run here; empty if it can."""
    if not shutil.which("node"):
        return "Node is not installed"
    if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
        return "the npm packages of bench/peers are not installed"
    return ""


@contextmanager
def oidc_provider(folder: Path, socket_folder: str, database: str, rows: int) -> Iterator[Server]:
    """Run oidc-provider with this many tokens until the block ends."""
    tokens = folder / "oidc-provider.tokens"
    tokens.write_text("\n".join(opaque_token(number) for number in range(1, rows + 1)))
    port, log = free_port(), folder / "oidc-provider.log"
    script = str(FOLDER / "oidc_provider.mjs")
    command = [shutil.which("node") or "node", script, str(port), socket_folder, database, str(tokens)]
    environment = {"NODE_ENV": "production"}
    with running(command, core=SERVER_CORE, environment=environment, log=log, cwd=FOLDER) as process:
        wait_for_port(port, process, log)
        yield Server(port, process.pid)
