"""The timeline of a conversation: one list of what happened, with cause and remedy, and nothing that is secret."""

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.failures_in_words import duration_in_words
from conversations.models import (
    AccessToken,
    AuditEvent,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
    WebhookDelivery,
)
from conversations.outbox import worker
from oauth_client import MEANINGS, ErrorCode
from tests.admin_pages import AdminBrowser, House, address
from tests.cast import Bot, Browser, code_on, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

START = datetime(2030, 1, 1, 12, 30, 7, tzinfo=UTC)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def admin(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


def page_of(admin: AdminBrowser) -> str:
    return str(admin.get(address(Conversation, "change", Conversation.objects.get())).content.decode())


def timeline(admin: AdminBrowser) -> list[str]:
    """Return the text of each entry, the oldest first."""
    shown = page_of(admin).partition('class="steps"')[2].partition("</ol>")[0]
    texts = [html.unescape(re.sub(r"<[^>]+>", " ", entry)) for entry in shown.split("<li ")[1:]]
    return [" ".join(text.partition(">")[2].split()) for text in texts][::-1]


def titles(admin: AdminBrowser) -> list[str]:
    """Return the entries without time, lines and links."""
    return [re.split(r" \d{4}-\d\d-\d\d", entry)[0] for entry in timeline(admin)]


def failed(admin: AdminBrowser) -> str:
    (entry,) = [entry for entry in timeline(admin) if entry.startswith("Problem: The sign-in failed")]
    return entry


def test_a_journey_is_one_list_with_seconds_and_names(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver, admin: AdminBrowser
) -> None:
    """Everything in its order, each step once, by whom, and where it is told in more detail."""
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    with time_machine.travel(START, tick=False) as clock:
        url = acme_bot.challenge()["url"]
        clock.shift(5)
        left = ada.begin(url)
        clock.shift(20)
        page = ada.get(ada.come_back(left, acme_login)["Location"])
        clock.shift(10)
        acme_bot.complete(code_on(page))
        clock.shift(60)
        acme_bot.in_chat("DELETE", "/token?reason=signed_out")
        clock.shift(1)
        worker.run_once()
        admin = AdminBrowser(admin.user)
        assert titles(admin) == [
            "Conversation begun",
            "Challenge issued",
            "Webhook challenge.issued to bot.acme.example",
            "The consumer pressed the button",
            "The browser left for orders",
            "Webhook challenge.started to bot.acme.example",
            "Signed in, same-person check open",
            "The browser came back after 20.0 seconds",
            "Access token received",
            "Webhook challenge.confirmation_needed to bot.acme.example",
            "Challenge completed",
            "The bot can read the token (check: completion_code)",
            "Webhook token.issued to bot.acme.example",
            "Webhook challenge.completed to bot.acme.example",
            "Note: Access token ended: signed_out",
            "Webhook token.ended to bot.acme.example",
            "The server has revoked the token",
        ]
        shown = timeline(admin)
    assert "2030-01-01 12:30:07 , by the bot key" in shown[1]
    assert "2030-01-01 12:30:12 , by the consumer" in shown[3]
    assert "2030-01-01 12:31:43 , by this product" in shown[-1]


def test_each_entry_leads_to_its_rows(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver, admin: AdminBrowser
) -> None:
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    page = page_of(admin)
    for model in (Challenge, AccessToken, AuthorizationServer, WebhookDelivery, AuditEvent):
        url = address(model, "change", model._default_manager.first())
        assert f'href="{url}"' in page.partition('class="steps"')[2]
        assert admin.get(url).status_code == 200


@pytest.mark.parametrize("code", [code for code in ErrorCode if code != ErrorCode.ACCESS_DENIED])
def test_every_code_has_its_cause_and_what_to_do(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, admin: AdminBrowser, code: ErrorCode
) -> None:
    now = timezone.now()
    ada.begin(acme_bot.challenge()["url"])
    AuthorizationRequest.objects.update(claimed_at=now, finished_at=now, error=code, error_detail="words <b>")
    entry, meaning = failed(admin), MEANINGS[code]
    assert f"The sign-in failed: {code} " in entry
    assert meaning.cause.replace("*", "").replace("`", "") in entry
    assert f"What to do: {meaning.remedy.replace('*', '').replace('`', '')}" in entry
    assert "Detail: words <b>" in entry
    assert "words <b>" not in page_of(admin)  # escaped


def test_each_of_two_failures_keeps_its_own_words(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    """The bug: the admin saw the last one alone."""
    url = acme_bot.challenge()["url"]
    for number in (1, 2):
        state = dict(pair.split("=") for pair in acme_login.authorize(ada.begin(url)).split("&"))["state"]
        ada.get(f"{acme_login.redirect_uri}?error=server_error&error_description=words-{number}&state={state}")
    failures = [entry for entry in timeline(admin) if "server_error" in entry]
    assert [f"Detail: words-{number}" in entry for number, entry in enumerate(failures, 1)] == [True, True]


def test_a_scope_that_was_not_granted_is_shown_beside_the_one_that_was_asked_for(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    AuthorizationServer.objects.update(required_scope="orders.read")
    acme_login.granted_scope = "profile"
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    entry = failed(admin)
    assert "not granted: orders.read" in entry
    assert "Required scope in our request: orders.read" in entry


def test_another_issuer_is_shown_beside_ours(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    use_openid(AuthorizationServer.objects.get(), acme_login)
    acme_login.id_token_changes = {"iss": f"{acme_login.issuer}/"}
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    entry = failed(admin)
    assert f"found {acme_login.issuer}/" in entry
    assert f"Issuer in our request: {acme_login.issuer}" in entry


def test_settings_that_were_changed_meanwhile_are_shown_with_both_values_and_of_addresses_the_host(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    """C4: a path or a query may hold a secret; an extra parameter may, too."""
    left = ada.begin(acme_bot.challenge()["url"])
    AuthorizationServer.objects.update(
        required_scope="orders.read",
        token_endpoint="https://other.acme.example/planted-path",
        extra_authorization_parameters={"tenant": "planted-value"},
    )
    ada.come_back(left, acme_login)
    entry = failed(admin)
    assert "Required scope: empty in the request, orders.read now" in entry
    assert "Token address (token endpoint): login.acme.example in the request, other.acme.example now" in entry
    assert "Extra parameters differs from the settings of now." in entry
    assert "planted" not in entry


def test_a_redirect_uri_that_is_not_registered_is_shown_to_be_copied(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, admin: AdminBrowser
) -> None:
    """The server shows its own error page, and no answer ever reaches us."""
    ada.begin(acme_bot.challenge()["url"])
    (entry,) = [entry for entry in timeline(admin) if "nothing came back" in entry]
    assert entry.startswith("Waiting: The browser left for orders; nothing came back")
    assert f"register this redirect URI there: {acme_server.redirect_uri}" in entry
    with time_machine.travel(timezone.now() + timedelta(hours=1)):
        admin.sign_in_again()
        assert any(entry.startswith("Note: The browser left for orders") for entry in timeline(admin))


def test_a_refusal_is_no_problem_and_names_the_servers_words(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    """B14."""
    state = dict(pair.split("=") for pair in acme_login.authorize(ada.begin(acme_bot.challenge()["url"])).split("&"))
    ada.get(f"{acme_login.redirect_uri}?error=access_denied&error_description=No&state={state['state']}")
    assert titles(admin)[-2:] == ["Note: The sign-in ended: access_denied", "Note: Challenge denied"]
    assert "Detail: No" in timeline(admin)[-2]


def test_an_exchange_that_was_cut_off_says_so(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, admin: AdminBrowser
) -> None:
    """B11: no row says that it failed, the clock does."""
    ada.begin(acme_bot.challenge()["url"])
    AuthorizationRequest.objects.update(claimed_at=timezone.now() - timedelta(seconds=5))
    assert "Waiting: The code is being exchanged" in titles(admin)
    AuthorizationRequest.objects.update(claimed_at=timezone.now() - timedelta(seconds=31))
    assert "Problem: The sign-in has no result" in titles(admin)


def test_what_the_clock_has_ended_is_shown_as_ended(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    """Whatever the sweep has done yet."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.challenge()
    now = timezone.now()
    AccessToken.objects.update(issued_at=now - timedelta(hours=1), expires_at=now)
    Challenge.objects.filter(status=ChallengeStatus.ISSUED).update(expires_at=now)
    assert {"Note: Challenge expired", "Note: Access token ended: expired"} <= set(titles(admin))


def test_an_account_that_is_another_one_is_told_without_naming_either(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    """J9, A7."""
    use_openid(AuthorizationServer.objects.get(), acme_login)
    acme_login.subject = "planted-first"
    acme_bot.complete(code_on(Browser().sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_login.subject = "planted-second"
    Browser().sign_in(acme_bot.challenge()["url"], acme_login)
    shown = titles(admin)
    assert "Problem: Challenge failed: subject_mismatch" in shown
    assert "Problem: The sign-in failed: subject_mismatch" in shown
    assert "planted" not in page_of(admin)


def test_no_secret_is_on_the_page(houses: tuple[House, House]) -> None:
    """J9, J12: tokens, subjects, codes, link, context, state and what they are stored as."""
    acme, rival = houses
    page = html.unescape(acme.admin.get(address(Conversation, "change", acme.row(Conversation))).content.decode())
    assert "Access token received" in page
    assert [name for name, value in acme.secrets.items() if value in page] == []
    assert [mark for mark in rival.marks if mark in page] == []


def test_the_page_is_bounded_in_length_and_queries(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, acme_hooks: Receiver, admin: AdminBrowser
) -> None:
    """J12: a bot that asks all day must not make a page of megabytes."""
    acme_bot.complete(code_on(Browser().sign_in(acme_bot.challenge()["url"], acme_login)))
    assert queries(admin) <= 15
    challenge = Challenge.objects.get()
    template = {field.name: getattr(challenge, field.name) for field in Challenge._meta.concrete_fields}
    del template["id"]
    made = Challenge.objects.bulk_create(
        Challenge(**(template | {"uuid": f"00000000-0000-4000-8000-{n:012d}", "link_token_digest": b"%d" % n}))
        for n in range(60)
    )
    AuditEvent.objects.bulk_create(
        AuditEvent(
            kind="challenge.changed", outcome="expired", actor="system", brand_uuid=challenge.conversation.brand.uuid,
            conversation_uuid=challenge.conversation.uuid, challenge_uuid=row.uuid,
        )
        for row in made for _ in range(4)
    )  # fmt: skip
    assert queries(admin) <= 15
    assert len(timeline(admin)) <= 300
    assert "Older entries are not shown." in page_of(admin)


def queries(admin: AdminBrowser) -> int:
    with CaptureQueriesContext(connection) as asked:
        page_of(admin)
    return len(asked)


def test_an_error_whose_request_is_deleted_is_shown_from_the_challenge(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    """B8: of many authorization requests the oldest rows go."""
    acme_login.next_token_answer = (503, {}, b"")
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    AuthorizationRequest.objects.all().delete()
    (entry,) = [entry for entry in timeline(admin) if entry.startswith("Problem: The last sign-in failed")]
    assert MEANINGS[ErrorCode.TEMPORARILY_UNAVAILABLE].cause in entry
    assert "Detail: HTTP status 503" in entry


def test_a_dead_webhook_and_a_failed_revocation_are_problems(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver, admin: AdminBrowser
) -> None:
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.in_chat("DELETE", "/token")
    assert "Waiting: A revocation waits for the server" in titles(admin)
    acme_login.next_revocation_answers = [(400, JSON, b'{"error": "unsupported_token_type"}')]
    worker.run_once()
    WebhookDelivery.objects.filter(event="token.ended").update(
        dead_at=timezone.now(), delivered_at=None, last_outcome="answered 500"
    )
    shown = timeline(admin)
    (revocation,) = [entry for entry in shown if "The revocation failed" in entry]
    assert "unsupported_token_type" in revocation
    assert f"What to do: {MEANINGS[ErrorCode.UNSUPPORTED_TOKEN_TYPE].remedy}" in revocation
    (webhook,) = [entry for entry in shown if "Webhook token.ended" in entry]
    assert webhook.startswith("Problem: Webhook token.ended to bot.acme.example")
    assert "Last answer: answered 500. It can be replayed" in webhook


def test_a_token_that_was_discarded_is_told_once(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, admin: AdminBrowser
) -> None:
    """A8: the challenge was withdrawn while the code was exchanged."""
    challenge, browser = acme_bot.challenge(), Browser()
    left = browser.begin(challenge["url"])

    def withdraw(_: Any) -> None:
        acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")

    acme_login.on_token_request = withdraw
    browser.come_back(left, acme_login)
    (ended,) = [entry for entry in timeline(admin) if "challenge_ended" in entry]
    assert ended.startswith("Note: The sign-in ended: challenge_ended")
    assert "by this product" in ended


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 seconds"), (59.9, "59.9 seconds"), (61, "1 minute 1 second"), (184.3, "3 minutes 4 seconds")],
)
def test_a_long_sign_in_is_said_in_minutes(seconds: float, words: str) -> None:
    """The bug: after three minutes the page said 184.3 seconds."""
    assert duration_in_words(timedelta(seconds=seconds)) == words
