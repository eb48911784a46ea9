"""A token that the brand has issued and the database does not take is revoked; one that a conversation holds never is.

Where PostgreSQL goes on, the outbox takes the revocation. Where it does not, the request that holds the token does it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection

from brands.models import AuthorizationServer
from conversations.flow import outcomes, sign_in
from conversations.flow.revocations import MAY_STAY_VALID
from conversations.models import AccessToken, AuthorizationRequest, Conversation, Revocation
from conversations.outbox import worker
from tests.cast import Bot, Browser, code_on, heading_of
from tests.connections import kill_the_kept_connection
from tests.fake_authorization_server import Answer, FakeAuthorizationServer, TokenRequest

pytestmark = pytest.mark.django_db(transaction=True)

THE_SAME: Answer = (200, {"Content-Type": "application/json"}, b'{"access_token":"the-same","token_type":"Bearer"}')
# At the COMMIT of the storing transaction, and of no other: what a deferred trigger does.
KILL_AT_COMMIT = """
CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER end_at_commit AFTER INSERT ON conversations_accesstoken
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION end_session();
"""


@pytest.fixture
def revoking(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return Acme's login with a revocation endpoint."""
    AuthorizationServer.objects.filter(pk=acme_server.pk).update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    return acme_login


@pytest.fixture(autouse=True)
def _a_connection_of_its_own() -> Iterator[None]:
    connection.close()
    yield
    connection.close()


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def revoked(login: FakeAuthorizationServer) -> list[str]:
    """Let the worker do what the outbox holds; return the tokens that the brand was asked to end, by whomever."""
    worker.run_once()
    return [request.parameters["token"] for request in login.revocation_requests]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]


@contextmanager
def conversation_locked() -> Iterator[None]:
    """Hold the conversation's row from another session, as somebody does who went to lunch with an open transaction."""
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1 FROM conversations_conversation FOR UPDATE")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")
            other.close()


def sign_in_while_locked(bot: Bot, browser: Browser, login: FakeAuthorizationServer) -> Any:
    """Sign in; from the exchange on, the conversation is locked by somebody else for longer than anybody waits."""
    authorization_url = browser.begin(bot.challenge()["url"])
    browser.client.raise_request_exception = False
    with conversation_locked():
        sql("SET lock_timeout = '300ms'")
        return browser.come_back(authorization_url, login)


def answer_lost_after_commit() -> Callable[[], None]:
    """Return what commits and loses the connection before the answer; the commits before an exchange are left alone."""
    database: Any = connection
    commit = database._commit

    def commit_and_lose() -> None:
        commit()
        database._commit = commit
        database.close()
        raise OperationalError("server closed the connection unexpectedly")

    return commit_and_lose


def test_a_connection_that_died_between_exchange_and_storing(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer
) -> None:
    """A8: pg_terminate_backend. The transaction was never asked to commit, so nothing is stored for certain."""
    revoking.on_token_request = lambda _: kill_the_kept_connection()
    page = ada.sign_in(acme_bot.challenge()["url"], revoking)
    assert heading_of(page) == "That sign-in did not work"
    assert revoked(revoking) == revoking.issued_access_tokens
    assert not AccessToken.objects.exists()


def test_a_session_that_ends_at_the_commit(acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer) -> None:
    """A8: whether it was stored is found out on a new connection. It was not."""
    sql(KILL_AT_COMMIT)
    try:
        page = ada.sign_in(acme_bot.challenge()["url"], revoking)
    finally:
        sql("DROP FUNCTION end_session CASCADE")
    assert heading_of(page) == "That sign-in did not work"
    assert revoked(revoking) == revoking.issued_access_tokens
    assert not AccessToken.objects.exists()


def test_a_commit_whose_answer_was_lost_is_a_success(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A8. The bug: the stored sign-in was called a failure, and its consumer was sent through another one."""
    database: Any = connection

    def store(*arguments: Any) -> None:
        database._commit = answer_lost_after_commit()
        outcomes.store_result(*arguments)

    monkeypatch.setattr(sign_in, "store_result", store)
    page = ada.sign_in(acme_bot.challenge()["url"], revoking)
    assert acme_bot.complete(code_on(page))[0] == 200
    assert acme_bot.token()[1]["access_token"] == revoking.issued_access_tokens[0]
    assert revoked(revoking) == []
    assert AuthorizationRequest.objects.get().error == ""


def test_a_lock_that_is_not_let_go_of(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A8: the outbox needs that very lock, so the request revokes the token. The bug: it lived on and no row knew."""
    assert sign_in_while_locked(acme_bot, ada, revoking).status_code == 503
    assert [request.parameters["token"] for request in revoking.revocation_requests] == revoking.issued_access_tokens
    assert revoking.revocation_requests[0].headers["Authorization"].startswith("Basic ")
    assert revoked(revoking) == revoking.issued_access_tokens
    assert not Revocation.objects.exists()
    assert revoking.issued_access_tokens[0] not in caplog.text


def test_a_value_that_the_conversation_holds_is_not_revoked(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer
) -> None:
    """A8: some servers hand the same token out again while it lives."""
    revoking.next_token_answer = THE_SAME
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], revoking)))
    revoking.next_token_answer = THE_SAME
    assert sign_in_while_locked(acme_bot, ada, revoking).status_code == 503
    assert revoked(revoking) == []
    assert acme_bot.token()[1]["access_token"] == "the-same"


def test_what_nobody_can_find_out_is_not_revoked_and_is_an_error(
    acme_bot: Bot,
    ada: Browser,
    revoking: FakeAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A8: a COMMIT that was not confirmed, and a conversation that cannot be looked at: a chat may hold the token."""

    def unknown(*_: Any) -> None:
        raise outcomes.CommitUnknown

    monkeypatch.setattr(sign_in, "store_result", unknown)
    assert sign_in_while_locked_throughout(acme_bot, ada, revoking, monkeypatch).status_code == 503
    assert revoked(revoking) == []
    assert MAY_STAY_VALID in errors(caplog)
    (line,) = [line for line in caplog.records if line.getMessage() == MAY_STAY_VALID]
    assert vars(line)["challenge"] == str(Conversation.objects.get().challenges.get().uuid)
    assert revoking.issued_access_tokens[0] not in caplog.text


def sign_in_while_locked_throughout(
    bot: Bot, browser: Browser, login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """As above, on new connections too."""
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", "-c lock_timeout=300ms")
    return sign_in_while_locked(bot, browser, login)


@pytest.mark.parametrize("answer", [(503, {}, b""), (400, {}, b"")])
def test_a_brand_that_does_not_take_the_revocation_either_is_an_error(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    revoking.next_revocation_answers = [answer]
    assert sign_in_while_locked(acme_bot, ada, revoking).status_code == 503
    assert len(revoking.revocation_requests) == 1
    assert MAY_STAY_VALID in errors(caplog)


def test_the_token_goes_to_the_endpoint_that_the_authorization_request_was_begun_with(
    acme_bot: Bot, ada: Browser, revoking: FakeAuthorizationServer, rival_login: FakeAuthorizationServer
) -> None:
    """A8: whoever may edit the endpoint must not be sent a live token. It is changed while the code is exchanged."""

    def move_endpoint(_: TokenRequest) -> None:
        elsewhere = f"{rival_login.issuer}/revoke"
        AuthorizationServer.objects.filter(brand__slug="acme").update(revocation_endpoint=elsewhere)

    revoking.on_token_request = move_endpoint
    assert sign_in_while_locked(acme_bot, ada, revoking).status_code == 503
    assert (len(revoking.revocation_requests), rival_login.revocation_requests) == (1, [])
