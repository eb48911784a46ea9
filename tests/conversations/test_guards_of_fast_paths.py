"""Each condition of the queries that answer before Django's handler: without it, somebody would be answered.

The rows are changed by SQL, one column at a time, so that no other condition refuses instead. A fast path that broke
down would also pass the request on, so that it did not is asked, too.
"""

from datetime import timedelta
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation
from conversations import before_django
from conversations.models import AccessToken, Conversation
from infrastructure import rate_limits
from tests.brand_api import Caller
from tests.cast import HOST, Bot
from web.answered_before import FAILED_BEFORE, RESPONSE_BEFORE

pytestmark = pytest.mark.django_db

CALL, TOKEN, CHALLENGE, CREATE = "call", "token", "challenge", "create"
EVERYWHERE: Final = (CALL, TOKEN, CHALLENGE, CREATE)
LONG_AGO: Final = timezone.now() - timedelta(days=2)
SOON: Final = timezone.now() + timedelta(days=2)
# Which paths a change has to close: the model, the columns, and the paths.
CHANGES: Final[list[tuple[Any, dict[str, Any], tuple[str, ...]]]] = [
    (Brand, {"is_active": False}, EVERYWHERE),
    (BotKey, {"revoked_at": LONG_AGO}, EVERYWHERE),
    (BotKey, {"expires_at": LONG_AGO}, EVERYWHERE),
    (BotKey, {"digest": b"x" * 40}, EVERYWHERE),
    (BotKey, {"scopes": []}, EVERYWHERE),
    (AuthorizationServer, {"is_active": False}, (CALL, TOKEN, CREATE)),
    (Conversation, {"closed_at": LONG_AGO}, (CALL, TOKEN)),
    (AccessToken, {"ended_at": LONG_AGO, "end_reason": "rejected"}, (CALL, TOKEN)),
    (AccessToken, {"confirmed_at": None}, (CALL, TOKEN)),
    (AccessToken, {"expires_at": LONG_AGO}, (CALL, TOKEN)),
    (AccessToken, {"token_type": "DPoP", "dpop_key_ciphertext": b"x"}, (TOKEN,)),
    (AccessToken, {"scope": ""}, (CALL,)),
    (BrandAPI, {"is_active": False}, (CALL,)),
    (BrandAPI, {"host_since": SOON}, (CALL,)),
    (Operation, {"is_active": False}, (CALL,)),
]
CASES: Final = [(model, columns, path) for model, columns, paths in CHANGES for path in paths]


class Body(BytesIO):
    """A body that notes whether somebody waited for it."""

    is_read = False

    def read(self, *arguments: Any) -> bytes:
        self.is_read = True
        return super().read(*arguments)


def environ_of(caller: Caller, path: str, challenge: str) -> dict[str, Any]:
    chat, body = f"/api/v1/conversations/{caller.bot.chat}", Body(b"{}")
    addresses = {
        CALL: ("POST", f"{chat}/calls/orders.list"),
        TOKEN: ("GET", f"{chat}/token"),
        CHALLENGE: ("GET", f"/api/v1/challenges/{challenge}"),
        CREATE: ("POST", "/api/v1/conversations/web:new/challenges"),
    }
    method, address = addresses[path]
    sent = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": "2"} if method == "POST" else {}
    return {
        "REQUEST_METHOD": method, "SERVER_NAME": HOST, "SERVER_PORT": "443", "wsgi.url_scheme": "https",
        "wsgi.input": body, "HTTP_HOST": HOST, "PATH_INFO": address,
        "HTTP_AUTHORIZATION": f"Bearer {caller.bot.key}", **sent,
    }  # fmt: skip


def answered_fast(environ: dict[str, Any]) -> bool:
    """Whether it is answered before Django's handler. Fails if it broke down there."""
    started: list[Any] = []
    list(before_django.before(lambda *_: ())(environ, lambda *start: started.append(start)))
    assert FAILED_BEFORE not in environ
    return bool(started)


@pytest.fixture
def challenge(caller: Caller) -> str:
    """A challenge beside the live token. The key may do everything, and the operation needs the token's scope."""
    BotKey.objects.update(scopes=list(BotKey.Scope.values))
    Operation.objects.update(scope=AccessToken.objects.get().scope)
    return str(caller.bot.challenge()["challenge_id"])


@pytest.mark.parametrize("path", EVERYWHERE)
def test_what_is_all_right_is_answered(path: str, caller: Caller, challenge: str) -> None:
    assert answered_fast(environ_of(caller, path, challenge))


@pytest.mark.parametrize(("model", "columns", "path"), CASES)
def test_each_condition_closes_the_path_and_nothing_is_read_or_sent(
    model: Any, columns: dict[str, Any], path: str, caller: Caller, challenge: str
) -> None:
    """G1, G3, K2, L2, P1, P2, S2: and no body of a stranger is waited for, which would hold a thread."""
    rate_limits.reset_in_process()
    model.objects.update(**columns)
    environ = environ_of(caller, path, challenge)
    body = environ["wsgi.input"]
    assert not answered_fast(environ)
    assert (body.is_read, caller.api.requests) == (False, [])


@pytest.mark.parametrize("path", EVERYWHERE)
def test_a_key_that_expires_now_has_expired(path: str, caller: Caller, challenge: str) -> None:
    """G1."""
    moment = timezone.now()
    with time_machine.travel(moment, tick=False):
        BotKey.objects.update(expires_at=moment)
        assert not answered_fast(environ_of(caller, path, challenge))
        BotKey.objects.update(expires_at=moment + timedelta(microseconds=1))
        assert answered_fast(environ_of(caller, path, challenge))


@pytest.mark.parametrize("path", [CALL, TOKEN])
def test_a_token_that_expires_now_has_expired(path: str, caller: Caller, challenge: str) -> None:
    """K2."""
    moment = timezone.now()
    with time_machine.travel(moment, tick=False):
        AccessToken.objects.update(expires_at=moment)
        assert not answered_fast(environ_of(caller, path, challenge))


def test_another_conversations_token_is_neither_read_nor_sent(caller: Caller, challenge: str) -> None:
    """K1, P1."""
    for path in (CALL, TOKEN):
        environ = environ_of(caller, path, challenge)
        environ["PATH_INFO"] = environ["PATH_INFO"].replace(caller.bot.chat, "web:rita")
        assert not answered_fast(environ)


def test_another_challenge_is_not_read(caller: Caller, challenge: str) -> None:
    """G3."""
    environ = environ_of(caller, CHALLENGE, f"{challenge[:-4]}{'0000' if challenge[-4:] != '0000' else '1111'}")
    assert not answered_fast(environ)


def button(caller: Caller) -> dict[str, str]:
    """What differs in a request of the button, without the form's token."""
    answered = Bot(caller.bot.key, "web:button").challenge()
    address = urlsplit(answered["url"]).path
    return {"CONTENT_TYPE": "application/x-www-form-urlencoded", "PATH_INFO": address}


NO_FORM: Final[list[dict[str, str]]] = [
    {"REQUEST_METHOD": "GET"},
    {"REQUEST_METHOD": "HEAD"},
    {"CONTENT_TYPE": "multipart/form-data; boundary=x"},
    {"CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-16"},
    {"HTTP_TRANSFER_ENCODING": "chunked"},
]


@pytest.mark.parametrize("changes", NO_FORM)
def test_what_is_no_form_of_the_button_is_seen_by_django_alone(
    changes: dict[str, str], caller: Caller, challenge: str
) -> None:
    """B6, B16: no view has run, and no body is read, whose files nobody would close."""
    environ = environ_of(caller, CREATE, challenge) | button(caller) | changes
    assert not answered_fast(environ)
    assert (RESPONSE_BEFORE in environ, environ["wsgi.input"].is_read) == (False, False)


def test_the_button_without_its_forms_token_is_refused_by_the_view_before_django(
    caller: Caller, challenge: str
) -> None:
    """B22: its refusal is kept for the middleware, and is no redirect."""
    environ = environ_of(caller, CREATE, challenge) | button(caller)
    assert not answered_fast(environ)
    assert environ[RESPONSE_BEFORE].status_code == 403


# What other programs may read otherwise than we, or read not at all.
NO_PLAIN_BODY: Final[list[dict[str, str]]] = [
    {"REQUEST_METHOD": "PUT"},
    {"CONTENT_TYPE": "text/plain"},
    {"CONTENT_TYPE": "application/json; charset=utf-16"},
    {"QUERY_STRING": "x=1"},
    {"HTTP_TRANSFER_ENCODING": "chunked"},
    *({"CONTENT_LENGTH": length} for length in ("", "0", "02", "+2", " 2", "2,2", "-1", "99999")),
]


@pytest.mark.parametrize("path", [CALL, CREATE])
@pytest.mark.parametrize("changes", NO_PLAIN_BODY)
def test_a_body_that_is_not_plainly_json_is_left_for_the_full_way(
    path: str, changes: dict[str, str], caller: Caller, challenge: str
) -> None:
    """P4, P10, G8: not a byte of it is read, and nothing is asked or counted."""
    environ = environ_of(caller, path, challenge) | changes
    with CaptureQueriesContext(connection) as asked:
        assert not answered_fast(environ)
    assert (environ["wsgi.input"].is_read, asked.captured_queries) == (False, [])


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize("name", ["SCRIPT_NAME", "SCRIPT_URL", "REDIRECT_URL"])
def test_a_path_whose_beginning_a_server_moved_is_left_for_django(
    name: str, path: str, caller: Caller, challenge: str
) -> None:
    """B16: the URLs see another path then."""
    assert not answered_fast(environ_of(caller, path, challenge) | {name: "/static"})
    pressed = environ_of(caller, CREATE, challenge) | button(caller) | {name: "/static"}
    assert not answered_fast(pressed)
    assert RESPONSE_BEFORE not in pressed


@pytest.mark.parametrize(
    ("ids", "method", "named", "is_accepted"),
    [
        ("unique", "POST", None, True),
        ("unique", "POST", 1, True),
        ("unique", "GET", 2, False),
        ("reused", "POST", None, False),
        ("reused", "POST", 1, True),
        ("reused", "POST", 2, False),
        ("reused", "GET", None, True),
        ("reused", "GET", 2, False),
    ],
)
def test_a_call_that_changes_something_names_the_session_where_ids_are_reused(
    ids: str, method: str, named: int | None, is_accepted: bool, caller: Caller, challenge: str
) -> None:
    """S3, P12."""
    Brand.objects.update(conversation_ids=ids)
    Operation.objects.update(method=method)
    environ = environ_of(caller, CALL, challenge)
    body = b"{}" if named is None else b'{"session": %d}' % named
    environ |= {"wsgi.input": Body(body), "CONTENT_LENGTH": str(len(body))}
    assert answered_fast(environ) is is_accepted
    assert len(caller.api.requests) == int(is_accepted)
