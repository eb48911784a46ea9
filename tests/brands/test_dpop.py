"""Tokens that are bound to our key (DPoP, RFC 9449): at the PAR, token and userinfo endpoints."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from msgspec.structs import replace

from infrastructure.crypto import Secret, s256_code_challenge
from oauth_client import (
    Account,
    AuthorizationServerError,
    ClientCredentials,
    TokenResponse,
    authorization_url,
    exchange_code,
    identify,
    pushed_authorization_url,
    revoke_token,
    transport,
)
from oauth_client.dpop import KnownNonces, ProofKey, at_resource_server, known_nonces, new_proof_key
from tests.dpop import NONCE, DPoPAuthorizationServer, Proofs, thumbprint
from tests.fake_authorization_server import PLANTED_SECRET, _response, mounted

CREDENTIALS = ClientCredentials(Secret(PLANTED_SECRET))
VERIFIER = "v" * 43
PARAMETERS = {"state": "the-state", "nonce": "the-nonce", "code_challenge": s256_code_challenge(VERIFIER)}


@pytest.fixture
def acme() -> Iterator[DPoPAuthorizationServer]:
    with mounted(DPoPAuthorizationServer(pushed_only=False)) as server:
        assert isinstance(server, DPoPAuthorizationServer)
        yield server


@pytest.fixture
def key(acme: DPoPAuthorizationServer) -> ProofKey:
    made = new_proof_key(acme.configuration())
    assert made
    return made


def exchanged(acme: DPoPAuthorizationServer, key: ProofKey, **changes: Any) -> TokenResponse:
    """Sign in and exchange the code."""
    configuration = acme.configuration(**changes)
    answer = dict(parse_qsl(acme.authorize(authorization_url(configuration, key, **PARAMETERS))))
    return exchange_code(
        configuration,
        code=Secret(answer["code"]),
        code_verifier=Secret(VERIFIER),
        credentials=CREDENTIALS,
        proof_key=key,
    )


def refused(acme: DPoPAuthorizationServer, key: ProofKey, **changes: Any) -> tuple[str, str]:
    with pytest.raises(AuthorizationServerError) as refusal:
        exchanged(acme, key, **changes)
    return refusal.value.error.value, refusal.value.detail


def test_a_code_is_exchanged_for_a_token_that_is_bound_to_the_key(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """L1: the request names the key that the proof is made with."""
    tokens = exchanged(acme, key)
    assert tokens.token_type == "DPoP"
    assert acme.authorization_requests[0]["dpop_jkt"] == key.thumbprint == acme.proofs.thumbprints[0]
    assert acme.bound == {tokens.access_token.reveal(): key.thumbprint}


def test_a_proof_has_the_public_key_and_not_the_private_one(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """L1, K5."""
    exchanged(acme, key)
    private = json.loads(key.private_jwk.reveal())
    assert private["d"] not in acme.proofs.texts[0]
    assert private["d"] not in repr(key)
    assert thumbprint(private) == key.thumbprint


def test_without_the_switch_nothing_of_it_is_sent(acme: DPoPAuthorizationServer) -> None:
    """L1: no key is made, and a server sees the request that it always saw."""
    configuration = acme.configuration(dpop_bound_access_tokens=False)
    assert new_proof_key(configuration) is None
    assert "dpop_jkt" not in authorization_url(configuration, **PARAMETERS)


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "mac", "", None, 7, ["DPoP"], "DPoP ", "N_A"])
def test_any_other_token_than_a_bound_one_is_refused(
    token_type: Any, acme: DPoPAuthorizationServer, key: ProofKey
) -> None:
    """L3, E7: whoever takes the proof out of our request gets a bearer token, which can be used without the key."""
    acme.binds = False
    acme.further_members = {"token_type": token_type}
    code, detail = refused(acme, key)
    assert (code, detail) == ("invalid_token_response", "token_type is not DPoP, although the request had a proof")


@pytest.mark.parametrize("changes", [{"accept_missing_token_type": True}, {"accepted_token_type": "Bearer"}], ids=str)
def test_no_setting_lets_another_type_pass(changes: Any, acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """L3: SQL could have written it."""
    acme.next_token_answer = (200, {"Content-Type": "application/json"}, b'{"access_token": "a", "expires_in": 60}')
    assert refused(acme, key, **changes)[0] == "invalid_token_response"


@pytest.mark.parametrize("spelled", ["DPoP", "dpop", "DPOP"])
def test_the_type_counts_in_any_case(spelled: str, acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """RFC 6749 section 7.1; stored in one spelling."""
    acme.binds = False
    acme.further_members = {"token_type": spelled}
    assert exchanged(acme, key).token_type == "DPoP"


def test_a_demanded_nonce_is_used_in_one_more_request(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """E20, L4: its only exception. Code and verifier are sent again, with another proof."""
    acme.proofs.nonce = NONCE
    assert exchanged(acme, key).token_type == "DPoP"
    assert acme.arrived == ["/token", "/token"]
    assert [claims.get("nonce") for claims in acme.proofs.claims] == [None, NONCE]
    assert exchanged(acme, key).token_type == "DPoP"
    assert acme.arrived == ["/token"] * 3, "the nonce was not remembered"


def test_a_new_nonce_is_taken_from_a_success(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """L4, RFC 9449 section 8.2."""
    acme.told_nonce = NONCE
    exchanged(acme, key)
    acme.proofs.nonce = NONCE
    exchanged(acme, key)
    assert acme.arrived == ["/token", "/token"]


def test_a_server_that_refuses_its_own_nonce_is_asked_twice_and_no_more(
    acme: DPoPAuthorizationServer, key: ProofKey
) -> None:
    """E20, L4: a hostile server must not make us send the code all day."""
    acme.proofs.nonce, acme.told_nonce = NONCE, "another"
    assert refused(acme, key) == ("use_dpop_nonce", "HTTP status 400, error use_dpop_nonce")
    assert acme.arrived == ["/token", "/token"]
    assert refused(acme, key)[0] == "use_dpop_nonce"
    assert acme.arrived == ["/token"] * 3, "the nonce that was refused was tried again"


@pytest.mark.parametrize(
    "told",
    ["", " ", "two words", 'a"b', "a\\b", "ä", "a" * 513, "a, b", "a\tb", "\x7f"],
    ids=lambda told: repr(told[:9]),
)
def test_what_is_no_nonce_is_not_sent_back(told: str, acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """L4, RFC 9449 section 8.1: bounded in size and characters."""
    acme.proofs.nonce, acme.told_nonce = NONCE, told
    assert refused(acme, key)[0] == "use_dpop_nonce"
    assert acme.arrived == ["/token"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error": "invalid_grant"}'),
        (400, b'{"error": "invalid_dpop_proof"}'),
        (401, b'{"error": "use_dpop_nonce"}'),
        (500, b'{"error": "use_dpop_nonce"}'),
        (200, b'{"error": "use_dpop_nonce"}'),
        (400, b"error=use_dpop_nonce"),
        (400, b'["use_dpop_nonce"]'),
        (400, b'{"error": ["use_dpop_nonce"]}'),
        (400, b"use_dpop_nonce"),
        (400, b"\xff"),
        (400, b"[" * 50_000),
        (400, b""),
    ],
)
def test_no_other_answer_is_a_reason_to_repeat(
    status: int, body: bytes, acme: DPoPAuthorizationServer, key: ProofKey
) -> None:
    """E20: the server may have used the code up."""
    acme.next_token_answer = (status, {"Content-Type": "application/json", "DPoP-Nonce": NONCE}, body)
    refused(acme, key)
    assert acme.arrived == ["/token"]


def test_a_network_error_is_not_repeated(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """E20."""
    acme.hangs = True
    assert refused(acme, key)[0] == "token_endpoint_timeout"
    assert acme.arrived == ["/token"]


def test_the_second_request_has_what_is_left_of_the_time(
    acme: DPoPAuthorizationServer, key: ProofKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N6: both together end after ten seconds."""
    deadlines = []
    monkeypatch.setattr(acme, "on_token_request", lambda _: deadlines.append(transport._block_deadline.get()))
    acme.next_token_answer = (400, {"DPoP-Nonce": NONCE}, b'{"error": "use_dpop_nonce"}')
    exchanged(acme, key)
    assert len(deadlines) == 2
    assert len(set(deadlines)) == 1


def test_a_clock_that_differs_is_named(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    acme.proofs.clock_ahead = 3600
    code, _ = refused(acme, key)
    assert code == "invalid_dpop_proof"
    assert acme.arrived == ["/token"]


@pytest.mark.parametrize("nonce", ["", NONCE])
def test_a_pushed_request_has_a_proof_and_names_the_key(
    nonce: str, acme: DPoPAuthorizationServer, key: ProofKey
) -> None:
    """L1, B21, RFC 9449 section 10.1; the nonce counts for all endpoints of the server (E20, L4)."""
    acme.pushed_only, acme.proofs.nonce = True, nonce
    configuration = acme.configuration()
    url = pushed_authorization_url(configuration, CREDENTIALS, key, **PARAMETERS)
    assert acme.pushes[-1].parameters["dpop_jkt"] == key.thumbprint == acme.proofs.thumbprints[-1]
    assert acme.arrived == ["/par"] * (2 if nonce else 1)
    code = dict(parse_qsl(acme.authorize(url)))["code"]
    exchange_code(
        configuration,
        code=Secret(code),
        code_verifier=Secret(VERIFIER),
        credentials=CREDENTIALS,
        proof_key=key,
    )
    assert acme.arrived[-2:] == ["/par", "/token"]


def test_a_client_assertion_is_made_anew_for_the_second_request(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """C7, L4: a server that saw it refuses it the second time."""
    signing_key = Secret(json.dumps(json.loads(key.private_jwk.reveal())))
    acme.token_endpoint_auth_method, acme.proofs.nonce = "private_key_jwt", NONCE
    acme.client_keys = [json.loads(signing_key.reveal())]
    acme.pushed_only = True
    pushed_authorization_url(acme.configuration(), ClientCredentials(signing_key=signing_key), key, **PARAMETERS)
    assert acme.arrived == ["/par", "/par"]


def test_the_userinfo_endpoint_gets_a_proof_for_the_token(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """A17, L1; its nonce is one of a resource server, and a new one."""
    configuration = acme.configuration(userinfo_endpoint=f"{acme.issuer}/userinfo?part=1")
    tokens = exchanged(acme, key)
    acme.proofs.nonce = NONCE
    account = identify(configuration, tokens, CREDENTIALS, lambda _: False, key)
    assert account == Account(Secret('["login.acme.example", "sub", "ada"]'))
    assert acme.arrived == ["/token", "/userinfo", "/userinfo"]
    assert acme.subject_requests[0].headers["Authorization"] == f"DPoP {tokens.access_token.reveal()}"


def test_a_userinfo_endpoint_that_refuses_the_proof_says_so(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """A17, L5."""
    configuration = acme.configuration(userinfo_endpoint=f"{acme.issuer}/userinfo")
    tokens = exchanged(acme, key)
    acme.proofs.clock_ahead = 3600
    with pytest.raises(AuthorizationServerError) as refusal:
        identify(configuration, tokens, CREDENTIALS, lambda _: False, key)
    assert (refusal.value.error, refusal.value.detail) == (
        "subject_request_refused",
        "HTTP status 401, error invalid_dpop_proof",
    )


def test_introspection_and_revocation_need_our_client_alone(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """RFC 7009, RFC 7662: nobody presents the token there."""
    configuration = acme.configuration(introspection_endpoint=f"{acme.issuer}/introspect")
    tokens = exchanged(acme, key)
    assert identify(configuration, tokens, CREDENTIALS, lambda _: False, key).identifier is not None
    revoke_token(configuration, tokens.access_token, CREDENTIALS)
    seen = [*acme.subject_requests, *acme.revocation_requests]
    assert len(seen) == 2
    assert [request for request in seen if "Dpop" in request.headers] == []


@pytest.mark.parametrize(
    ("url", "htu"),
    [
        ("https://API.Acme.example/orders?limit=1#top", "https://api.acme.example/orders"),
        ("https://api.acme.example", "https://api.acme.example/"),
        ("https://api.acme.example:443/", "https://api.acme.example/"),
        ("https://api.acme.example:8443/A%2fb", "https://api.acme.example:8443/A%2fb"),
        ("http://127.0.0.1:80/x", "http://127.0.0.1/x"),
    ],
)
def test_the_address_in_a_proof_is_normalised(url: str, htu: str, key: ProofKey) -> None:
    """RFC 9449 sections 4.2 and 4.3: without query and fragment, as a server compares it."""
    proof = key.proof(at_resource_server("GET", url, Secret("token")), "")
    Proofs().check(proof, "GET", htu, "token")


def test_servers_have_nonces_of_their_own_and_the_oldest_is_forgotten() -> None:
    """L4: a hostile server fills no memory, and changes nobody else's nonce."""
    nonces, response = KnownNonces(), _response(_prepared(), (200, {"DPoP-Nonce": NONCE}, b""))
    for number in range(1001):
        nonces.learn(f"server {number}", response)
    assert (nonces.of("server 0"), nonces.of("server 1"), nonces.of("server 1000")) == ("", NONCE, NONCE)
    assert nonces.of("another") == ""


def _prepared() -> Any:
    return requests.Request("GET", "https://login.acme.example/").prepare()


def test_another_brand_cannot_change_the_nonce_that_is_sent_to_a_server(key: ProofKey) -> None:
    """L4. The bug: Rival names Acme's token endpoint beside its own PAR endpoint, whose nonce went into Acme's proofs.

    A server that uses no nonces refuses a proof that has one, and Acme's code is lost.
    """
    acme = DPoPAuthorizationServer(pushed_only=False)
    rival = DPoPAuthorizationServer("login.rival.example", "rival-client", PLANTED_SECRET, told_nonce="planted")
    configuration = replace(rival.configuration(), token_endpoint=f"{acme.issuer}/token")
    with mounted(acme, rival):
        pushed_authorization_url(configuration, CREDENTIALS, key, **PARAMETERS)
        exchanged(acme, key)
    assert rival.arrived == ["/par"]
    assert [claims.get("nonce") for claims in acme.proofs.claims] == [None]


def test_two_servers_on_one_host_share_no_nonce(acme: DPoPAuthorizationServer, key: ProofKey) -> None:
    """L4: the tenants of one host may be two brands."""
    acme.proofs.nonce = NONCE
    exchanged(acme, key)
    assert known_nonces.of(f"{acme.issuer}/token {acme.client_id}") == NONCE
    assert known_nonces.of(f"{acme.issuer}/rival/token {acme.client_id}") == ""
    assert known_nonces.of(f"{acme.issuer}/token rival-client") == ""
    assert known_nonces.of(f"resource {urlsplit(acme.issuer).scheme}://{urlsplit(acme.issuer).netloc}") == ""
