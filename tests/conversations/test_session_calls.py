"""Calls that name a session: a late or repeated one never meets the next person."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations.models import AuditEvent, Conversation, IdempotencyKey
from tests.cast import Bot, Browser
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.reused_ids import authorize, close

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("reused")]


@pytest.fixture
def reused(acme_server: AuthorizationServer) -> None:
    Brand.objects.filter(pk=acme_server.brand_id).update(conversation_ids="reused")


@pytest.mark.parametrize(
    ("method", "what", "body"),
    [
        ("DELETE", "/token?session=1", None),
        ("DELETE", "?session=1", None),
        ("GET", "/token?session=1", None),
        ("GET", "?session=1", None),
        ("POST", "/challenges", {"session": 1}),
        ("POST", "/challenges", {"session": 1, "replace": True}),
        ("POST", "/challenges", {"session": 3}),
        ("POST", "/authorize", {"session": 1}),
        ("POST", "/completion", {"session": 1, "code": "123456"}),
        ("POST", "/completion", {"session": 1, "handle": "x"}),
    ],
)
def test_a_late_call_of_the_last_session_meets_nobody(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, method: str, what: str, body: Any
) -> None:
    """S3: whatever it is, the next person's token and challenge stay as they are."""
    acme_bot.challenge()
    close(acme_bot)
    authorize(acme_bot, ada, acme_login, session=2)
    events = AuditEvent.objects.count()
    status, problem = acme_bot.in_chat(method, what, body)
    assert (status, problem["code"], problem["session"]) == (409, "session_mismatch", 2)
    assert AuditEvent.objects.count() == events
    assert acme_bot.status() == ("authorized", None)
    assert acme_bot.in_chat("GET", "/token?session=2")[0] == 200


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_late_call_before_the_next_session_says_closed(acme_bot: Bot, is_begun: bool) -> None:
    """S3: and a challenge that names the closed session does not begin the next one."""
    acme_bot.challenge()
    close(acme_bot)
    if is_begun:
        acme_bot.challenge()
        close(acme_bot, session=2)
    session = 2 if is_begun else 1
    for method, what, body in (
        ("POST", "/challenges", {"session": session}),
        ("POST", "/authorize", {"session": session}),
        ("GET", f"/token?session={session}", None),
        ("DELETE", f"/token?session={session}", None),
        ("POST", "/completion", {"session": session, "code": "123456"}),
    ):
        assert acme_bot.in_chat(method, what, body)[1]["code"] == "conversation_closed"
    assert Conversation.objects.filter(closed_at=None).count() == 0
    again = acme_bot.in_chat("DELETE", f"?session={session}")
    assert (again[0], again[1]["session"]) == (200, session)


def test_a_challenge_can_name_the_session_that_it_begins(acme_bot: Bot) -> None:
    """S4: sent twice, it begins one session. The second arrives after that one was closed."""
    assert acme_bot.challenge(session=1)["session"] == 1
    close(acme_bot)
    assert acme_bot.challenge(session=2)["session"] == 2
    close(acme_bot, session=2)
    assert acme_bot.in_chat("POST", "/challenges", {"session": 2})[1]["code"] == "conversation_closed"
    assert acme_bot.in_chat("POST", "/challenges", {"session": 1})[1]["session"] == 2
    assert acme_bot.in_chat("POST", "/authorize", {"session": 4})[1]["code"] == "session_mismatch"
    assert Conversation.objects.count() == 2


def test_no_session_but_the_first_begins_an_id(acme_bot: Bot) -> None:
    for what in ("/challenges", "/authorize"):
        status, problem = acme_bot.in_chat("POST", what, {"session": 2})
        assert (status, problem["code"], problem["session"]) == (409, "session_mismatch", None)
    assert not Conversation.objects.exists()


def test_what_ends_something_has_to_name_the_session(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S4."""
    authorize(acme_bot, ada, acme_login)
    acme_bot.challenge()
    for method, what, body in (
        ("DELETE", "", None),
        ("DELETE", "/token", None),
        ("POST", "/completion", {"code": "123456"}),
        ("POST", "/challenges", {"replace": True}),
    ):
        status, problem = acme_bot.in_chat(method, what, body)
        assert (status, problem["code"], problem["next"]["operation"]) == (422, "session_required", "readConversation")
    assert acme_bot.in_chat("POST", "/challenges", {"replace": True, "session": 1})[0] == 201


def test_replace_needs_no_session_if_it_replaces_nothing(acme_bot: Bot) -> None:
    """A bot may always send it: its first challenge of a chat cannot name what has not begun."""
    assert acme_bot.challenge(replace=True)["session"] == 1
    close(acme_bot)
    assert acme_bot.challenge(replace=True)["session"] == 2


def test_a_challenges_own_id_names_its_session(acme_bot: Bot) -> None:
    """S3, S4: a late withdrawal of the last session's challenge leaves the next one's alone."""
    first = acme_bot.challenge()
    close(acme_bot)
    second = acme_bot.challenge()
    status, facts = acme_bot.call("DELETE", f"/challenges/{first['challenge_id']}")
    assert (status, facts["session"], facts["status"]) == (200, 1, "withdrawn")
    for method in ("GET", "DELETE"):
        status, problem = acme_bot.call(method, f"/challenges/{second['challenge_id']}?session=1")
        assert (status, problem["code"], problem["session"], problem["next"]) == (409, "session_mismatch", 2, None)
    assert acme_bot.call("GET", f"/challenges/{second['challenge_id']}?session=2")[1]["status"] == "issued"


@pytest.mark.parametrize("named", ["0", "-1", "1.5", "x", "", "2147483648", "99999999999999999999", "%D9%A1"])
def test_a_session_that_is_no_number_is_refused(acme_bot: Bot, named: str) -> None:
    challenge = acme_bot.challenge()
    for method, what in (("GET", ""), ("DELETE", ""), ("GET", "/token"), ("DELETE", "/token")):
        status, problem = acme_bot.in_chat(method, f"{what}?session={named}")
        assert (status, problem["code"]) == (422, "invalid_session")
    for method in ("GET", "DELETE"):
        assert acme_bot.call(method, f"/challenges/{challenge['challenge_id']}?session={named}")[0] == 422


@pytest.mark.parametrize("named", [0, -1, 1.5, "1", True, 2**31, [1]])
def test_a_body_with_a_session_that_is_no_number_is_refused(acme_bot: Bot, named: Any) -> None:
    for what, more in (("/challenges", {}), ("/authorize", {}), ("/completion", {"code": "123456"})):
        status, problem = acme_bot.in_chat("POST", what, {"session": named, **more})
        assert (status, problem["code"]) == (422, "invalid_request_body")
    assert not Conversation.objects.exists()


def test_a_session_may_be_written_with_a_fraction_of_zero_or_as_null(acme_bot: Bot) -> None:
    """JSON Schema counts 1.0 as an integer."""
    assert acme_bot.in_chat("POST", "/challenges", b'{"session": 1.0}')[0] == 201
    assert acme_bot.in_chat("POST", "/challenges", {"session": None})[0] == 200
    assert acme_bot.in_chat("GET", "?session=01")[0] == 200


def test_a_token_read_may_name_its_session(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """S3: by one query as without it; and however it is written, another session is another answer."""
    authorize(acme_bot, ada, acme_login)
    for named in ("1", "01"):
        status, token = acme_bot.in_chat("GET", f"/token?session={named}")
        assert (status, token["session"]) == (200, 1)
    for named in ("2", "11"):
        assert acme_bot.in_chat("GET", f"/token?session={named}")[1]["code"] == "session_mismatch"


def test_a_repeated_idempotency_key_begins_no_session(acme_bot: Bot) -> None:
    """S5: the network repeats the request of a chat that was closed meanwhile."""
    path, key = f"/conversations/{acme_bot.chat}/challenges", {"Idempotency-Key": "once"}
    assert acme_bot.call("POST", path, {"purpose": "to pay"}, **key)[0] == 201
    close(acme_bot)
    status, problem = acme_bot.call("POST", path, {"purpose": "to pay"}, **key)
    assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert Conversation.objects.count() == 1
    second = acme_bot.challenge()
    assert acme_bot.call("POST", path, {"purpose": "to pay"}, **key)[0] == 422
    assert (
        acme_bot.call("POST", path, {}, **{"Idempotency-Key": "another"})[1]["challenge_id"] == second["challenge_id"]
    )


@pytest.mark.parametrize("ids", [["unique", "reused"], ["reused", "unique", "reused"]])
def test_a_switch_of_the_brand_lets_no_repeated_key_begin_a_session(
    acme_bot: Bot, acme_server: AuthorizationServer, ids: list[str]
) -> None:
    """S5: what counts is what ids are when the request is repeated, and not what they were at the close."""
    path, key = f"/conversations/{acme_bot.chat}/challenges", {"Idempotency-Key": "once"}
    acme_bot.call("POST", path, {}, **key)
    brand = Brand.objects.filter(pk=acme_server.brand_id)
    for before in ids[:-1]:
        brand.update(conversation_ids=before)
    close(acme_bot)
    brand.update(conversation_ids=ids[-1])
    status, problem = acme_bot.call("POST", path, {}, **key)
    assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert Conversation.objects.filter(closed_at=None).count() == 0


def test_after_24_hours_a_key_is_new_in_the_next_session(acme_bot: Bot) -> None:
    """S5: as ever. And the key of a closed session holds nothing but digests."""
    path, key = f"/conversations/{acme_bot.chat}/challenges", {"Idempotency-Key": "once"}
    acme_bot.call("POST", path, {}, **key)
    close(acme_bot)
    with time_machine.travel(timezone.now() + timedelta(hours=24, seconds=1), tick=False):
        status, second = acme_bot.call("POST", path, {}, **key)
    assert (status, second["session"]) == (201, 2)
    assert IdempotencyKey.objects.count() == 1
