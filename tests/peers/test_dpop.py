"""Tokens that are bound to us (DPoP, RFC 9449), at npm oidc-provider: pushed requests, audiences, nonces; and an API.

The API takes a JWT of the peer for its own audience, with a proof by the key in `cnf.jkt`, a nonce of its own and the
token's hash. It refuses bearer tokens.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import msgspec
import pytest
import requests
from pytest_django import Settings

from brands.doctor import Verdict, examine
from brands.models import AuthorizationServer, Brand
from conversations.flow import call_counts
from conversations.models import AccessToken, AuthorizationRequest, Revocation
from conversations.outbox import worker
from oauth_client.dpop import known_nonces
from oauth_client.subject import get_userinfo
from oauth_client.transport import GuardedAdapter
from tests.brand_api import CALLING, make_api
from tests.cast import Bot, Browser, code_on, make_bot
from tests.dpop import NONCE, DPoPApi, Proofs
from tests.hostile_token_endpoint import HostileTokenEndpoint
from tests.peers.fixtures import RESOURCE
from tests.peers.oidc_provider import OidcProvider
from tests.peers.test_journeys import server_at
from tests.stored import everything_stored
from tests.test_planted_secrets import everything_logged

__all__ = ["everything_logged"]

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("oidc_provider")]


@dataclass
class Scene:
    """acme-bot, which calls and cannot read tokens; Ada; Acme's server at the peer; and Acme's API."""

    peer: OidcProvider
    server: AuthorizationServer
    bot: Bot
    ada: Browser
    api: DPoPApi
    pages: list[str] = field(default_factory=list)

    def sign_in(self, login: str = "ada") -> dict[str, Any]:
        """Let somebody sign in at the link of a new challenge. Returns the challenge."""
        challenge = self.bot.challenge()
        url = self.ada.begin(challenge["url"])
        callback = self.peer.consumer(login).sign_in(url, redirect_uri=self.server.redirect_uri)
        page = self.ada.get(self.ada.get(callback)["Location"])
        self.pages.append(page.content.decode())
        assert self.bot.complete(code_on(page))[0] == 200, self.bot.read_challenge(challenge)
        return challenge

    def call(self, operation: str = "orders.list", **body: Any) -> tuple[int, dict[str, Any]]:
        return self.bot.in_chat("POST", f"/calls/{operation}", body)

    def tokens(self) -> list[str]:
        return [answer["access_token"] for answer in self.peer.token_responses()]


@pytest.fixture
def scene(
    acme: Brand,
    ada: Browser,
    oidc_provider_with_dpop: OidcProvider,
    brand_api: HostileTokenEndpoint,
    settings: Settings,
) -> Iterator[Scene]:
    peer = oidc_provider_with_dpop
    settings.OUTBOUND_CA_FILE = str(peer.ca_file)
    server = server_at(
        peer,
        acme,
        resource=[RESOURCE],
        pushed_authorization_request_endpoint=peer.pushed_authorization_request_endpoint,
        authorization_response_iss_parameter_supported=True,
        dpop_bound_access_tokens=True,
    )
    make_api(server, f"https://localhost:{brand_api.port}/shop/v1/")
    keys = requests.get(peer.jwks_uri, verify=peer.ca_file, timeout=60).json()

    def key_of(token: str) -> str | None:
        try:
            key = jwt.PyJWKSet.from_dict(keys)["peer-1"]
            claims = jwt.decode(token, key, ["RS256"], audience=RESOURCE, issuer=peer.issuer)
        except jwt.InvalidTokenError:
            return None
        assert claims["scope"] == "orders.read"
        return str(claims["cnf"]["jkt"])

    known_nonces.forget_all()
    yield Scene(peer, server, make_bot(acme, *CALLING), ada, DPoPApi(brand_api, key_of, Proofs(NONCE)))
    known_nonces.forget_all()


def test_a_journey_with_bound_tokens(scene: Scene, everything_logged: list[str]) -> None:
    """L1, L2, L4, L6, H1: challenge, sign-in, calls, a new nonce, the end; and the token only at the API."""
    challenge = scene.sign_in()
    key = AccessToken.objects.get().reveal_proof_key()
    assert key
    said = [repr(challenge), repr(scene.bot.in_chat("GET"))]
    for _ in range(2):
        status, answer = scene.call(arguments={"limit": 10})
        assert (status, answer["response"]["body"]) == (200, {"orders": ["A-1001"]})
        said.append(repr(answer))
    assert len(scene.api.server.requests) == 3, "the API's nonce was demanded once, and then remembered"
    scene.api.proofs.nonce = "another-nonce"
    assert scene.call("orders.note", arguments={"order_id": "1"}, body={"note": "a"})[0] == 200
    assert len(scene.api.server.requests) == 5
    assert set(scene.api.proofs.thumbprints) == {key.thumbprint}
    assert AuthorizationRequest.objects.get().dpop_key_ciphertext is None
    for method, what in (("GET", "/token"), ("POST", "/authorize")):
        reader = make_bot(scene.server.brand)
        status, problem = reader.in_chat(method, what, {} if method == "POST" else None)
        assert (status, problem["code"]) == (409, "token_is_sender_constrained")
        said.append(repr(problem))
    assert scene.bot.in_chat("DELETE", "/token?reason=signed_out")[0] == 200
    worker.run_once()
    call_counts.flush()
    token = scene.tokens()[-1]
    everything = "".join([*everything_logged, *said, *scene.pages, everything_stored()])
    assert len(everything_logged) >= 5
    row = AccessToken.objects.get()
    assert (row.ciphertext, row.dpop_key_ciphertext, row.end_reason) == (None, None, "signed_out")
    planted = [token, key.private_jwk.reveal(), *scene.api.proofs.texts]
    assert [value for value in planted if value in everything] == []


def test_each_sign_in_has_a_key_of_its_own_and_the_api_sees_which(scene: Scene) -> None:
    """L6: after a re-challenge the first key opens nothing here."""
    scene.sign_in()
    assert scene.call()[0] == 200
    scene.sign_in()
    assert scene.call()[0] == 200
    assert len(set(scene.api.proofs.thumbprints)) == 2


def test_a_bound_token_opens_nothing_as_a_bearer_token(scene: Scene) -> None:
    """What it is all for: whoever gets hold of the token has not got the key."""
    scene.sign_in()
    url = f"https://localhost:{scene.api.server.port}/shop/v1/orders"
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {scene.tokens()[-1]}"}
        assert requests.get(url, headers=headers, verify=scene.peer.ca_file, timeout=60).status_code == 401


def test_a_bearer_token_is_refused_where_bound_ones_are_expected(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: somebody between us and the server takes key and proof out of our requests. The peer notices nothing."""
    original = GuardedAdapter.send

    def without_proof(adapter: GuardedAdapter, request: Any, *arguments: Any, **options: Any) -> Any:
        request.headers.pop("DPoP", None)
        if request.body:
            request.prepare_body(re.sub(rb"&dpop_jkt=[^&]*", b"", request.body), None)
        return original(adapter, request, *arguments, **options)

    challenge = scene.bot.challenge()
    with monkeypatch.context() as between:
        between.setattr(GuardedAdapter, "send", without_proof)
        url = scene.ada.begin(challenge["url"])
        between.undo()
        callback = scene.peer.consumer().sign_in(url, redirect_uri=scene.server.redirect_uri)
        between.setattr(GuardedAdapter, "send", without_proof)
        scene.ada.get(callback)
    assert scene.peer.token_responses()[-1]["token_type"] == "Bearer"
    assert scene.bot.read_challenge(challenge)["last_error"] == "invalid_token_response"
    assert not AccessToken.objects.exists()


def test_a_bound_token_is_revoked_without_a_proof(scene: Scene) -> None:
    """RFC 7009: our client alone. Without an audience the peer's tokens are no JWTs, and it can end them."""
    AuthorizationServer.objects.update(resource=[], revocation_endpoint=scene.peer.revocation_endpoint)
    scene.sign_in()
    row, configuration = AccessToken.objects.get(), AuthorizationServer.objects.get().configuration("openid")
    configuration = msgspec.structs.replace(configuration, userinfo_endpoint=scene.peer.userinfo_endpoint)
    token, key = row.reveal_access_token(), row.reveal_proof_key()
    assert get_userinfo(configuration, token, key).status_code == 200
    scene.bot.in_chat("DELETE", "/token")
    worker.run_once()
    assert not Revocation.objects.exists()
    assert get_userinfo(configuration, token, key).status_code == 401


def test_the_userinfo_endpoint_takes_a_bound_token_with_a_proof_alone(scene: Scene) -> None:
    """A17, L1: without the switch the peer answers 401, and the sign-in would fail."""
    AuthorizationServer.objects.update(resource=[], userinfo_endpoint=scene.peer.userinfo_endpoint)
    scene.sign_in()
    row = AccessToken.objects.get()
    configuration = AuthorizationServer.objects.get().configuration("openid")
    known, unknown = (
        get_userinfo(configuration, row.reveal_access_token(), key) for key in (row.reveal_proof_key(), None)
    )
    assert (known.status_code, known.json()["sub"], unknown.status_code) == (200, "ada", 401)


def test_the_doctor_invents_no_problem_of_a_server_with_dpop(scene: Scene) -> None:
    found = {finding.code: finding.verdict for finding in examine(scene.server)}
    assert [code for code, verdict in found.items() if verdict == Verdict.PROBLEM] == []
    assert found["client_accepted"] == Verdict.GOOD
    assert "metadata_agrees" in found


def test_the_doctor_says_that_the_server_supports_what_is_switched_off(scene: Scene) -> None:
    scene.server.dpop_bound_access_tokens = False
    found = {finding.code: finding.verdict for finding in examine(scene.server)}
    assert found["dpop_not_used"] == Verdict.GOOD
