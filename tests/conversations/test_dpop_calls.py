"""Calls with a token that is bound to our key (DPoP): nonces, clocks, and an API that is hostile."""

import re
from typing import Any, Final

import pytest
from django.core.exceptions import ValidationError

from brands.models import BrandAPI
from conversations.flow import call_counts
from conversations.models import AccessToken, ApiCallCount
from tests.brand_api import Caller, make_operation, sign_in_with
from tests.cast import use_openid
from tests.conversations.bound_tokens import acme_server, api, caller, login
from tests.conversations.test_hostile_calls import DOCUMENT
from tests.dpop import NONCE, DPoPApi, DPoPAuthorizationServer
from tests.hostile_api_answers import line_of
from tests.hostile_token_endpoint import http_answer

# The fixtures, by their names.
__all__ = ["acme_server", "api", "caller", "login"]

pytestmark = pytest.mark.django_db

REFUSED: Final = "api_proof_refused"
STAYS: Final = "the token stays"
BEARER_ALONE: Final = http_answer(b"", status=401, WWW_Authenticate='Bearer error="invalid_token"')


def test_the_demanded_nonce_is_sent_and_remembered(caller: Caller, api: DPoPApi) -> None:
    """L4: the bot sees neither of the two requests; both are one call."""
    api.proofs.nonce = NONCE
    assert caller.call()[0] == 200
    assert len(caller.api.requests) == 2
    assert caller.call()[0] == 200
    assert len(caller.api.requests) == 3
    assert caller.bot.status() == ("authorized", None)


def test_an_operation_that_is_not_safe_to_repeat_is_sent_again_for_a_nonce(caller: Caller, api: DPoPApi) -> None:
    """P8, L4: the API has refused the first request, and done nothing."""
    api.proofs.nonce = NONCE
    note = {"arguments": {"order_id": "1"}, "body": {"note": "Ring twice"}}
    assert caller.call("orders.note", **note)[0] == 200
    first, second = caller.api.requests
    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2] == b'{"note":"Ring twice"}'


@pytest.mark.parametrize("told", ["another", "", "two words", "ä", "a" * 513])
def test_an_api_that_refuses_its_nonce_gets_at_most_two_requests(told: str, caller: Caller, api: DPoPApi) -> None:
    """L4, L5: and the token stays."""
    api.proofs.nonce, api.told_nonce = NONCE, told
    status, problem = caller.call()
    assert (status, problem["code"], problem["next"]) == (502, "api_proof_refused", None)
    assert len(caller.api.requests) == (2 if told == "another" else 1)
    assert caller.bot.status() == ("authorized", None)


def test_a_proof_that_the_api_refuses_does_not_end_the_token(caller: Caller, api: DPoPApi) -> None:
    """L5: a clock that is wrong would sign out every consumer."""
    api.proofs.clock_ahead = -3600
    status, problem = caller.call()
    assert (status, problem["code"], problem["was_sent"]) == (502, "api_proof_refused", True)
    assert "another sign-in does not help" in problem["detail"]
    assert len(caller.api.requests) == 1
    assert caller.bot.status() == ("authorized", None)
    call_counts.flush()
    assert list(ApiCallCount.objects.values_list("outcome", "times")) == [("api_proof_refused", 1)]


def test_an_invalid_token_ends_it_as_a_bearer_token_ends(
    caller: Caller, api: DPoPApi, login: DPoPAuthorizationServer
) -> None:
    """P9: such as one that the server has bound to another key."""
    login.bound[caller.token] = "another-thumbprint"
    status, problem = caller.call()
    assert (status, problem["code"], problem["reason"]) == (409, "rechallenge_required", "rejected")


@pytest.mark.parametrize(
    "challenge",
    ['Bearer error="invalid_token"', 'Bearer realm="a", error="invalid_token", DPoP algs="ES256"', "DPoP", ""],
)
def test_the_challenge_of_another_scheme_says_nothing_about_a_bound_token(challenge: str, caller: Caller) -> None:
    """P9, L5: an API that knows bearer tokens alone, or a proxy."""
    caller.api.play(http_answer(b"", status=401, WWW_Authenticate=challenge))
    assert caller.call()[1]["response"]["status"] == 401
    assert caller.bot.status() == ("authorized", None)


@pytest.mark.parametrize("status", [200, 400, 403])
@pytest.mark.parametrize("error", ["use_dpop_nonce", "invalid_dpop_proof"])
def test_only_a_401_asks_for_another_proof(status: int, error: str, caller: Caller) -> None:
    """L4, L5, P8: an answer of another status may be that of an API which has done it. It is passed on."""
    challenge = f'DPoP error="{error}"'
    caller.api.play(http_answer(b"", status=status, WWW_Authenticate=challenge, DPoP_Nonce=NONCE))
    assert caller.call()[1]["response"]["status"] == status
    assert len(caller.api.requests) == 1


def test_a_bearer_token_is_not_touched_by_what_is_said_of_dpop(caller: Caller) -> None:
    """P9, L4: an API's answer cannot make us send a proof that we have no key for, or repeat a call."""
    AccessToken.objects.update(token_type="Bearer", dpop_key_ciphertext=None)
    challenge = 'DPoP error="use_dpop_nonce"'
    caller.api.play(http_answer(b"", status=401, WWW_Authenticate=challenge, DPoP_Nonce=NONCE))
    assert caller.call()[1]["response"]["status"] == 401
    assert len(caller.api.requests) == 1
    assert b"\r\nDPoP:" not in caller.sent()


# A row of docs/security.md: what an API does, what the bot gets, in words, and how many requests the API has got.
HOSTILE: Final[list[tuple[str, str, dict[str, Any], str | int, str, int]]] = [
    ("L4", "a nonce", {"nonce": NONCE}, 200, "asked once more, and remembered", 2),
    ("L4", "another nonce with each refusal", {"nonce": NONCE, "told": "another"}, REFUSED, STAYS, 2),
    ("L4", "a demand without a nonce", {"nonce": NONCE, "told": ""}, REFUSED, STAYS, 1),
    ("L4", "a nonce of 513 characters", {"nonce": NONCE, "told": "a" * 513}, REFUSED, STAYS, 1),
    ("L4", "a nonce with a space", {"nonce": NONCE, "told": "a b"}, REFUSED, STAYS, 1),
    ("L5", "a clock that is an hour wrong", {"clock": 3600}, REFUSED, STAYS, 1),
    ("L5", "401 with `invalid_token` for Bearer alone", {"answer": BEARER_ALONE}, 401, "the token lives", 1),
    (
        "P9",
        "401 with `invalid_token` for DPoP",
        {"refusal": "invalid_token"},
        "rechallenge_required",
        "the token ends",
        1,
    ),
    ("P5", "the proof in the body", {"echo": True}, "token_in_answer", "", 1),
]


@pytest.mark.parametrize(("row", "attack", "does", "result", "words", "requests"), HOSTILE)
def test_a_hostile_api_gets_no_further_than_the_table_says(
    row: str,
    attack: str,
    does: dict[str, Any],
    result: str | int,
    words: str,
    requests: int,
    caller: Caller,
    api: DPoPApi,
) -> None:
    """L4, L5, P5, P9: docs/security.md."""
    api.proofs.nonce, api.told_nonce = does.get("nonce", ""), does.get("told")
    api.proofs.clock_ahead, api.refusal = does.get("clock", 0), does.get("refusal", "")
    if "answer" in does:
        caller.api.play(does["answer"])
    if "echo" in does:
        caller.api.script = lambda: [http_answer(caller.api.requests[-1].partition(b"DPoP: ")[2].partition(b"\r\n")[0])]
    status, answer = caller.call()
    assert (answer["response"]["status"] if status == 200 else answer["code"]) == result
    assert len(caller.api.requests) == requests
    is_ended = result == "rechallenge_required"
    assert caller.bot.status()[0] == ("rechallenge_required" if is_ended else "authorized")


def test_the_table_of_hostile_apis_is_up_to_date() -> None:
    section = (
        DOCUMENT.read_text(encoding="utf-8").partition("<!-- proofs -->")[2].partition("<!-- end of proofs -->")[0]
    )
    lines = [line for line in section.splitlines() if re.match(r"\| [LP]\d", line)]
    assert lines == [line_of(*row[:2], *row[3:5]) for row in HOSTILE]


@pytest.mark.parametrize("header", ["DPoP", "dpop"])
def test_no_bot_sends_a_proof_of_its_own(header: str, caller: Caller) -> None:
    """P13: whatever stands in the row."""
    operation = make_operation(BrandAPI.objects.get(), "orders.proven", path="/orders")
    operation.parameters = [{"name": header, "in": "header", "required": False, "schema": {"type": "string"}}]
    with pytest.raises(ValidationError):
        operation.full_clean()


def test_a_bound_token_is_stepped_up_and_each_token_keeps_its_own_key(caller: Caller, api: DPoPApi) -> None:
    """P30, P32, P33, L6: the demand is of the scheme DPoP. A sign-in that is too weak leaves the old one."""
    use_openid(caller.server, caller.login)
    caller.sign_in(caller.bot.challenge())
    old = caller.token
    demand = 'DPoP error="insufficient_user_authentication", acr_values="urn:acme:loa:2"'
    api.answer = http_answer(b"", status=401, WWW_Authenticate=demand, DPoP_Nonce=NONCE)
    assert caller.code() == "step_up_required"
    challenge = caller.bot.challenge()
    assert challenge["acr_values"] == "urn:acme:loa:2"
    sign_in_with(caller, challenge, acr="weak")
    assert AccessToken.objects.get(ended_at=None).reveal_access_token().reveal() == old
    assert [caller.code() for _ in range(2)] == ["step_up_required"] * 2
    assert [claims.get("nonce") for claims in api.proofs.claims[-2:]] == [None, NONCE]
    sign_in_with(caller, challenge := caller.bot.challenge(), acr="urn:acme:loa:2")
    assert caller.bot.complete(caller.ada.read_code(challenge["url"]))[0] == 200
    api.answer = http_answer(b"1")
    assert caller.call()[0] == 200
    assert len(set(api.proofs.thumbprints)) == 2
    assert list(AccessToken.objects.exclude(ended_at=None).exclude(dpop_key_ciphertext=None)) == []
