"""Revocation at the brand (RFC 7009): written down with the change, done by the worker, retried, erased for good."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AuditEvent, Revocation
from conversations.outbox.revocations import FIRST_PAUSE, LONGEST_PAUSE, lease_revocations, revoke
from conversations.outbox.worker import run_once
from infrastructure.leases import LEASE
from infrastructure.outbox import pause_after
from tests.cast import Bot, Browser, code_on, make_bot, make_server
from tests.fake_authorization_server import Answer, FakeAuthorizationServer
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db

UNAVAILABLE: Answer = (503, {}, b"")
UNSUPPORTED: Answer = (400, {"Content-Type": "application/json"}, b'{"error": "unsupported_token_type"}')
THE_SAME: Answer = (200, {"Content-Type": "application/json"}, b'{"access_token":"the-same","token_type":"Bearer"}')


@pytest.fixture
def revoking(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return Acme's login with a revocation endpoint."""
    AuthorizationServer.objects.filter(pk=acme_server.pk).update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    return acme_login


@pytest.fixture
def authorized(acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer) -> dict[str, Any]:
    """Return the completed challenge of a chat with a live token."""
    challenge = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], revoking)))
    return challenge


def revocation_outcomes() -> list[str]:
    return list(AuditEvent.objects.filter(kind="token.revocation").order_by("id").values_list("outcome", flat=True))


def end(ending: str, bot: Bot, ada: Browser, challenge: dict[str, Any]) -> None:
    match ending:
        case "signed out":
            bot.in_chat("DELETE", "/token?reason=signed_out")
        case "rejected":
            bot.in_chat("DELETE", "/token")
        case "closed":
            bot.in_chat("DELETE")
        case "undone":
            ada.press(f"{challenge['url']}/done", "/undo")


@pytest.mark.parametrize("ending", ["signed out", "rejected", "closed", "undone"])
def test_an_ended_token_is_presented_at_the_brand_by_the_worker(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, authorized: dict[str, Any], ending: str
) -> None:
    """A13: unreadable at once; revoked off the request path, with our client authentication; then erased."""
    end(ending, acme_bot, ada, authorized)
    assert acme_bot.token()[0] in {409, 410}
    assert revoking.revocation_requests == []
    assert revoking.issued_access_tokens[0] not in everything_stored()
    assert run_once() == 1
    (request,) = revoking.revocation_requests
    assert request.parameters == {"token": revoking.issued_access_tokens[0], "token_type_hint": "access_token"}
    assert request.headers["Authorization"].startswith("Basic ")
    assert not Revocation.objects.exists()
    assert revocation_outcomes() == ["revoked"]
    assert run_once() == 0


def test_a_replaced_and_an_unconfirmed_token_are_revoked_too(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, authorized: dict[str, Any]
) -> None:
    second = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(second["url"], revoking)))
    third = acme_bot.challenge()
    ada.sign_in(third["url"], revoking)
    acme_bot.call("DELETE", f"/challenges/{third['challenge_id']}")
    run_once()
    presented = {request.parameters["token"] for request in revoking.revocation_requests}
    assert presented == {revoking.issued_access_tokens[0], revoking.issued_access_tokens[2]}
    assert acme_bot.token()[1]["access_token"] == revoking.issued_access_tokens[1]


def test_a_fresh_token_without_a_place_to_go_is_revoked(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer
) -> None:
    """A8: the conversation closed while the exchange ran."""

    def close_meanwhile(_: object) -> None:
        acme_bot.in_chat("DELETE")

    revoking.on_token_request = close_meanwhile
    ada.come_back(ada.begin(acme_bot.challenge()["url"]), revoking)
    run_once()
    assert [request.parameters["token"] for request in revoking.revocation_requests] == revoking.issued_access_tokens


def test_an_expired_token_and_a_brand_without_the_endpoint_are_not_worth_a_call(
    acme_bot: Bot, revoking: FakeAuthorizationServer, authorized: dict[str, Any]
) -> None:
    with time_machine.travel(timezone.now() + timedelta(hours=2), tick=False):
        acme_bot.in_chat("DELETE")
        assert run_once() == 0
    assert not Revocation.objects.exists()


def test_nothing_waits_for_a_brand_that_has_no_revocation_endpoint(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A13: the token is erased, and nobody is asked."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.in_chat("DELETE", "/token")
    assert not Revocation.objects.exists()
    assert acme_login.issued_access_tokens[0] not in everything_stored()


def test_a_token_that_a_sign_in_brought_again_is_not_even_put_into_the_outbox(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer
) -> None:
    """A13: the replaced row's value lives on in the new one; a worker that came at the wrong moment would end it."""
    for _ in range(2):
        revoking.next_token_answer = THE_SAME
        acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    assert not Revocation.objects.exists()
    assert acme_bot.token()[1]["access_token"] == "the-same"


def test_a_token_of_one_server_is_revoked_though_another_gave_out_the_same_value(
    acme_bot: Bot, ada: Browser, rita: Browser, revoking: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A13: what a value means is each server's own."""
    loyalty = make_server(acme_server.brand, "loyalty")
    for server, browser in ((acme_server, ada), (loyalty, rita)):
        revoking.redirect_uri, revoking.next_token_answer = server.redirect_uri, THE_SAME
        challenge = acme_bot.challenge(authorization_server=server.key)
        typed = {"code": code_on(browser.sign_in(challenge["url"], revoking)), "authorization_server": server.key}
        assert acme_bot.in_chat("POST", "/completion", typed)[0] == 200
    assert acme_bot.in_chat("DELETE", "/token?authorization_server=orders")[0] == 200
    run_once()
    assert [request.parameters["token"] for request in revoking.revocation_requests] == ["the-same"]


def test_a_failing_endpoint_is_tried_again_and_after_fifteen_minutes_the_token_is_erased(
    acme_bot: Bot, revoking: FakeAuthorizationServer, authorized: dict[str, Any]
) -> None:
    """K6."""
    revoking.next_revocation_answers = [UNAVAILABLE] * 100
    acme_bot.in_chat("DELETE", "/token")
    start, tried = timezone.now(), []
    while waiting := Revocation.objects.first():
        moment = waiting.next_attempt_at
        with time_machine.travel(moment - timedelta(milliseconds=1), tick=False):
            assert not run_once()
        with time_machine.travel(moment, tick=False):
            assert run_once()
        tried.append((moment - start).total_seconds())
    assert 8 <= len(tried) <= 20
    assert tried[0] <= 0
    assert tried[-1] < 900
    assert len(revoking.revocation_requests) == len(tried)
    assert not Revocation.objects.exists()
    assert len(revocation_outcomes()) == 1


def test_a_retry_succeeds_when_the_brand_is_back(
    acme_bot: Bot, revoking: FakeAuthorizationServer, authorized: dict[str, Any]
) -> None:
    revoking.next_revocation_answers = [UNAVAILABLE]
    acme_bot.in_chat("DELETE", "/token")
    run_once()
    assert Revocation.objects.get().attempts == 1
    with time_machine.travel(timezone.now() + timedelta(seconds=10), tick=False):
        run_once()
    assert revocation_outcomes() == ["revoked"]


def test_a_final_refusal_is_not_tried_again(
    acme_bot: Bot, revoking: FakeAuthorizationServer, authorized: dict[str, Any]
) -> None:
    revoking.next_revocation_answers = [UNSUPPORTED]
    acme_bot.in_chat("DELETE", "/token")
    run_once()
    assert not Revocation.objects.exists()
    assert revocation_outcomes() == ["unsupported_token_type"]


def test_what_no_worker_came_for_is_erased_by_the_sweep(
    acme_bot: Bot, revoking: FakeAuthorizationServer, authorized: dict[str, Any]
) -> None:
    """K6: also where nobody runs a worker, and prune does the sweeping."""
    acme_bot.in_chat("DELETE", "/token")
    with time_machine.travel(timezone.now() + timedelta(minutes=15, seconds=1), tick=False):
        run_once()
    assert revoking.revocation_requests == []
    assert revocation_outcomes() == ["given_up"]


def test_a_row_moved_to_another_conversation_is_erased_and_never_presented(
    acme_bot: Bot, revoking: FakeAuthorizationServer, authorized: dict[str, Any], acme_server: AuthorizationServer
) -> None:
    """K1, K2."""
    make_bot(acme_server.brand, chat="web:other").challenge()
    acme_bot.in_chat("DELETE", "/token")
    Revocation.objects.update(conversation_id=Revocation.objects.get().conversation_id + 1)
    run_once()
    assert Revocation.objects.get().attempts == 1
    with time_machine.travel(Revocation.objects.get().give_up_at - timedelta(seconds=1), tick=False):
        run_once()
    assert revoking.revocation_requests == []
    assert revocation_outcomes() == ["unreadable"]
    assert not Revocation.objects.exists()


def test_a_dead_workers_row_is_taken_over(
    acme_bot: Bot, revoking: FakeAuthorizationServer, authorized: dict[str, Any]
) -> None:
    acme_bot.in_chat("DELETE", "/token")
    now = timezone.now()
    assert len(lease_revocations(now, 8)) == 1
    assert lease_revocations(now, 8) == []
    (row,) = lease_revocations(now + LEASE, 8)
    assert row.attempts == 2
    revoke(row)
    assert revocation_outcomes() == ["revoked"]


def test_pauses_double_up_to_two_minutes_and_never_march_in_step() -> None:
    pauses = [pause_after(attempts, FIRST_PAUSE, LONGEST_PAUSE).total_seconds() for attempts in range(1, 9)]
    for pause, middle in zip(pauses, [5, 10, 20, 40, 80, 120, 120, 120], strict=True):
        assert middle * 0.75 <= pause <= middle * 1.25
    assert len({pause_after(1, FIRST_PAUSE, LONGEST_PAUSE) for _ in range(20)}) > 1
