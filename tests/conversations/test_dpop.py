"""A conversation with a token that is bound to our key (DPoP): bots call operations with it, and never read it."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from brands.models import AuthorizationServer, Brand
from conversations.flow import call_counts
from conversations.flow.challenges import link_of
from conversations.models import AccessToken, ApiCallCount, AuditEvent, AuthorizationRequest, Challenge, Revocation
from conversations.outbox import worker
from infrastructure.crypto import DecryptionError, Secret
from oauth_client.dpop import ProofKey
from tests.brand_api import Caller
from tests.cast import ACME_SECRET, Bot, Browser, make_bot
from tests.conversations.bound_tokens import acme_server, api, caller, login, reader
from tests.dpop import NONCE, DPoPApi, DPoPAuthorizationServer
from tests.fake_authorization_server import FakeAuthorizationServer, mounted
from tests.test_planted_secrets import everything_logged

# The fixtures, by their names.
__all__ = ["acme_server", "api", "caller", "everything_logged", "login", "reader"]

pytestmark = pytest.mark.django_db


def private_key(row: Any) -> dict[str, str]:
    key = row.reveal_proof_key()
    assert key
    return dict(json.loads(key.private_jwk.reveal()))


def test_a_bot_calls_an_operation_with_a_bound_token(caller: Caller, api: DPoPApi) -> None:
    """L1: the API verifies proof, key and `ath`, and refuses bearer tokens."""
    status, answer = caller.call(arguments={"limit": 10})
    assert (status, answer["response"]["body"]) == (200, {"orders": ["A-1001"]})
    assert caller.sent().startswith(b"GET /shop/v1/orders?limit=10 HTTP/1.1\r\n")
    assert f"\r\nAuthorization: DPoP {caller.token}\r\n".encode() in caller.sent()


def test_each_call_has_a_proof_of_its_own(caller: Caller, api: DPoPApi) -> None:
    """L1: no proof is sent twice. `Proofs` fails for one that was."""
    for _ in range(3):
        assert caller.call()[0] == 200
    assert len({claims["jti"] for claims in api.proofs.claims}) == 3
    assert len(set(api.proofs.thumbprints)) == 1


@pytest.mark.parametrize("query", ["", "?min_ttl=10", "?scope=orders.read", "?authorization_server=orders"])
def test_a_bound_token_is_never_handed_out(query: str, reader: Bot) -> None:
    """L2: also not to a key with every scope. The answer names the calls."""
    status, problem = reader.in_chat("GET", f"/token{query}")
    assert (status, problem["code"]) == (409, "token_is_sender_constrained")
    assert problem["next"] == {
        "operation": "callOperation",
        "method": "POST",
        "path": f"/api/v1/conversations/{reader.chat}/calls/%7Boperation%7D",
    }


def test_authorize_does_not_hand_it_out_either(reader: Bot) -> None:
    """L2."""
    status, problem = reader.in_chat("POST", "/authorize", {})
    assert (status, problem["code"]) == (409, "token_is_sender_constrained")


def test_nobody_signs_in_for_a_token_that_cannot_be_read(acme: Brand, acme_server: AuthorizationServer) -> None:
    """L2: `authorize` would answer with the link, and after the sign-in never with a token."""
    assert make_bot(acme).in_chat("POST", "/authorize", {})[1]["code"] == "token_is_sender_constrained"
    assert not Challenge.objects.exists()


def test_a_read_of_a_bound_token_is_neither_counted_nor_logged_as_one(
    reader: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """L2, G6."""
    caplog.set_level("INFO")
    reader.token()
    assert "token.read" not in [record.getMessage() for record in caplog.records]


def test_a_bearer_token_from_before_the_switch_stays_readable(acme: Brand, ada: Browser, caller: Caller) -> None:
    """The token's own type decides, and not what the server's row says now."""
    AuthorizationServer.objects.update(dpop_bound_access_tokens=False)
    caller.login = FakeAuthorizationServer(
        "login.acme.example", "acme-client", ACME_SECRET, redirect_uri=caller.server.redirect_uri
    )
    caller.sign_in(caller.bot.challenge(replace=True))
    AuthorizationServer.objects.update(dpop_bound_access_tokens=True)
    assert make_bot(acme).token()[1]["access_token"] == caller.token


def test_bots_are_told_the_type_without_the_token(caller: Caller) -> None:
    facts = caller.bot.in_chat("GET")[1]["authorization_servers"][0]["access_token"]
    assert facts["token_type"] == "DPoP"


def test_the_key_moves_from_the_request_to_the_token(caller: Caller, login: DPoPAuthorizationServer) -> None:
    """L6, K1, K7: encrypted anew, bound to the token's row, and erased from the request's."""
    token, request = AccessToken.objects.get(), AuthorizationRequest.objects.get()
    assert request.dpop_key_ciphertext is None
    assert private_key(token)["kid"] == login.bound[caller.token] == login.authorization_requests[0]["dpop_jkt"]


def test_the_key_is_bound_to_its_row(caller: Caller, ada: Browser, login: DPoPAuthorizationServer) -> None:
    """L6, K1: copied by SQL to another column, row or conversation, it cannot be read."""
    first = AccessToken.objects.get()
    caller.bot.chat = "web:rita"
    caller.sign_in(caller.bot.challenge())
    second = AccessToken.objects.exclude(pk=first.pk).get()
    second.dpop_key_ciphertext = first.dpop_key_ciphertext
    with pytest.raises(DecryptionError):
        second.reveal_proof_key()
    first.ciphertext = first.dpop_key_ciphertext
    with pytest.raises(DecryptionError):
        first.reveal_access_token()


def test_each_sign_in_has_a_key_of_its_own(caller: Caller, login: DPoPAuthorizationServer) -> None:
    """L6: two tokens of one brand tell nobody that we hold both."""
    caller.sign_in(caller.bot.challenge())
    assert len(set(login.bound.values())) == 2


@pytest.mark.parametrize("how", ["sign_out", "close", "undo", "expire", "replace"])
def test_the_key_ends_with_the_token(how: str, caller: Caller) -> None:
    """L6, K6."""
    token = AccessToken.objects.get()
    if how == "sign_out":
        caller.bot.in_chat("DELETE", "/token?reason=signed_out")
    elif how == "close":
        caller.bot.in_chat("DELETE")
    elif how == "undo":
        caller.ada.press(f"https://delegation.test{caller_page(caller)}", "/undo")
    elif how == "expire":
        AccessToken.objects.update(expires_at=token.issued_at)
        worker.run_once()
    else:
        caller.sign_in(caller.bot.challenge())
    token.refresh_from_db()
    assert token.ended_at is not None
    assert (token.dpop_key_ciphertext, token.ciphertext) == (None, None)


def caller_page(caller: Caller) -> str:
    return urlsplit(link_of(Challenge.objects.select_related("conversation__brand").get())).path + "/done"


def test_the_key_of_a_sign_in_that_never_ends_is_erased_with_the_challenge(
    acme: Brand, acme_server: AuthorizationServer, ada: Browser, login: DPoPAuthorizationServer
) -> None:
    """L6, K7."""
    bot = make_bot(acme)
    challenge = bot.challenge()
    with mounted(login):
        ada.begin(challenge["url"])
    assert AuthorizationRequest.objects.get().dpop_key_ciphertext is not None
    bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    assert AuthorizationRequest.objects.get().dpop_key_ciphertext is None


def test_a_failed_sign_in_leaves_no_key(
    acme: Brand, acme_server: AuthorizationServer, ada: Browser, login: DPoPAuthorizationServer
) -> None:
    """L3, L6: the server has issued a bearer token all the same."""
    bot, login.binds = make_bot(acme), False
    challenge = bot.challenge()
    with mounted(login):
        ada.sign_in(challenge["url"], login)
    assert bot.read_challenge(challenge)["last_error"] == "invalid_token_response"
    assert AuthorizationRequest.objects.get().dpop_key_ciphertext is None
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda: AuthorizationServer.objects.update(dpop_bound_access_tokens=False), "configuration_changed"),
        (lambda: AuthorizationRequest.objects.update(dpop_key_ciphertext=None), "stored_secret_unreadable"),
        (lambda: AuthorizationRequest.objects.update(dpop_key_ciphertext=b"\x01"), "stored_secret_unreadable"),
    ],
    ids=["switch", "erased", "damaged"],
)
def test_a_code_is_not_sent_without_the_key_that_it_is_bound_to(
    change: Any, code: str, acme: Brand, acme_server: AuthorizationServer, ada: Browser, login: DPoPAuthorizationServer
) -> None:
    """L3, C4, K2: whatever has happened to switch or row since the sign-in began."""
    bot = make_bot(acme)
    challenge = bot.challenge()
    with mounted(login):
        url = ada.begin(challenge["url"])
        change()
        ada.come_back(url, login)
    assert bot.read_challenge(challenge)["last_error"] == code
    assert login.token_requests == []
    assert AuthorizationRequest.objects.get().dpop_key_ciphertext is None


def test_a_bound_token_is_revoked_with_our_client_alone(caller: Caller, login: DPoPAuthorizationServer) -> None:
    """RFC 7009, L6: the worker has no key, because it is erased with the token."""
    caller.bot.in_chat("DELETE", "/token")
    with mounted(login):
        worker.run_once()
    assert [request.parameters["token"] for request in login.revocation_requests] == [caller.token]
    assert not Revocation.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"token_type": "Bearer"},
        {"dpop_key_ciphertext": None},
    ],
    ids=str,
)
def test_the_database_holds_type_and_key_together(change: dict[str, Any], caller: Caller) -> None:
    """L2: a bound token that is called Bearer would be handed out."""
    with pytest.raises(IntegrityError), transaction.atomic():
        AccessToken.objects.update(**change)


def test_without_the_switch_a_sign_in_makes_no_key_and_no_further_query(
    acme: Brand, ada: Browser, login: DPoPAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1: it costs nothing where it is off, and where it is on no query either."""
    counts = []
    for is_on in (False, True):
        AuthorizationServer.objects.update(dpop_bound_access_tokens=is_on)
        url = make_bot(acme, chat=f"web:{is_on}").challenge()["url"]
        ada.get(url)
        with mounted(login), CaptureQueriesContext(connection) as queries:
            Browser().begin(url)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    keys = AuthorizationRequest.objects.order_by("pk").values_list("dpop_key_ciphertext", flat=True)
    assert [key is not None for key in keys] == [False, True]


def test_neither_token_nor_key_nor_proof_leaves_us(
    caller: Caller, api: DPoPApi, reader: Bot, everything_logged: Any
) -> None:
    """H1, P5, L6: logs at DEBUG, answers, audit rows, counts and representations."""
    login: Any = caller.login
    key = private_key(AccessToken.objects.get())
    said = [repr(AccessToken.objects.get().reveal_proof_key())]
    api.proofs.nonce = NONCE
    said += [repr(caller.call()), repr(reader.token()), repr(reader.in_chat("POST", "/authorize", {}))]
    api.proofs.clock_ahead = 3600
    said += [repr(caller.call()), repr(caller.bot.in_chat("GET"))]
    caller.bot.in_chat("DELETE", "/token")
    with mounted(login):
        worker.run_once()
    call_counts.flush()
    rows = [*AuditEvent.objects.values(), *ApiCallCount.objects.values(), *AccessToken.objects.values()]
    kept = "".join([*everything_logged, *said, repr(rows)])
    planted = [caller.token, key["d"], *api.proofs.texts, *login.proofs.texts]
    assert len(planted) >= 6
    assert [value for value in planted if value in kept] == []


def test_a_key_reveals_nothing_by_its_repr() -> None:
    """K5."""
    assert repr(ProofKey(Secret('{"d": "planted"}'))) == "ProofKey(private_jwk=Secret(...))"
