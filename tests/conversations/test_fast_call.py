"""Where a call is answered: before Django's handler, sent once whatever happens then, and what the full way is left."""

import json
import logging
from io import BytesIO
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands import operation_requests
from brands.models import AuthorizationServer, BrandAPI, Operation
from conversations import before_django
from conversations.api import fast_call, operations
from conversations.models import AccessToken, Conversation
from infrastructure import rate_limits
from infrastructure.logs import current_request_id
from infrastructure.models import RateCounter
from infrastructure.rate_limits import Limit
from tests.brand_api import REFUSED, Caller
from tests.cast import CHAT, HOST
from tests.handler import Handler
from tests.hostile_token_endpoint import http_answer

pytestmark = pytest.mark.django_db


def environ_of(caller: Caller, body: bytes = b"{}") -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST", "SERVER_NAME": HOST, "SERVER_PORT": "443", "wsgi.url_scheme": "https",
        "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json",
        "HTTP_HOST": HOST, "PATH_INFO": f"/api/v1/conversations/{CHAT}/calls/orders.list",
        "HTTP_AUTHORIZATION": f"Bearer {caller.bot.key}",
    }  # fmt: skip


def fast(environ: dict[str, Any]) -> dict[str, Any] | None:
    """Answer by the fast path alone; None if it passes the request on."""
    started: list[Any] = []
    body = before_django.before(lambda *_: ())(environ, lambda *start: started.append(start))
    return json.loads(b"".join(body)) if started else None


def test_a_call_is_answered_before_django_with_one_statement_and_few_with_two(caller: Caller) -> None:
    """One finds everything. Thirty calls are counted at once in the store that all processes share (G8)."""
    fast(environ_of(caller))
    rate_limits.reset_in_process()
    caller.api.requests.clear()
    statements = []
    for _ in range(32):
        with CaptureQueriesContext(connection) as asked:
            answer = fast(environ_of(caller))
        assert answer is not None
        assert (answer["operation"], answer["response"]["body"]) == ("orders.list", {"orders": ["A-1001"]})
        statements.append(len(asked))
    assert (statements, len(caller.api.requests)) == ([2, *[1] * 29, 2, 1], 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"REQUEST_METHOD": "GET"},
        {"wsgi.url_scheme": "http"},
        {"HTTP_HOST": "elsewhere.example"},
        {"HTTP_COOKIE": "a=%00"},
        {"QUERY_STRING": "session=1"},
        {"CONTENT_TYPE": "text/plain"},
        {"CONTENT_TYPE": "application/json; charset=utf-16"},
        {"CONTENT_LENGTH": "70000"},
        {"CONTENT_LENGTH": ""},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"SCRIPT_NAME": "/static"},
        {"HTTP_AUTHORIZATION": "Bearer cdk_x"},
        {"HTTP_X_PURPOSE": "NO"},
        {"PATH_INFO": f"/api/v1/conversations/{CHAT}/calls/orders.delete"},
        {"PATH_INFO": f"/api/v1/conversations/{CHAT}/calls/orders.list/"},
        {"PATH_INFO": "/api/v1/conversations/../calls/orders.list"},
    ],
)
def test_what_something_else_has_to_judge_is_neither_counted_nor_sent(caller: Caller, changes: dict[str, str]) -> None:
    """B16, G2, P1."""
    before = list(RateCounter.objects.values_list("times"))
    assert fast(environ_of(caller) | changes) is None
    assert (list(RateCounter.objects.values_list("times")), caller.api.requests) == (before, [])


def test_a_token_of_another_server_of_the_brand_is_not_sent(caller: Caller) -> None:
    """P1, P2: the query found the conversation's token, of whatever server."""
    login = AuthorizationServer.objects.get()
    other = AuthorizationServer.objects.create(
        brand=login.brand, key="other", issuer="https://other.acme.example",
        authorization_endpoint="https://other.acme.example/a", token_endpoint="https://other.acme.example/t",
    )  # fmt: skip
    BrandAPI.objects.update(authorization_server=other)
    assert fast(environ_of(caller)) is None
    assert (caller.code(), caller.api.requests) == ("unchallenged", [])


def test_the_full_way_reads_the_body_that_was_read_before_it(caller: Caller) -> None:
    """A body that asks for a challenge, too, is left to the full way."""
    environ = environ_of(caller, b'{"challenge": {}}')
    assert fast(environ) is None
    assert environ["wsgi.input"].read() == b'{"challenge": {}}'
    assert caller.call(challenge={})[0] == 200


def test_what_fails_after_the_call_was_sent_is_a_500_and_not_sent_again(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P8: the full way would send it a second time."""

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(fast_call, "document", fail)
    answer = Handler()(environ_of(caller))
    assert (answer.status_code, json.loads(answer.content)["code"]) == (500, "internal_error")
    assert len(caller.api.requests) == 1
    assert [record.levelname for record in caplog.records if record.name == "django.request"] == ["ERROR"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (REFUSED, "rechallenge_required"),
        (http_answer(b"", status=403, WWW_Authenticate='Bearer error="insufficient_scope"'), "missing_scope"),
        (b"nonsense\r\n\r\n", "api_unreachable"),
    ],
)
def test_a_refusal_is_one_request_with_the_id_of_its_log_line(
    caller: Caller, caplog: pytest.LogCaptureFixture, answer: bytes, code: str
) -> None:
    """P8, P9: answer and line had different ids, as the handler gives each request a new one."""
    caplog.set_level(logging.INFO)
    ids: list[str] = []
    caller.api.play(answer)
    noted = logging.getLogger("consumer_delegation.audit")

    class Ids(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ids.append(current_request_id())

    handler = Ids()
    noted.addHandler(handler)
    refused = Handler()(environ_of(caller))
    noted.removeHandler(handler)
    assert (json.loads(refused.content)["code"], len(caller.api.requests)) == (code, 1)
    assert ids[0] == refused["X-Request-Id"]


def test_a_token_that_is_deleted_while_the_api_refuses_it_is_no_fault(caller: Caller) -> None:
    """P9: a row that the clean-up took in those seconds."""
    caller.api.play(REFUSED)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fast_call, "presented_token", lambda _: None)
        assert caller.code() == "authorized"


def test_a_database_that_is_away_is_asked_once(caller: Caller) -> None:
    asked: list[str] = []

    def away(_: Any, sql: str, *__: Any) -> None:
        asked.append(sql)
        raise OperationalError

    with connection.execute_wrapper(away):
        answer = Handler()(environ_of(caller))
    assert (answer.status_code, answer["Retry-After"], len(asked)) == (503, "30", 1)
    assert caller.api.requests == []


def test_a_call_over_the_limit_is_counted_once_and_not_sent(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """G8."""
    RateCounter.objects.all().delete()
    monkeypatch.setattr(rate_limits, "CALLS_PER_KEY", Limit("calls-per-key", 1, 60))
    assert (caller.call()[0], caller.call()[1]["code"], len(caller.api.requests)) == (200, "rate_limited", 1)
    assert list(RateCounter.objects.values_list("times", flat=True)) == [2]


def test_a_token_that_cannot_be_decrypted_is_not_sent(caller: Caller) -> None:
    """K2."""
    AccessToken.objects.update(ciphertext=b"x")
    assert (caller.code(), caller.api.requests) == ("stored_value_unreadable", [])


def test_a_changed_declaration_holds_at_the_next_call(caller: Caller) -> None:
    """P4: what is prepared from a declaration is kept by its text."""
    assert caller.call(arguments={"limit": 10})[0] == 200
    Operation.objects.update(parameters=[])
    assert caller.code(arguments={"limit": 10}) == "arguments_invalid"
    assert len(caller.api.requests) == 1


def test_a_call_over_the_limit_is_refused_before_its_arguments_are_checked(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8, P14: each refused call took up to 0.4 s of the processor, and one with bad arguments was checked twice."""
    checked: list[Any] = []
    monkeypatch.setattr(operations, "request_for", lambda *given: checked.append(given))
    monkeypatch.setattr(rate_limits, "CALLS_PER_KEY", Limit("calls-per-key", 0, 60))
    assert (caller.code(arguments={"limit": "x"}), checked) == ("rate_limited", [])


def test_bad_arguments_are_counted_and_checked_once(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """G8, P14."""
    monkeypatch.setattr(rate_limits, "CALLS_PER_KEY", Limit("counted-one-by-one", 100, 60))
    RateCounter.objects.all().delete()
    checked: list[Any] = []
    check = operation_requests.request_for

    def count(*given: Any) -> Any:
        checked.append(given)
        return check(*given)

    monkeypatch.setattr(operations, "request_for", count)
    status, problem = caller.call(arguments={"limit": "x"})
    assert (status, problem["code"], problem["pointer"]) == (422, "arguments_invalid", "/arguments/limit")
    assert (len(checked), list(RateCounter.objects.values_list("times", flat=True))) == (1, [1])


def test_a_token_of_an_older_session_is_not_sent(caller: Caller) -> None:
    """S2, S3: in rows that SQL has changed. A newer session is closed, and only that one counts."""
    old = Conversation.objects.get()
    Conversation.objects.create(
        brand=old.brand, external_id=old.external_id, session=old.session + 1, closed_at=timezone.now()
    )
    assert fast(environ_of(caller)) is None
    assert (caller.code(), caller.api.requests) == ("conversation_closed", [])


@pytest.mark.parametrize(
    "column", ["null", "5", '"10.0.0.0/8"', "{}", "[1e400]", "1" + "0" * 400, "[" * 900 + "]" * 900]
)
def test_private_networks_that_cannot_be_read_allow_nothing_and_end_no_call(caller: Caller, column: str) -> None:
    """N14: a column that SQL has filled. Numbers that JSON allows and no float holds were a 500 at each call."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE brands_brand SET private_networks = %s", [column])
    assert fast(environ_of(caller)) is not None
    assert Handler().django(environ_of(caller)).status_code == 200
