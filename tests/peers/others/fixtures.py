"""The servers of this folder, one of each for a whole test process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import oidc_provider as peer
from tests.peers.fixtures import RESOURCE
from tests.peers.others import servers
from tests.tls import Authority


@pytest.fixture(scope="session")
def better_auth(requires_node: Path) -> Iterator[servers.Server]:
    """Run npm better-auth."""
    with servers.better_auth(requires_node) as running:
        yield running


@pytest.fixture(scope="session")
def mcp() -> Iterator[servers.Server]:
    """Run MCP's Python SDK."""
    with servers.mcp() as running:
        yield running


@pytest.fixture(scope="session")
def authlib() -> Iterator[servers.Server]:
    """Run Authlib's Flask server."""
    with servers.authlib() as running:
        yield running


@pytest.fixture(scope="session")
def jupyterhub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """Run JupyterHub with its only client."""
    redirect_uri = f"https://delegation.test/callback/{servers.JupyterHub.REDIRECT_PATH}"
    with servers.jupyterhub(tmp_path_factory.mktemp("jupyterhub"), redirect_uri) as running:
        yield running


@pytest.fixture(scope="session")
def oidc_provider_of_resources(requires_node: Path, tls_authority: Authority) -> Iterator[peer.OidcProvider]:
    """Run npm oidc-provider with resource indicators."""
    with peer.running(requires_node, tls_authority, resource=RESOURCE) as running:
        yield running
