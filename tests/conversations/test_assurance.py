"""What a stronger sign-in has to be (RFC 9470), and what bots are told of any sign-in."""

import json
import time
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
from conversations.models import (
    AccessToken,
    AuthorizationRequest,
    Challenge,
    Conversation,
    Revocation,
    WebhookDelivery,
)
from conversations.timeline import timeline_of
from infrastructure.models import AuditEvent
from tests.brand_api import ORDERS, STRONG, STRONGER, Caller, demanding, sign_in_with, step_up
from tests.cast import Bot, heading_of
from tests.fake_authorization_server import mounted

pytestmark = pytest.mark.django_db

# Of the time when the test runs: an hour after these lines were read, an hour ago was two hours ago.
NOW: Final = timedelta()
AN_HOUR_AGO: Final = -timedelta(hours=1)


def dated(claims: dict[str, Any]) -> dict[str, Any]:
    """Put moments where the claims say how far away from now they are."""
    now = timezone.now()
    return {
        name: int((now + value).timestamp()) if isinstance(value, timedelta) else value
        for name, value in claims.items()
    }


@pytest.mark.parametrize(
    ("parameters", "claims"),
    [
        (f'acr_values="{STRONG}"', {"acr": "urn:acme:loa:1"}),
        (f'acr_values="{STRONG}"', {"acr": f"{STRONG} "}),
        (f'acr_values="{STRONG}"', {"acr": STRONG.upper()}),
        (f'acr_values="{STRONG}"', {"acr": [STRONG]}),
        (f'acr_values="{STRONG} other"', {"acr": f"{STRONG} other"}),
        (f'acr_values="{STRONG}"', {}),
        (f'acr_values="{STRONG}"', {"acr": None}),
        (f'acr_values="{STRONG}"', {"acr": ""}),
        ('acr_values="1"', {"acr": True}),
        ("max_age=0", {"auth_time": ...}),
        ("max_age=0", {"auth_time": AN_HOUR_AGO}),
        ("max_age=60", {"auth_time": AN_HOUR_AGO}),
        (f'acr_values="{STRONG}", max_age=60', {"acr": STRONG, "auth_time": AN_HOUR_AGO}),
        (f'acr_values="{STRONG}", max_age=60', {"acr": "weak", "auth_time": timedelta(seconds=30)}),
    ],
)
def test_a_weaker_or_older_sign_in_is_refused_and_the_old_token_stays(
    parameters: str, claims: dict[str, Any], paying: Caller
) -> None:
    """P33: a server may ignore what it was asked for. What Ada had allowed before, she still has."""
    before = paying.token
    challenge = step_up(paying, demanding(parameters))
    page = sign_in_with(paying, challenge, **dated(claims))

    assert heading_of(page) == "A stronger sign-in is needed"
    facts = paying.bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "assurance_not_met")
    assert paying.bot.status() == ("authorized", None)
    assert AccessToken.objects.get(ended_at=None).reveal_access_token().reveal() == before
    assert paying.token != before
    assert AuditEvent.objects.get(kind="token.discarded").outcome == "assurance_not_met"
    paying.api.play(ORDERS)
    assert paying.call()[0] == 200


def test_the_timeline_says_what_was_demanded_and_what_came(paying: Caller) -> None:
    """P33, P34, J12: an admin sees why a sign-in that worked at the server is refused here."""
    sign_in_with(paying, step_up(paying, demanding(f'acr_values="{STRONG}", max_age=60')), acr="weak", amr=["pwd"])
    challenge = paying.bot.challenge()
    sign_in_with(paying, challenge, acr="weak", amr=["pwd"])
    entries = timeline_of(Conversation.objects.get(), timezone.now()).entries
    lines = {line for entry in entries for line in entry.lines}
    assert {
        f"The API demands that the sign-in is one of: {STRONG}.",
        "The API demands that the sign-in is at most 60 seconds old.",
        "How they signed in (acr; amr): weak; pwd.",
    } <= lines
    titles = [entry.title for entry in entries]
    assert "Challenge failed: assurance_not_met" in titles
    assert "The sign-in failed: assurance_not_met" in titles


def test_a_webhook_tells_the_end_and_how_the_consumer_signed_in(paying: Caller, acme: Brand) -> None:
    """P33, P34."""
    events = ["challenge.failed", "token.issued"]
    create_webhook_endpoint(WebhookEndpoint(brand=acme, url="https://hooks.acme.example/", events=events))
    sign_in_with(paying, step_up(paying), acr="weak")
    sign_in_with(paying, challenge := step_up(paying), acr=STRONG, amr=["hwk"])
    paying.bot.complete(paying.ada.read_code(challenge["url"]))
    rows = WebhookDelivery.objects.order_by("pk")
    failed, issued = (json.loads(row.reveal_payload().reveal())["data"] for row in rows)
    assert (failed["error"], failed["acr_values"]) == ("assurance_not_met", STRONG)
    assert (issued["acr"], issued["amr"]) == (STRONG, ["hwk"])


def test_a_refused_token_is_revoked(paying: Caller) -> None:
    """P33, A8."""
    AuthorizationServer.objects.update(revocation_endpoint=f"{paying.login.issuer}/revoke")
    sign_in_with(paying, step_up(paying), acr="weak")
    assert Revocation.objects.get().reveal_access_token().reveal() == paying.token


@pytest.mark.parametrize(
    ("parameters", "claims"),
    [
        (f'acr_values="urn:acme:loa:3 {STRONG}"', {"acr": STRONG}),
        ('acr_values="2"', {"acr": 2}),
        ("max_age=0", {"auth_time": NOW}),
        ("max_age=60", {"auth_time": NOW}),
        ("max_age=7200", {"auth_time": AN_HOUR_AGO}),
    ],
)
def test_a_sign_in_that_is_what_the_api_demands_passes(parameters: str, claims: dict[str, Any], paying: Caller) -> None:
    """P33."""
    challenge = step_up(paying, demanding(parameters))
    sign_in_with(paying, challenge, **dated(claims))
    assert paying.bot.complete(paying.ada.read_code(challenge["url"]))[0] == 200


def test_a_slow_second_factor_is_not_too_old(paying: Caller) -> None:
    """P33: `max_age` counts from our request. Counted from the callback, whoever read the consent slowly had failed."""
    challenge = step_up(paying, demanding("max_age=0"))
    url = paying.ada.begin(challenge["url"])
    ten_minutes_ago = timezone.now() - timedelta(minutes=10)
    AuthorizationRequest.objects.filter(finished_at=None).update(created_at=ten_minutes_ago)
    paying.login.id_token_changes = {"auth_time": int(time.time()) - 500}
    with mounted(paying.login):
        paying.ada.come_back(url, paying.login)
    assert paying.bot.read_challenge(challenge)["status"] == "confirmation_needed"


def test_after_a_sign_in_that_was_too_weak_the_next_link_is_an_ordinary_one(paying: Caller) -> None:
    """P33: without a second factor, Ada could otherwise not even renew what the API allows without one."""
    sign_in_with(paying, step_up(paying), acr="weak")
    assert paying.bot.challenge()["acr_values"] is None
    paying.api.play(STRONGER)
    assert paying.code() == "step_up_required"
    assert paying.bot.in_chat("POST", "/challenges", {"replace": True})[1]["acr_values"] == STRONG


def test_another_account_is_another_account_however_strong(paying: Caller) -> None:
    """P33, A7: a strong sign-in of Rita's takes nobody's place."""
    challenge = step_up(paying)
    sign_in_with(paying, challenge, acr=STRONG, sub="rita")
    assert paying.bot.read_challenge(challenge)["error"] == "subject_mismatch"


def test_a_server_that_cannot_do_it_says_so_and_the_challenge_stays_open(paying: Caller) -> None:
    """P33, B14: an invented code ends no challenge."""
    challenge = step_up(paying)
    state = parse_qs(urlsplit(paying.ada.begin(challenge["url"])).query)["state"][0]
    query = f"error=unmet_authentication_requirements&state={state}&iss={paying.login.issuer}"
    answer = paying.ada.get(f"{paying.login.redirect_uri}?{query}")
    assert heading_of(paying.ada.get(answer["Location"])) == "A stronger sign-in is needed"
    facts = paying.bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"]) == ("started", "assurance_not_met")


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"acr": STRONG, "amr": ["pwd"]}, (STRONG, ["pwd"])),
        ({"acr": "a b", "amr": "pwd"}, (None, [])),
        ({"acr": "x" * 129, "amr": ["x" * 129, "a b", 1, None, "otp"]}, (None, ["otp"])),
        ({"acr": "\u0000", "amr": ["\ud7ff"]}, (None, [])),
        ({"acr": {"a": 1}, "amr": [f"method-{number:03}" for number in range(100)]}, (None, 23)),
    ],
)
def test_a_token_tells_how_the_consumer_signed_in(claims: Any, told: Any, paying: Caller) -> None:
    """P34: in a form and a length that nobody downstream has to fear."""
    challenge = paying.bot.challenge()
    sign_in_with(paying, challenge, **claims)
    facts = paying.bot.complete(paying.ada.read_code(challenge["url"]))[1]["access_token"]
    methods = facts["amr"] if isinstance(told[1], list) else len(facts["amr"])
    assert (facts["acr"], methods) == told


def test_the_token_read_and_authorize_tell_the_same(paying: Caller, acme_bot: Bot) -> None:
    """P34."""
    now = int(time.time())
    challenge = paying.bot.challenge()
    sign_in_with(paying, challenge, acr=STRONG, amr=["hwk"], auth_time=now)
    paying.bot.complete(paying.ada.read_code(challenge["url"]))
    answers = [acme_bot.token()[1], acme_bot.in_chat("POST", "/authorize", {})[1]]
    names = ("acr", "amr", "auth_time")
    assert [[answer[name] for name in names] for answer in answers] == [[STRONG, ["hwk"], answers[0]["auth_time"]]] * 2
    assert answers[0]["auth_time"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def test_closing_erases_how_the_consumer_signed_in(paying: Caller) -> None:
    """P34, K6."""
    challenge = paying.bot.challenge()
    sign_in_with(paying, challenge, acr=STRONG, amr=["hwk"])
    assert paying.bot.in_chat("DELETE")[0] == 200
    kept = set(AccessToken.objects.order_by().values_list("acr", "amr", "auth_time"))
    assert kept == {("", "", None)}


def test_a_demand_changes_what_the_begun_sign_in_is_checked_for_never(paying: Caller) -> None:
    """P33: the request and the check of its result agree, whatever the API says in between."""
    challenge = step_up(paying)
    url = paying.ada.begin(challenge["url"])
    paying.api.play(demanding('acr_values="weak"'))
    paying.call()
    paying.login.id_token_changes = {"acr": "weak"}
    with mounted(paying.login):
        paying.ada.come_back(url, paying.login)
    assert Challenge.objects.latest("pk").error == "assurance_not_met"
    assert paying.bot.challenge()["acr_values"] == "weak"
