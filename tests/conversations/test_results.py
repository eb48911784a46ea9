"""What an authorization request comes to: in its own row, in the challenge's, in the audit log and in the logs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.models import AccessToken, AuditEvent, AuthorizationRequest, Challenge, Revocation
from tests.cast import Bot, Browser, code_on, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

REFUSED = (401, {"Content-Type": "application/json"}, b'{"error": "invalid_client"}')


def denied(_: Bot, login: FakeAuthorizationServer) -> None:
    login.denies = True


def failed(_: Bot, login: FakeAuthorizationServer) -> None:
    login.next_token_answer = REFUSED


def without_a_place_to_go(bot: Bot, login: FakeAuthorizationServer) -> None:
    def replace(_: object) -> None:
        bot.challenge(replace=True)

    login.on_token_request = replace


def of_another_account(_: Bot, login: FakeAuthorizationServer) -> None:
    login.subject = "somebody-else"


def succeeded(_: Bot, __: FakeAuthorizationServer) -> None:
    """Leave everything as it is."""


@pytest.fixture
def signed_in_before(acme_bot: Bot, ada: Browser, acme_server: Any, acme_login: FakeAuthorizationServer) -> None:
    """Have Ada's account bound to the chat, at a brand that takes tokens back."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))


@pytest.mark.usefixtures("signed_in_before")
@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (denied, "access_denied"),
        (failed, "invalid_client"),
        (without_a_place_to_go, "challenge_ended"),
        (of_another_account, "subject_mismatch"),
        (succeeded, ""),
    ],
)
def test_an_authorization_request_ends_at_its_moment_with_its_reason_and_what_its_exchange_needed_is_erased(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    prepare: Callable[[Bot, FakeAuthorizationServer], None],
    error: str,
) -> None:
    """B14, K7."""
    now = timezone.now()
    with time_machine.travel(now, tick=False):
        authorization_url = ada.begin(acme_bot.challenge()["url"])
        prepare(acme_bot, acme_login)
        ada.come_back(authorization_url, acme_login)
    authorization_request = AuthorizationRequest.objects.latest("id")
    assert (authorization_request.claimed_at, authorization_request.finished_at, authorization_request.error) == (
        now,
        now,
        error,
    )
    assert (authorization_request.nonce_digest, authorization_request.code_verifier_ciphertext) == (None, None)


def test_a_try_that_failed_stands_in_the_log_and_in_the_admin_with_its_detail(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    acme_login.next_token_answer = REFUSED
    challenge = acme_bot.challenge()
    ada.sign_in(challenge["url"], acme_login)
    (line,) = [record for record in caplog.records if record.name == "consumer_delegation.sign_in"]
    assert (line.levelname, line.getMessage()) == ("WARNING", "sign-in failed")
    told = {name: vars(line)[name] for name in ("error", "detail", "challenge")}
    detail = "HTTP status 401, error invalid_client"
    assert told == {"error": "invalid_client", "detail": detail, "challenge": challenge["challenge_id"]}
    assert list(Challenge.objects.values_list("last_error", "last_error_detail")) == [("invalid_client", detail)]


def test_a_challenge_that_ended_during_a_try_that_failed_has_no_trouble_to_tell_of(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The bot withdrew it: what a server said to a try that nobody waits for any more is no news."""
    challenge = acme_bot.challenge()
    authorization_url = ada.begin(challenge["url"])

    def withdraw(_: object) -> None:
        acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")

    acme_login.on_token_request, acme_login.next_token_answer = withdraw, REFUSED
    ada.come_back(authorization_url, acme_login)
    facts = acme_bot.read_challenge(challenge)
    assert (len(acme_login.token_requests), facts["status"], facts["last_error"]) == (1, "withdrawn", None)


@pytest.mark.usefixtures("signed_in_before")
@pytest.mark.parametrize(
    ("prepare", "outcome"), [(without_a_place_to_go, "challenge_ended"), (of_another_account, "subject_mismatch")]
)
def test_a_token_that_was_thrown_away_is_audited_and_waits_to_be_revoked(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    prepare: Callable[[Bot, FakeAuthorizationServer], None],
    outcome: str,
) -> None:
    """A7, A8: by us, for a reason, at the moment at which its authorization request ended.

    It has no row, and so no id.
    """
    authorization_url = ada.begin(acme_bot.challenge()["url"])
    prepare(acme_bot, acme_login)
    ada.come_back(authorization_url, acme_login)
    authorization_request = AuthorizationRequest.objects.select_related("challenge__conversation__brand").latest("id")
    event = AuditEvent.objects.get(kind="token.discarded")
    assert (event.actor, event.outcome, event.at) == ("system", outcome, authorization_request.finished_at)
    waiting = Revocation.objects.values_list("access_token_uuid", "created_at", "next_attempt_at")
    assert list(waiting) == [(authorization_request.uuid, event.at, event.at)]
    assert ids_of(event) == ids_of_challenge(authorization_request.challenge) | {"access_token_uuid": None}


@pytest.mark.parametrize(("check", "actor"), [("none", "consumer"), ("completion_code", "bot")])
def test_a_token_that_can_be_read_is_audited_with_who_made_it_so(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, check: str, actor: str
) -> None:
    """The consumer where nothing is left to check, else the bot that posts the code."""
    AuthorizationServer.objects.update(same_person_checks=[check])
    page = ada.sign_in(acme_bot.challenge()["url"], acme_login)
    if actor == "bot":
        acme_bot.complete(code_on(page))
    token = AccessToken.objects.select_related("challenge__conversation__brand").get()
    completed = AuditEvent.objects.get(kind="challenge.changed", outcome="completed")
    issued = AuditEvent.objects.get(kind="token.issued")
    assert AuthorizationRequest.objects.get().finished_at == token.issued_at
    assert (issued.actor.partition(":")[0], issued.outcome) == (actor, check)
    assert (issued.at, completed.at, completed.actor) == (token.confirmed_at, token.confirmed_at, issued.actor)
    assert ids_of(issued) == ids_of_challenge(token.challenge) | {"access_token_uuid": token.uuid}


def ids_of(event: AuditEvent) -> dict[str, UUID | None]:
    names = ("brand_uuid", "conversation_uuid", "challenge_uuid", "access_token_uuid")
    return {name: getattr(event, name) for name in names}


def ids_of_challenge(challenge: Challenge) -> dict[str, UUID | None]:
    conversation = challenge.conversation
    return {
        "brand_uuid": conversation.brand.uuid,
        "conversation_uuid": conversation.uuid,
        "challenge_uuid": challenge.uuid,
    }


@pytest.mark.parametrize("step", ["cancelled", "withdrawn", "denied", "confirmation_needed"])
def test_a_step_of_a_challenge_writes_down_what_the_clock_has_ended_beside_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, step: str
) -> None:
    """K6: a token is erased by whatever comes first after its end, and not by the sweep alone."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    challenge = acme_bot.challenge()
    authorization_url = ada.begin(challenge["url"])
    AccessToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    acme_login.denies = step == "denied"
    {
        "cancelled": lambda: ada.press(challenge["url"], "/cancel"),
        "withdrawn": lambda: acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}"),
    }.get(step, lambda: ada.come_back(authorization_url, acme_login))()
    assert acme_bot.read_challenge(challenge)["status"] == step
    first = AccessToken.objects.earliest("id")
    assert (first.end_reason, first.ciphertext) == ("expired", None)
