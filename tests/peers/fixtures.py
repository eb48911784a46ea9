"""Third-party servers, one of each for a whole test process. Each test registers its own client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import oidc_provider as peer
from tests.peers import sample_brand as allauth_peer
from tests.tls import Authority

# The audience of Acme's API.
RESOURCE = "https://api.acme.example/orders"


@pytest.fixture(scope="session")
def oidc_provider(requires_node: Path, tls_authority: Authority) -> Iterator[peer.OidcProvider]:
    """Run npm `oidc-provider` over TLS on loopback."""
    with peer.running(requires_node, tls_authority) as running:
        yield running


@pytest.fixture(scope="session")
def oidc_provider_with_dpop(requires_node: Path, tls_authority: Authority) -> Iterator[peer.OidcProvider]:
    """Run npm `oidc-provider` with PAR, resource indicators and DPoP, whose proofs need a nonce."""
    with peer.running(requires_node, tls_authority, resource=RESOURCE, demands_dpop=True) as running:
        yield running


@pytest.fixture(scope="session")
def sample_brand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[allauth_peer.SampleBrand]:
    """Run the demo's sample brand over HTTP on loopback."""
    with allauth_peer.running(tmp_path_factory.mktemp("sample-brand")) as running:
        yield running
