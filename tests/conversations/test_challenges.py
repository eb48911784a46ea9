"""Challenges from the bot's side, before any consumer comes."""

import re
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AuditEvent, Challenge
from tests.cast import CHAT, Bot

pytestmark = pytest.mark.django_db


def test_a_challenge_says_all_a_bot_needs_to_send_it(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    now = timezone.now().replace(microsecond=0)
    with time_machine.travel(now, tick=False):
        challenge = acme_bot.challenge(purpose="to look up your order", locale="en", context='{"step": 3}')
    url, message, challenge_id = challenge.pop("url"), challenge.pop("message"), challenge.pop("challenge_id")
    assert challenge_id == str(Challenge.objects.get().uuid)
    assert message == f"Please sign in at Acme to continue: {url}"
    assert challenge == {
        "conversation_id": CHAT,
        "session": 1,
        "authorization_server": "orders",
        "status": "issued",
        "error": None,
        "last_error": None,
        "same_person_check": "completion_code",
        "scope": "orders.read",
        "acr_values": None,
        "max_age": None,
        "purpose": "to look up your order",
        "locale": "en",
        "context": '{"step": 3}',
        "issued_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "started_at": None,
        "confirmation_needed_at": None,
        "completed_at": None,
        "ended_at": None,
        "expires_at": (now + timedelta(minutes=15)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expires_in": 900,
    }


def test_the_link_holds_one_random_value_and_nothing_about_anybody(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """A5."""
    parts = urlsplit(acme_bot.challenge()["url"])
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("https", "delegation.test", "", "")
    assert re.fullmatch(r"/c/[A-Za-z0-9_-]{27}", parts.path)


def test_the_link_is_built_from_configuration_never_from_the_host_header(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """B16."""
    _, challenge = acme_bot.call("POST", f"/conversations/{CHAT}/challenges", Host="localhost")
    assert challenge["url"].startswith("https://delegation.test/c/")
    assert acme_bot.send("GET", "/challenges/x", Host="evil.example").status_code == 400


def test_the_same_challenge_is_handed_back_while_it_lives(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    first = acme_bot.challenge(purpose="to look up your order", context="first")
    status, second = acme_bot.in_chat("POST", "/challenges", {"purpose": "something else", "context": "second"})
    assert status == 200
    assert second | {"expires_in": 0} == first | {"expires_in": 0}
    assert Challenge.objects.count() == 1


def test_a_challenge_that_differs_is_refused_with_a_way_on(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    AuthorizationServer.objects.update(scope="orders.read orders.write")
    first = acme_bot.challenge(scope="orders.read")
    status, problem = acme_bot.in_chat("POST", "/challenges", {"scope": "orders.write"})
    assert (status, problem["code"], problem["challenge_id"]) == (409, "challenge_differs", first["challenge_id"])


def test_replacing_ends_the_old_challenge(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """A10."""
    first = acme_bot.challenge()
    second = acme_bot.challenge(replace=True)
    assert second["url"] != first["url"]
    status, facts = acme_bot.call("GET", f"/challenges/{first['challenge_id']}")
    assert (status, facts["status"]) == (200, "superseded")
    assert list(Challenge.objects.filter(status="issued")) == [Challenge.objects.get(uuid=second["challenge_id"])]


def test_an_expired_challenge_is_expired_without_any_job(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    first = acme_bot.challenge()
    with time_machine.travel(timezone.now() + timedelta(seconds=901), tick=False):
        _, facts = acme_bot.call("GET", f"/challenges/{first['challenge_id']}")
        assert (facts["status"], facts["expires_in"], facts["ended_at"]) == ("expired", 0, first["expires_at"])
        _, authorization = acme_bot.in_chat("GET")
        assert authorization["authorization_servers"][0]["status"] == "unchallenged"
        second = acme_bot.challenge()
        _, facts = acme_bot.call("GET", f"/challenges/{first['challenge_id']}")
        assert (facts["status"], facts["ended_at"]) == ("expired", first["expires_at"])
    assert second["challenge_id"] != first["challenge_id"]


def test_withdrawing_ends_it_and_says_how_it_ended_ever_after(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    path = f"/challenges/{acme_bot.challenge()['challenge_id']}"
    assert acme_bot.call("DELETE", path)[1]["status"] == "withdrawn"
    assert acme_bot.call("DELETE", path)[1]["status"] == "withdrawn"
    assert acme_bot.in_chat("GET")[1]["authorization_servers"][0]["status"] == "unchallenged"


@pytest.mark.django_db(transaction=True)
def test_each_change_is_audited_without_anything_typed(
    acme_bot: Bot, acme_server: AuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    challenge = acme_bot.challenge(purpose="my secret disease", context="typed")
    acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    written = AuditEvent.objects.exclude(conversation_uuid=None)  # the bot's key has an event of its own
    events = list(written.order_by("id").values("kind", "outcome", "brand_uuid", "challenge_uuid"))
    common = {"brand_uuid": acme_server.brand.uuid, "challenge_uuid": Challenge.objects.get().uuid}
    assert events == [
        {"kind": "challenge.changed", "outcome": "issued", **common},
        {"kind": "challenge.changed", "outcome": "withdrawn", **common},
    ]
    assert "disease" not in repr(list(written.values()))
    assert all(event.actor.startswith("bot:") for event in written)
    assert [record.message for record in caplog.records if record.name.endswith("audit")] == ["challenge.changed"] * 2


def test_a_new_challenge_ends_and_is_audited_by_the_moment_that_it_was_issued_at(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """One reading of the clock for all that one call writes."""
    acme_bot.challenge()
    challenge = Challenge.objects.get()
    assert challenge.expires_at - challenge.issued_at == timedelta(minutes=15)
    assert AuditEvent.objects.get(kind="challenge.changed").at == challenge.issued_at


def test_a_bot_may_ask_for_less_but_openid_stays(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """A7: without an ID token nobody could be held to the same person."""
    AuthorizationServer.objects.update(scope="openid orders.read orders.write", required_scope="orders.read")
    assert acme_bot.challenge(scope="orders.read")["scope"] == "openid orders.read"
    status, problem = acme_bot.in_chat("POST", "/challenges", {"scope": "orders.write", "replace": True})
    assert (status, problem["code"]) == (422, "invalid_scope")
