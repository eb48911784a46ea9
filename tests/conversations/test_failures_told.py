"""A failed authorization request is told everywhere alike: audit log, webhook, read and long poll."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands.models import AuthorizationServer, WebhookEndpoint
from conversations.flow.outcomes import record_denial
from conversations.flow.sign_in import begin_sign_in
from conversations.models import AuditEvent, AuthorizationRequest, Challenge, WebhookDelivery
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import Answer, FakeAuthorizationServer
from tests.webhook_receiver import Receiver, Receivers

pytestmark = pytest.mark.django_db

FAILED = "authorization_request.failed"
JSON = {"Content-Type": "application/json"}
PLANTED = "planted-words-of-the-server"


def failures() -> list[tuple[str, str]]:
    return list(AuditEvent.objects.filter(kind=FAILED).order_by("id").values_list("outcome", "actor"))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((503, {}, b""), "temporarily_unavailable"),
        ((401, JSON, b'{"error": "invalid_client"}'), "invalid_client"),
        ((400, JSON, b'{"error": "invalid_grant"}'), "invalid_grant"),
        ((200, JSON, b'{"access_token": "planted-token", "token_type": "mac"}'), "invalid_token_response"),
    ],
)
def test_audit_webhook_and_read_name_the_same_code(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver, answer: Answer, code: str
) -> None:
    """H11. The bug: an exchange that failed was in no audit row, and no webhook told of it."""
    challenge = acme_bot.challenge()
    acme_login.next_token_answer = answer
    ada.sign_in(challenge["url"], acme_login)
    assert failures() == [(code, "system")]
    assert acme_hooks.deliver()[-1] == FAILED
    (told,) = [message.payload["data"] for message in acme_hooks.messages if message.type == FAILED]
    assert (told["last_error"], told["status"]) == (code, "started")
    assert told | {"expires_in": 0} == acme_bot.read_challenge(challenge) | {"expires_in": 0}


def test_a_failed_push_is_told_too(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer, acme_hooks: Receiver
) -> None:
    """H11: the sign-in failed before any browser left for the server."""
    acme_server.pushed_authorization_request_endpoint = f"{acme_login.issuer}/no-such-page"
    acme_server.save()
    acme_bot.challenge()
    begun = begin_sign_in(Challenge.objects.select_related("conversation__brand").get(), timezone.now())
    assert begun is not None
    code = AuthorizationRequest.objects.get().error
    assert (code != "", begun.authorization_url, failures()) == (True, None, [(code, "system")])
    assert FAILED in acme_hooks.deliver()


def test_a_refusal_is_audited_and_told_once_as_the_end_of_its_challenge(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """B14."""
    acme_login.denies = True
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert failures() == []
    assert AuditEvent.objects.filter(kind="challenge.changed").latest("id").outcome == "denied"
    assert (acme_hooks.deliver()[-1], FAILED in acme_hooks.types) == ("challenge.denied", False)


def test_a_refusal_that_came_too_late_to_end_the_challenge_is_audited_too(
    acme_bot: Bot, acme_login: FakeAuthorizationServer
) -> None:
    """B12, H11. The bug: the row of the authorization request said how it ended, and the log had nothing of it."""
    acme_login.denies = True
    Browser().begin(acme_bot.challenge()["url"])
    request = AuthorizationRequest.objects.select_related("challenge__conversation__brand").get()
    acme_bot.challenge(replace=True)
    record_denial(request, PLANTED, timezone.now())
    assert failures() == [("access_denied", "consumer")]


def test_a_failure_beside_a_success_is_audited_and_told_to_no_bot(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """B12: while one tab waits for its token, another one signs in. Reads do not have the failure either."""
    challenge, slow = acme_bot.challenge(), Browser()
    left, signed_in = slow.begin(challenge["url"]), []

    def meanwhile(_: Any) -> None:
        acme_login.on_token_request = None
        signed_in.append(code_on(Browser().sign_in(challenge["url"], acme_login)))
        acme_login.next_token_answer = (503, {}, b"")

    acme_login.on_token_request = meanwhile
    slow.come_back(left, acme_login)
    assert failures() == [("temporarily_unavailable", "system")]
    assert acme_bot.complete(signed_in[0])[0] == 200
    acme_hooks.deliver()
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["last_error"], FAILED in acme_hooks.types) == ("completed", None, False)


def test_neither_row_nor_event_holds_what_the_server_said(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """H8, H11: a server may write a name or a token into its description."""
    acme_login.subject = "planted-subject-9Kq"  # "ada" could be part of a random UUID
    challenge = acme_bot.challenge()
    state = dict(pair.split("=") for pair in acme_login.authorize(ada.begin(challenge["url"])).split("&"))["state"]
    ada.get(f"{acme_login.redirect_uri}?error=invalid_scope&error_description={PLANTED}&state={state}")
    assert failures() == [("invalid_scope", "system")]
    assert PLANTED in AuthorizationRequest.objects.get().error_detail
    acme_hooks.deliver()
    assert [message.type for message in acme_hooks.messages if PLANTED in message.body] == []
    rows = [str(row) for row in AuditEvent.objects.values()]
    assert [row for row in rows if PLANTED in row or acme_login.subject in row or state in row] == []


def test_each_failure_keeps_its_own_words_until_the_conversation_is_closed(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K6. The bug: of two failures of one challenge only the last one's detail was left."""
    url = acme_bot.challenge()["url"]
    for number in (1, 2):
        state = dict(pair.split("=") for pair in acme_login.authorize(ada.begin(url)).split("&"))["state"]
        ada.get(f"{acme_login.redirect_uri}?error=server_error&error_description=words-{number}&state={state}")
    kept = AuthorizationRequest.objects.order_by("id").values_list("error_detail", flat=True)
    assert list(kept) == ["words-1", "words-2"]
    acme_bot.in_chat("DELETE")
    assert list(kept.all()) == ["", ""]


def test_a_failure_after_the_end_of_the_conversation_keeps_no_words(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """K6: it was closed while the code was exchanged."""
    challenge = acme_bot.challenge()
    left = ada.begin(challenge["url"])
    acme_login.next_token_answer = (400, JSON, b'{"error": "invalid_grant", "error_description": "code expired"}')

    def close(_: Any) -> None:
        acme_bot.in_chat("DELETE")

    acme_login.on_token_request = close
    ada.come_back(left, acme_login)
    request = AuthorizationRequest.objects.get()
    assert (request.error, request.error_detail) == ("invalid_grant", "")
    assert failures() == [("invalid_grant", "system")]
    assert FAILED not in acme_hooks.deliver()


def test_context_and_purpose_of_a_failure_are_erased_with_the_conversation(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """K6: its payload is the challenge's, as that of `challenge.*`."""
    url = acme_bot.challenge(context="planted", purpose="planted")["url"]
    acme_login.next_token_answer = (503, {}, b"")
    ada.sign_in(url, acme_login)
    WebhookEndpoint.objects.update(is_active=False)
    acme_bot.in_chat("DELETE")
    delivery = WebhookDelivery.objects.get(event=FAILED)
    assert (delivery.payload_ciphertext, delivery.dead_at is not None) == (None, True)


@pytest.mark.parametrize(
    ("events", "heard"),
    [(("challenge.*",), False), (("authorization_request.*",), True), ((FAILED,), True), (("*",), True)],
)
def test_whoever_chose_other_events_gets_no_new_one(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    receivers: Receivers,
    acme_server: AuthorizationServer,
    events: tuple[str, ...],
    heard: bool,
) -> None:
    hooks = receivers.add(acme_server.brand, "bot.acme.example", events)
    acme_login.next_token_answer = (503, {}, b"")
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    hooks.deliver()
    assert (FAILED in hooks.types) == heard


def test_a_failure_costs_one_audit_row_and_one_look_for_endpoints_more_than_a_return(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    url = acme_bot.challenge()["url"]
    acme_login.next_token_answer = (503, {}, b"")
    returned: Any = f"{acme_login.redirect_uri}?{acme_login.authorize(ada.begin(url))}"
    with CaptureQueriesContext(connection) as queries:
        ada.get(returned)
    asked = [query["sql"] for query in queries if not query["sql"].startswith("PREPARE ")]
    assert len(failures()) == 1
    assert len(asked) == 13
