"""What a bot is told, and when: every change once, in its own transaction, as the API reads it, and never a token."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, WebhookEndpoint, WebhookEvent
from conversations.flow import transitions
from conversations.flow.challenges import WantedChallenge, issue_challenge
from conversations.flow.events import publish_challenge
from conversations.flow.termination import revoke_token
from conversations.models import AccessToken, Challenge, ChallengeStatus, Conversation, WebhookDelivery
from tests.cast import Bot, Browser, code_on, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.stored import everything_stored
from tests.webhook_receiver import Receiver, Receivers

pytestmark = pytest.mark.django_db


def authorized(bot: Bot, browser: Browser, login: FakeAuthorizationServer, **body: Any) -> dict[str, Any]:
    """Play a whole journey; return the challenge."""
    challenge = bot.challenge(**body)
    assert bot.complete(code_on(browser.sign_in(challenge["url"], login)))[0] == 200
    return challenge


def last_data(receiver: Receiver) -> dict[str, Any]:
    return dict(receiver.messages[-1].payload["data"])


def test_every_status_has_an_event_and_every_event_is_one_of_the_api() -> None:
    """One vocabulary for API, webhooks, admin and audit."""
    challenges = {f"challenge.{status}" for status in ChallengeStatus.values}
    assert set(WebhookEvent.values) - challenges == {
        *("authorization_request.failed", "token.issued", "token.ended", "conversation.closed", "webhook.test"),
        *("token.reads_unusual", "api.calls_unusual", "authorization_server.failing", "authorization_server.recovered"),
    }
    assert challenges < set(WebhookEvent.values)


def test_a_journey_is_told_step_by_step_as_the_api_reads_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    with time_machine.travel(timezone.now(), tick=False):
        challenge = acme_bot.challenge(context="order 7, then refund", purpose="to look up your order")
        assert acme_hooks.deliver() == ["challenge.issued"]
        assert last_data(acme_hooks) == acme_bot.read_challenge(challenge)
        page = ada.sign_in(challenge["url"], acme_login)
        assert acme_hooks.deliver() == ["challenge.started", "challenge.confirmation_needed"]
        acme_bot.complete(code_on(page))
        assert acme_hooks.deliver() == ["challenge.completed", "token.issued"]
        read = acme_bot.token()[1]
        told = last_data(acme_hooks)
        assert read.pop("access_token") == acme_login.issued_access_tokens[0]
        assert told == read | {
            "conversation_id": acme_bot.chat,
            "authorization_server": "orders",
            "challenge_id": challenge["challenge_id"],
        }
        receipt = acme_bot.in_chat("DELETE")[1]
        assert acme_hooks.deliver() == ["token.ended", "conversation.closed"]
        assert last_data(acme_hooks) == receipt
    contexts = {m.payload["data"]["context"] for m in acme_hooks.messages if m.type.startswith("challenge.")}
    assert contexts == {"order 7, then refund"}
    sequences = [message.payload["sequence"] for message in acme_hooks.messages]
    assert sequences == sorted(set(sequences))


def test_no_event_holds_a_token_a_link_or_a_code(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """G5."""
    challenge = acme_bot.challenge()
    code = code_on(ada.sign_in(challenge["url"], acme_login))
    acme_bot.complete(code)
    acme_bot.in_chat("DELETE", "/token")
    assert len(acme_hooks.deliver()) == 6
    everything = repr(acme_hooks.messages)
    planted = [*acme_login.issued_access_tokens, challenge["url"].rsplit("/", 1)[1], f'"{code}"', acme_bot.key]
    assert [value for value in planted if value in everything] == []


@pytest.mark.parametrize("reason", ["rejected", "signed_out", "revoked", "undone", "replaced", "expired", "closed"])
def test_the_end_of_a_token_is_told_with_its_reason(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver, reason: str
) -> None:
    challenge = authorized(acme_bot, ada, acme_login)
    acme_hooks.deliver()
    told = {
        "rejected": lambda: acme_bot.in_chat("DELETE", "/token"),
        "signed_out": lambda: acme_bot.in_chat("DELETE", "/token?reason=signed_out"),
        "revoked": lambda: revoke_token(AccessToken.objects.get(), actor="admin:1", now=timezone.now()),
        "undone": lambda: ada.press(f"{challenge['url']}/done", "/undo"),
        "replaced": lambda: authorized(acme_bot, ada, acme_login),
        "expired": lambda: AccessToken.objects.update(expires_at=timezone.now()),
        "closed": lambda: acme_bot.in_chat("DELETE"),
    }
    told[reason]()
    events = acme_hooks.deliver()
    (ended,) = (message.payload for message in acme_hooks.messages if message.type == "token.ended")
    assert ended["data"]["end_reason"] == reason
    assert ended["data"]["challenge_id"] == challenge["challenge_id"]
    assert {"undone": "challenge.cancelled", "replaced": "token.issued", "closed": "conversation.closed"}.get(
        reason, "token.ended"
    ) == events[-1]


def test_a_token_that_could_never_be_read_is_not_told_of(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """A1: neither its beginning nor its end; the challenge's own end says all there is."""
    challenge = acme_bot.challenge()
    ada.sign_in(challenge["url"], acme_login)
    acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    acme_bot.in_chat("DELETE")
    acme_hooks.deliver()
    assert AccessToken.objects.filter(ended_at__isnull=False).count() == 2
    assert {name for name in acme_hooks.types if name.startswith("token.")} == set()
    assert acme_hooks.types.count("challenge.withdrawn") == 2


@pytest.mark.parametrize("end", ["denied", "cancelled", "expired", "superseded", "withdrawn", "failed"])
def test_every_end_of_a_challenge_is_told(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver, end: str
) -> None:
    challenge = acme_bot.challenge(context="resume here")
    if end == "denied":
        acme_login.denies = True
        ada.sign_in(challenge["url"], acme_login)
    elif end == "failed":
        ada.sign_in(challenge["url"], acme_login)
        for _ in range(5):
            acme_bot.complete("000000")
    else:
        {
            "cancelled": lambda: ada.press(challenge["url"], "/cancel"),
            "expired": lambda: Challenge.objects.update(expires_at=timezone.now()),
            "superseded": lambda: acme_bot.challenge(replace=True),
            "withdrawn": lambda: acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}"),
        }[end]()
    acme_hooks.deliver()
    (ended,) = (message for message in acme_hooks.messages if message.type == f"challenge.{end}")
    data = ended.payload["data"]
    assert (data["challenge_id"], data["status"], data["context"]) == (challenge["challenge_id"], end, "resume here")
    assert data["error"] == ("too_many_codes" if end == "failed" else None)


def test_what_the_clock_ends_is_told_by_the_next_call_too(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """No sweep has run: the call that closes the expired rows writes their events."""
    authorized(acme_bot, ada, acme_login)
    acme_bot.challenge()
    Challenge.objects.filter(status="issued").update(expires_at=timezone.now())
    AccessToken.objects.update(expires_at=timezone.now())
    acme_bot.challenge()
    waiting = set(WebhookDelivery.objects.waiting().values_list("event", flat=True))
    assert {"challenge.expired", "token.ended"} <= waiting


def test_an_event_is_rolled_back_with_its_change(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver
) -> None:
    acme_hooks.deliver()
    wanted = WantedChallenge(server=acme_server)
    with transaction.atomic():
        issue_challenge(acme_server.brand, "web:1", wanted, actor="test", now=timezone.now())
        assert WebhookDelivery.objects.count() == 1
        transaction.set_rollback(True)
    assert (WebhookDelivery.objects.count(), Challenge.objects.count()) == (0, 0)
    assert acme_hooks.deliver() == []


def test_a_change_is_rolled_back_with_its_event(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no change that nobody is told of."""
    challenge = acme_bot.challenge()

    def fail(*_: Any) -> None:
        raise RuntimeError("a fault of ours, where the event is written")

    monkeypatch.setattr(transitions, "publish_challenge", fail)
    row = Challenge.objects.select_related("conversation").get()
    with pytest.raises(RuntimeError), transitions.locked_conversation(row.conversation_id):
        transitions.end_challenge(row, ChallengeStatus.WITHDRAWN, now=timezone.now(), actor="test")
    assert acme_bot.read_challenge(challenge)["status"] == "issued"


def test_an_endpoint_hears_what_it_asked_for_and_each_gets_the_same_id(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme: Brand, receivers: Receivers
) -> None:
    challenges = receivers.add(acme, "a.acme.example", ("challenge.*",))
    ends = receivers.add(acme, "b.acme.example", ("token.ended", "conversation.closed"))
    everything = receivers.add(acme, "c.acme.example")
    off = receivers.add(acme, "d.acme.example")
    WebhookEndpoint.objects.filter(pk=off.endpoint.pk).update(is_active=False)
    authorized(acme_bot, ada, acme_login)
    acme_bot.in_chat("DELETE")
    everything.deliver()
    steps = ("issued", "started", "confirmation_needed", "completed")
    assert set(challenges.types) == {f"challenge.{step}" for step in steps}
    assert (ends.types, off.types) == (["token.ended", "conversation.closed"], [])
    assert not WebhookDelivery.objects.filter(endpoint=off.endpoint).exists()
    assert len(everything.types) == 7
    ids = {(message.id, message.body) for message in everything.messages}
    assert {(message.id, message.body) for message in challenges.messages + ends.messages} < ids
    assert len({message.id for message in everything.messages}) == 7


def test_a_brand_hears_of_its_own_alone(
    acme_bot: Bot, acme_server: AuthorizationServer, rival: Brand, acme_hooks: Receiver, receivers: Receivers
) -> None:
    rivals = receivers.add(rival)
    acme_bot.challenge()
    assert acme_hooks.deliver() == ["challenge.issued"]
    assert rivals.messages == []


def test_without_an_endpoint_an_event_costs_one_query(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    acme_bot.challenge()
    challenge = Challenge.objects.select_related("conversation").get()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        publish_challenge(challenge, timezone.now())
    assert len(queries) == 1
    assert WebhookDelivery.objects.count() == 0


def test_the_sequence_grows_where_the_clock_stands_still_or_goes_back_and_where_a_chat_was_pruned(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver
) -> None:
    noon = timezone.now()
    for moment in (noon, noon, noon - timedelta(minutes=5)):
        with time_machine.travel(moment, tick=False):
            acme_bot.challenge(replace=True)
    acme_hooks.deliver()
    written = [str(event) for event in WebhookDelivery.objects.order_by("pk").values_list("event_uuid", flat=True)]
    Conversation.objects.all().delete()
    with time_machine.travel(noon + timedelta(seconds=1), tick=False):
        acme_bot.challenge()
        acme_hooks.deliver()
    sequences = {message.id: message.payload["sequence"] for message in acme_hooks.messages}
    in_order = [*(sequences[event] for event in written), acme_hooks.messages[-1].payload["sequence"]]
    assert (len(in_order), in_order) == (6, sorted(set(in_order)))
    assert list(sequences)[:5] != written  # as they arrive, they are not in order


def test_a_context_that_cannot_be_read_keeps_nothing_from_ending(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver
) -> None:
    """K2: the sweep would otherwise meet the row every minute, and the chat never get another challenge."""
    acme_bot.challenge(context="resume here")
    Challenge.objects.update(context_ciphertext=b"tampered with", expires_at=timezone.now())
    assert acme_hooks.deliver() == ["challenge.issued", "challenge.expired"]
    assert last_data(acme_hooks)["context"] is None


def test_payload_and_secret_are_stored_as_ciphertext_of_their_row(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_hooks: Receiver
) -> None:
    """K1."""
    acme_bot.challenge(context="planted-context", purpose="planted-purpose")
    stored = everything_stored("conversations_webhook", "brands_webhook")
    assert "challenge.issued" in stored
    planted = ["planted-context", "planted-purpose", acme_hooks.secret, acme_hooks.secret.removeprefix("whsec_")]
    assert [value for value in planted if value in stored] == []


def test_another_account_is_told_as_a_failed_challenge(
    acme_bot: Bot, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """A7."""
    use_openid(acme_server, acme_login)
    authorized(acme_bot, Browser(), acme_login)
    acme_login.subject = "mallory"
    Browser().sign_in(acme_bot.challenge()["url"], acme_login)
    assert acme_hooks.deliver()[-1] == "challenge.failed"
    assert last_data(acme_hooks)["error"] == "subject_mismatch"
