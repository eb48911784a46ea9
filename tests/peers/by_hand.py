"""The code flow with only `requests`, for the tests of the peers themselves."""

import base64
import hashlib
from typing import Final, Protocol
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import requests

from tests.peers.oidc_provider import RegisteredClient

CALLBACK: Final = "https://delegation.test/callback/by-hand"
VERIFIER: Final = "a-verifier-that-is-long-enough-for-rfc-7636-section-4"
CODE_CHALLENGE: Final = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


class Peer(Protocol):
    """What all peers have."""

    @property
    def authorization_endpoint(self) -> str: ...
    @property
    def token_endpoint(self) -> str: ...
    @property
    def orders_url(self) -> str: ...


def authorization_url(peer: Peer, client: RegisteredClient, scope: str, **changes: str) -> str:
    """Build the URL that a consumer's browser opens, with `changes` to its parameters."""
    parameters = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uri,
        "scope": scope,
        "state": "some-state",
        "nonce": "some-nonce",
        "code_challenge": CODE_CHALLENGE,
        "code_challenge_method": "S256",
    }
    return f"{peer.authorization_endpoint}?{urlencode(parameters | changes)}"


def answer_of(callback_url: str) -> dict[str, str]:
    """The parameters of the authorization response."""
    return {name: values[0] for name, values in parse_qs(urlsplit(callback_url).query).items()}


def exchange(
    peer: Peer, client: RegisteredClient, code: str, *, form_encoded: bool, verifier: str = VERIFIER, ca_file: str = ""
) -> requests.Response:
    """Send the code to the token endpoint with HTTP Basic, form-encoded (RFC 6749 section 2.3.1) or raw."""
    pair = (client.client_id, client.client_secret)
    basic = ":".join(quote_plus(part) if form_encoded else part for part in pair)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": client.redirect_uri}
    return requests.post(
        peer.token_endpoint,
        data=form | {"code_verifier": verifier},
        headers={"Authorization": f"Basic {base64.b64encode(basic.encode()).decode()}"},
        verify=ca_file or True,
        timeout=60,
    )


def ask_for_orders(peer: Peer, access_token: str, *, ca_file: str = "") -> requests.Response:
    """Call the brand's own API, as a bot does."""
    headers = {"Authorization": f"Bearer {access_token}"}
    return requests.get(peer.orders_url, headers=headers, verify=ca_file or True, timeout=60)
