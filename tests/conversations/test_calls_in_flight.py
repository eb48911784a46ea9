"""What changes while a brand's API works on a call: it gets one request, and the bot hears what is true by then."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from django.db import connections

from brands import authentication
from brands.models import AuthorizationServer, BotKey, BrandAPI, Operation
from conversations.models import AccessToken
from tests.brand_api import ORDERS, REFUSED, STRONGER, Caller
from tests.hostile_token_endpoint import http_answer

pytestmark = pytest.mark.django_db(transaction=True)

WANTS_MORE: Final = http_answer(b"", status=403, WWW_Authenticate='Bearer error="insufficient_scope", scope="admin"')


def close(caller: Caller) -> None:
    assert caller.bot.in_chat("DELETE")[0] == 200


def sign_out(caller: Caller) -> None:
    assert caller.bot.in_chat("DELETE", "/token?reason=signed_out")[0] == 200


def sign_in_again(caller: Caller) -> None:
    caller.sign_in(caller.bot.challenge())


def revoke_the_key(_caller: Caller) -> None:
    assert authentication.revoke(BotKey.objects.get())


def switch_off(_caller: Caller) -> None:
    Operation.objects.update(is_active=False)
    BrandAPI.objects.update(is_active=False)


def call_while(happens: Callable[[Caller], None], caller: Caller, answer: bytes) -> tuple[int, dict[str, Any]]:
    """Make a call whose API lets something happen, in a thread of its own, before it answers."""
    failures: list[BaseException] = []

    def play() -> Iterator[bytes]:
        try:
            happens(caller)
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            connections.close_all()
        yield answer

    caller.api.play()
    caller.api.script = play
    called = caller.call()
    assert failures == []
    assert len(caller.api.requests) == 1
    return called


@pytest.mark.parametrize("happens", [close, sign_out, sign_in_again, revoke_the_key, switch_off])
def test_an_answer_of_the_api_reaches_the_bot_that_asked_for_it(happens: Any, caller: Caller) -> None:
    """P8: the API has done it. Whoever is not told would do it again."""
    status, answer = call_while(happens, caller, ORDERS)
    assert (status, answer["session"], answer["response"]["body"]) == (200, 1, {"orders": ["A-1001"]})


@pytest.mark.parametrize("happens", [close, sign_out, revoke_the_key, switch_off])
def test_the_next_call_meets_what_happened_meanwhile(happens: Any, caller: Caller) -> None:
    """P1, S3."""
    call_while(happens, caller, ORDERS)
    caller.api.play(ORDERS)
    codes = {
        close: "conversation_closed",
        sign_out: "rechallenge_required",
        revoke_the_key: "invalid_bot_key",
        switch_off: "operation_unknown",
    }
    assert (caller.code(), caller.api.requests) == (codes[happens], [])


@pytest.mark.parametrize(
    ("happens", "code", "ends"),
    [
        (close, (410, "conversation_closed"), {"closed"}),
        (sign_out, (409, "rechallenge_required"), {"signed_out"}),
        (sign_in_again, (409, "authorized"), {"replaced", ""}),
        (switch_off, (409, "rechallenge_required"), {"rejected"}),
        (revoke_the_key, (409, "rechallenge_required"), {"rejected"}),
    ],
)
def test_a_late_refusal_of_the_token_ends_that_token_alone(
    happens: Any, code: tuple[int, str], ends: set[str], caller: Caller
) -> None:
    """P9."""
    status, problem = call_while(happens, caller, REFUSED)
    assert (status, problem["code"]) == code
    assert set(AccessToken.objects.values_list("end_reason", flat=True)) == ends


@pytest.mark.parametrize(
    ("happens", "code"),
    [
        (close, (410, "conversation_closed")),
        (sign_out, (409, "rechallenge_required")),
        (sign_in_again, (409, "authorized")),
        (switch_off, (409, "step_up_required")),
    ],
)
def test_a_late_demand_is_kept_with_the_token_that_was_presented_alone(
    happens: Any, code: tuple[int, str], paying: Caller
) -> None:
    """P32."""
    status, problem = call_while(happens, paying, STRONGER)
    assert (status, problem["code"]) == code
    demanded = AccessToken.objects.exclude(demanded_acr_values="")
    assert list(demanded.values_list("end_reason", flat=True)) == ([""] if happens is switch_off else [])


@pytest.mark.parametrize(
    ("happens", "code", "next_operation"),
    [
        (close, (410, "conversation_closed"), None),
        (sign_out, (409, "rechallenge_required"), "createChallenge"),
        (sign_in_again, (409, "authorized"), "callOperation"),
        (switch_off, (409, "missing_scope"), "createChallenge"),
    ],
)
def test_a_late_wish_for_scope_asks_for_no_sign_in_that_nobody_needs(
    happens: Any, code: tuple[int, str], next_operation: str | None, caller: Caller
) -> None:
    """S5: the bot was told to create a challenge, also after it had closed the chat, or Ada had signed in again."""

    def and_scopes_are_added(_: Caller) -> None:
        happens(caller)
        AuthorizationServer.objects.update(scope="orders.read admin")

    status, problem = call_while(and_scopes_are_added, caller, WANTS_MORE)
    assert ((status, problem["code"]), (problem["next"] or {}).get("operation")) == (code, next_operation)
    assert "rejected" not in set(AccessToken.objects.values_list("end_reason", flat=True))


def test_a_token_that_is_pruned_while_the_api_refuses_it_is_no_fault(caller: Caller) -> None:
    """P9: its row is gone, with the conversation's."""

    def prune(_: Caller) -> None:
        AccessToken.objects.all().delete()

    status, problem = call_while(prune, caller, REFUSED)
    assert (status, problem["code"]) == (409, "authorized")


def test_a_large_body_that_the_api_does_not_read_is_no_fault(caller: Caller) -> None:
    """P8: it answers from the headers alone, and closes. The bot gets the status, and nothing is sent again."""
    caller.api.play(http_answer(b"", status=413, Connection="close"))
    status, answer = caller.call("orders.note", arguments={"order_id": "1"}, body={"note": "x" * 60_000})
    assert (status, answer["response"]["status"], len(caller.api.requests)) == (200, 413, 1)
