"""The outbox: the right token to the right endpoint, nobody's rows before everybody's, and no dead worker."""

from collections.abc import Callable
from datetime import timedelta
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.core.management import call_command
from django.db import OperationalError
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations.flow import sign_in
from conversations.models import AccessToken, AuditEvent, Conversation, Revocation
from conversations.outbox import worker
from conversations.outbox.revocations import lease_revocations, revoke
from infrastructure.crypto import Secret
from tests.cast import Bot, Browser, code_on, heading_of, make_server, use_openid
from tests.concurrency import at_once
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def revoking(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return Acme's login with a revocation endpoint."""
    AuthorizationServer.objects.filter(pk=acme_server.pk).update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    return acme_login


def waiting(server: AuthorizationServer, number: int) -> None:
    """Put revocations of one chat into the outbox."""
    chat = Conversation.objects.create(brand=server.brand, external_id=f"web:{uuid4()}")
    for _ in range(number):
        row = Revocation(conversation=chat, authorization_server=server, access_token_uuid=uuid4())
        row.set_access_token(Secret("some-token"))
        row.save()


def outcomes() -> list[str]:
    return list(AuditEvent.objects.filter(kind="token.revocation").order_by("id").values_list("outcome", flat=True))


def test_a_token_is_presented_at_no_endpoint_but_the_one_it_was_asked_for_with(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, rival_login: FakeAuthorizationServer
) -> None:
    """The bug: an admin could change the endpoint, end the tokens, and be sent every one of them, still alive."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    AuthorizationServer.objects.filter(brand__slug="acme").update(revocation_endpoint=f"{rival_login.issuer}/revoke")
    acme_bot.in_chat("DELETE", "/token")
    worker.run_once()
    assert (revoking.revocation_requests, rival_login.revocation_requests) == ([], [])
    assert outcomes() == ["configuration_changed"]
    assert not Revocation.objects.exists()


def test_a_token_that_the_server_hands_out_again_is_not_revoked(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer
) -> None:
    """The bug: the replaced row's token was the live one, and the brand ended it."""
    same = (200, {"Content-Type": "application/json"}, b'{"access_token":"the-same","token_type":"Bearer"}')
    for _ in range(2):
        revoking.next_token_answer = same
        acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    worker.run_once()
    assert revoking.revocation_requests == []
    assert acme_bot.token()[1]["access_token"] == "the-same"


def test_a_token_that_comes_again_while_its_revocation_waits_is_not_revoked(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer
) -> None:
    same = (200, {"Content-Type": "application/json"}, b'{"access_token":"the-same","token_type":"Bearer"}')
    revoking.next_token_answer = same
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    acme_bot.in_chat("DELETE", "/token")
    revoking.next_token_answer = same
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    worker.run_once()
    assert (revoking.revocation_requests, outcomes()) == ([], ["in_use_again"])


def test_one_brands_thousand_rows_delay_nobody_elses(
    acme_server: AuthorizationServer, rival_server: AuthorizationServer
) -> None:
    """The bug: only the oldest two hundred rows were looked at."""
    waiting(acme_server, 210)
    waiting(rival_server, 1)
    leased = [row.authorization_server_id for row in lease_revocations(timezone.now(), 8)]
    assert leased == [acme_server.pk, rival_server.pk, acme_server.pk]


def test_a_brand_with_many_servers_has_three_places(acme: Brand, rival_server: AuthorizationServer) -> None:
    """The bug: four servers that answered slowly held every thread, and nobody else's tokens were revoked."""
    slow = [make_server(acme, f"slow-{number}") for number in range(6)]
    for server in slow:
        waiting(server, 5)
    waiting(rival_server, 1)
    leased = [row.authorization_server_id for row in lease_revocations(timezone.now(), 8)]
    assert leased == [slow[0].pk, rival_server.pk, slow[1].pk, slow[2].pk]
    assert lease_revocations(timezone.now(), 4) == []


@pytest.mark.django_db(transaction=True)
def test_two_of_a_brand_at_once_holds_between_workers(acme_server: AuthorizationServer) -> None:
    """The bug: workers that looked at the same moment each saw room."""
    waiting(acme_server, 60)
    now = timezone.now()
    leased = [row.pk for rows in at_once(4, lambda _: lease_revocations(now, 8)) for row in rows]
    assert (len(leased), len(set(leased))) == (2, 2)


def test_a_worker_whose_lease_ran_out_does_not_take_the_row_from_the_next_one(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer
) -> None:
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    acme_bot.in_chat("DELETE", "/token")
    now = timezone.now()
    (slow,) = lease_revocations(now, 1)
    (next_one,) = lease_revocations(now + timedelta(minutes=2), 1)
    revoking.next_revocation_answers = [(503, {}, b"")]
    revoke(slow)
    assert Revocation.objects.get().lease_until == next_one.lease_until


@pytest.mark.django_db(transaction=True)
def test_a_fault_in_one_entry_is_logged_and_the_next_one_is_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours: the worker goes on, and the log names the row alone."""
    stop, broken, good = Event(), Revocation(), Revocation()
    waiting, done = [broken, good], []

    def take(_now: Any, _limit: int) -> list[list[Revocation]]:
        return [[waiting.pop(0)]] if waiting else []

    def do(row: Revocation) -> Callable[[], None]:
        if row is broken:
            raise RuntimeError("planted fault")
        done.append(row)
        return stop.set

    monkeypatch.setattr(worker, "WORK", (("revocation", take, do, lambda: 8),))
    worker.run(stop)
    assert done == [good]
    (logged,) = [record for record in caplog.records if record.name == "consumer_delegation.worker"]
    assert (logged.getMessage(), vars(logged)["entry"]) == ("an outbox entry failed", str(broken.uuid))


def test_the_command_does_what_is_due_once_and_says_how_much_it_was(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, capsys: pytest.CaptureFixture[str]
) -> None:
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    acme_bot.in_chat("DELETE", "/token")
    for done in (1, 0):
        call_command("worker", once=True)
        assert capsys.readouterr().out == f"done {done}\n"
    assert outcomes() == ["revoked"]


@pytest.mark.parametrize("trouble", ["id token", "storing"])
def test_a_token_that_came_with_trouble_is_not_left_alive_at_the_brand(
    acme_bot: Bot,
    ada: Browser,
    revoking: FakeAuthorizationServer,
    acme_server: AuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    """A8. The bug: only a token without a place to go was revoked, not one whose ID token was refused."""

    def fail(*_: object) -> None:
        raise OperationalError("the database went away")

    if trouble == "id token":
        use_openid(acme_server, revoking)
        revoking.id_token_changes = {"nonce": "another"}
    else:
        monkeypatch.setattr(sign_in, "store_result", fail)
    ada.sign_in(acme_bot.challenge()["url"], revoking)
    worker.run_once()
    assert [request.parameters["token"] for request in revoking.revocation_requests] == revoking.issued_access_tokens


def test_authorize_for_one_customer_never_hands_out_anothers_token(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A12. The bug: a live token was compared by check and scope alone."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(same_person_checks=["expected_subject"])
    ada.sign_in(acme_bot.challenge(expected_subject="ada")["url"], acme_login)
    assert acme_bot.in_chat("POST", "/authorize", {"expected_subject": "ada"})[0] == 200
    status, challenge = acme_bot.in_chat("POST", "/authorize", {"expected_subject": "bob"})
    assert (status, challenge["status"]) == (202, "issued")


def test_pruning_does_not_forget_whose_the_conversation_is(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """A7. The bug: the newest token was kept, which an undo had taken out of the comparison."""
    use_openid(acme_server, acme_login)
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    second = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(second["url"], acme_login)))
    ada.press(f"{second['url']}/done", "/undo")
    with time_machine.travel(timezone.now() + timedelta(days=31), tick=False):
        call_command("prune")
        acme_login.subject, acme_login.id_token_changes = "mallory", {}
        page = Browser().sign_in(acme_bot.challenge()["url"], acme_login)
    assert heading_of(page) == "That was another account"


def test_a_consumer_can_be_signed_out_of_a_server_that_was_switched_off(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K6."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    AuthorizationServer.objects.update(is_active=False)
    assert acme_bot.in_chat("DELETE", "/token?reason=signed_out")[0] == 200
    assert AccessToken.objects.get().ciphertext is None


def test_a_nul_in_the_address_of_our_keys_is_not_found(ada: Browser) -> None:
    """The bug: PostgreSQL cannot look for it, and answered 500."""
    assert ada.get("https://delegation.test/callback/%00/jwks.json").status_code == 404
    page = ada.get("https://delegation.test/c/x?y=%00")
    assert (page.status_code, "Content-Security-Policy" in page.headers) == (400, True)
