"""The token in one query: it answers what the step-by-step way would answer with the token, and nothing else."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brands.authentication import PresentedKey, create_bot_key, revoke
from brands.models import AuthorizationServer, BotKey, Brand
from conversations.api import fast_token_read
from conversations.models import AccessToken, Challenge, Conversation
from tests import databases
from tests.cast import ACME_SECRET, Bot, Browser, code_on, make_bot, make_server
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

NAMED = "/token?authorization_server=orders"
READ = "EXECUTE" if databases.chosen() == databases.POSTGRESQL else "SELECT"
NOTED = "EXECUTE" if databases.chosen() == databases.POSTGRESQL else "UPDATE"
Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def ready(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> Bot:
    """Return acme-bot where Ada has signed in and her code was posted: the next read is answered with the token."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    return acme_bot


def sign_in_again(bot: Bot, ada: Browser, login: FakeAuthorizationServer, *, confirm: bool) -> None:
    code = code_on(ada.sign_in(bot.challenge()["url"], login))
    if confirm:
        bot.complete(code)


def both_ways(bot: Bot, what: str = "/token") -> tuple[Answer | None, Answer]:
    """Read the token at once (None where that way has no token) and step by step, at the same moment."""
    looked_up: list[PresentedKey] = []
    real = PresentedKey.live_key

    def watched(presented: PresentedKey, now: datetime) -> BotKey | None:
        looked_up.append(presented)  # only step by step is the key looked up on its own
        return real(presented, now)

    with pytest.MonkeyPatch.context() as patched, time_machine.travel(timezone.now(), tick=False):
        patched.setattr(PresentedKey, "live_key", watched)
        answered = bot.in_chat("GET", what)
        was_at_once = not looked_up and answered[0] == 200
        patched.setattr(fast_token_read, "token_by_one_query", lambda *_: None)
        step_by_step = bot.in_chat("GET", what)
    assert answered == step_by_step
    return (answered if was_at_once else None), step_by_step


def without_servers_scope(bot: Bot, _: Any) -> Bot:
    return make_bot(Brand.objects.get(slug="acme"), "challenge:create", "challenge:read")


def other_brands_bot(bot: Bot, _: Any) -> Bot:
    rival = Brand.objects.create(name="Rival", slug="rival")
    make_server(rival)
    return make_bot(rival)


def other_brands_chat_of_the_same_id(bot: Bot, _: Any) -> Bot:
    rivals = other_brands_bot(bot, None)
    rivals.challenge()
    return rivals


def moved_to_other_brand(bot: Bot, _: Any) -> None:
    rival = Brand.objects.create(name="Rival", slug="rival")
    BotKey.objects.update(brand=rival)
    Conversation.objects.update(brand=rival)
    AuthorizationServer.objects.update(brand=rival)


def server_of_other_brand(bot: Bot, _: Any) -> None:
    rival = Brand.objects.create(name="Rival", slug="rival")
    AccessToken.objects.update(authorization_server=make_server(rival))


def in_another_chat(bot: Bot, _: Any) -> Bot:
    bot.chat = "another"
    bot.challenge()
    AccessToken.objects.update(conversation=Conversation.objects.get(external_id="another"))
    return bot


def update(model: Any, **changes: Any) -> Callable[[Bot, Any], None]:
    return lambda _bot, _ada: model.objects.update(**{name: _now(value) for name, value in changes.items()})


def next_session(bot: Bot, *_: Any) -> None:
    """Close the chat, and begin its next session, in which nobody has signed in."""
    Brand.objects.update(conversation_ids="reused")
    bot.in_chat("DELETE", "?session=1")
    bot.challenge()


def earlier_session(bot: Bot, *_: Any) -> None:
    """Make the chat the second session of its id, after one that was closed."""
    Conversation.objects.update(session=2)
    Conversation.objects.create(brand=Brand.objects.get(), external_id=bot.chat, closed_at=timezone.now())


def _now(value: Any) -> Any:
    return timezone.now() + value if isinstance(value, timedelta) else value


SOON, PAST = timedelta(seconds=100), timedelta(seconds=-1)
UNREADABLE: dict[str, tuple[Callable[[Bot, Any], Any], str, tuple[int, str]]] = {
    "key revoked": (lambda *_: revoke(BotKey.objects.get()), "/token", (401, "invalid_bot_key")),
    "key expired": (update(BotKey, expires_at=PAST), "/token", (401, "invalid_bot_key")),
    "digest of nobody": (update(BotKey, digest=b"x" * 40), "/token", (401, "invalid_bot_key")),
    "brand inactive": (update(Brand, is_active=False), "/token", (401, "invalid_bot_key")),
    "rows moved to another brand": (moved_to_other_brand, "/token", (401, "invalid_bot_key")),
    "key without the scope": (without_servers_scope, "/token", (403, "insufficient_scope")),
    "another brand's key": (other_brands_bot, "/token", (404, "conversation_unknown")),
    "another brand's same chat": (other_brands_chat_of_the_same_id, "/token", (409, "challenged")),
    "conversation closed": (update(Conversation, closed_at=PAST), "/token", (410, "conversation_closed")),
    "pending": (update(AccessToken, confirmed_at=None), "/token", (409, "unchallenged")),
    "ended": (update(AccessToken, ended_at=PAST, end_reason="rejected"), "/token", (409, "rechallenge_required")),
    "expired by the clock": (update(AccessToken, expires_at=PAST), "/token", (409, "rechallenge_required")),
    "too short": (update(AccessToken, expires_at=SOON), "/token?min_ttl=101", (409, "insufficient_lifetime")),
    "server inactive": (update(AuthorizationServer, is_active=False), NAMED, (422, "authorization_server_unknown")),
    "no active server": (
        update(AuthorizationServer, is_active=False), "/token", (422, "authorization_server_unknown"),
    ),
    "unknown server": (lambda *_: None, "/token?authorization_server=x", (422, "authorization_server_unknown")),
    "two servers": (
        lambda *_: make_server(Brand.objects.get(), "loyalty"), "/token", (422, "authorization_server_required"),
    ),
    "other server": (
        lambda *_: make_server(Brand.objects.get(), "loyalty"),
        "/token?authorization_server=loyalty", (409, "unchallenged"),
    ),
    "server of another brand": (server_of_other_brand, NAMED, (409, "unchallenged")),
    "erased": (update(AccessToken, ciphertext=None), "/token", (500, "stored_value_unreadable")),
    "moved to another chat": (in_another_chat, "/token", (500, "stored_value_unreadable")),
    "unknown parameter": (lambda *_: None, "/token?purpose_of=x", (422, "unknown_parameter")),
    "repeated parameter": (lambda *_: None, "/token?min_ttl=1&min_ttl=1", (422, "repeated_parameter")),
    "no purpose": (update(Brand, token_read_purpose_required=True), "/token", (422, "purpose_required")),
    "no purpose code": (lambda *_: None, "/token?purpose=Read%20it", (422, "invalid_purpose")),
    "scope that was not granted": (update(AccessToken, scope=""), "/token?scope=orders.read", (409, "missing_scope")),
    "scope of nobody": (lambda *_: None, "/token?scope=profile", (422, "invalid_scope")),
    "scope too long": (lambda *_: None, "/token?scope=" + "orders.read%20" * 200, (422, "invalid_scope")),
    "scope with a line feed": (lambda *_: None, "/token?scope=orders.read%0A", (422, "invalid_scope")),
    "scope with a foreign space": (lambda *_: None, "/token?scope=%C2%85", (422, "invalid_scope")),
    "another session": (lambda *_: None, "/token?session=2", (409, "session_mismatch")),
    "no session": (lambda *_: None, "/token?session=0", (422, "invalid_session")),
    "an empty session": (lambda *_: None, "/token?session=", (422, "invalid_session")),
    "the last session": (next_session, "/token?session=1", (409, "session_mismatch")),
    "the next session": (next_session, "/token", (409, "challenged")),
    "wrong min_ttl": (lambda *_: None, "/token?min_ttl=3601", (422, "invalid_min_ttl")),
}  # fmt: skip


@pytest.mark.parametrize("situation", UNREADABLE)
def test_what_cannot_be_read_step_by_step_cannot_be_read_at_once(ready: Bot, ada: Browser, situation: str) -> None:
    """G3, K1, G6: the same status and code, whichever way; the reasons come from one place."""
    arrange, what, expected = UNREADABLE[situation]
    caller = arrange(ready, ada)
    at_once, (status, body) = both_ways(caller if isinstance(caller, Bot) else ready, what)
    assert ((status, body["code"]), at_once) == (expected, None)


READABLE: dict[str, tuple[Callable[[Bot, Any], Any], str]] = {
    "as it is": (lambda *_: None, "/token"),
    "named": (lambda *_: None, NAMED),
    "an empty name": (lambda *_: None, "/token?authorization_server="),
    "long enough": (update(AccessToken, expires_at=SOON + timedelta(seconds=5)), "/token?min_ttl=100"),
    "a key that expires later": (update(BotKey, expires_at=SOON), "/token"),
    "an inactive second server": (lambda *_: make_server(Brand.objects.get(), "x", is_active=False), "/token"),
    "with the scope that was granted": (lambda *_: None, "/token?scope=orders.read"),
    "with claims that agreed": (update(AccessToken, matched_claims="phone_number email"), "/token"),
    "with an account": (update(AccessToken, subject_ciphertext=b"sealed"), "/token"),
    "with a purpose": (lambda *_: None, "/token?purpose=order.status"),
    "with the purpose that is demanded": (update(Brand, token_read_purpose_required=True), "/token?purpose=x"),
    "with its session": (lambda *_: None, "/token?session=1"),
    "of a second session": (earlier_session, "/token"),
    "of a second session that is named": (earlier_session, "/token?session=2"),
    "named of two": (lambda *_: make_server(Brand.objects.get(), "loyalty"), NAMED),
    "another brand's server of that key": (other_brands_bot, NAMED),
    "a challenge for another one is open": (lambda bot, _: bot.challenge(), "/token"),
}


@pytest.mark.parametrize("situation", READABLE)
def test_a_readable_token_is_the_same_answer_both_ways(ready: Bot, situation: str) -> None:
    arrange, what = READABLE[situation]
    arrange(ready, None)
    at_once, step_by_step = both_ways(ready, what)
    assert at_once == step_by_step
    assert step_by_step[0] == 200


@pytest.mark.parametrize(
    ("lives", "what", "expected"),
    [
        (100, "/token?min_ttl=100", (200, None)),
        (100, "/token?min_ttl=101", (409, "insufficient_lifetime")),
        (0.5, "/token", (200, None)),
        (0, "/token", (409, "rechallenge_required")),
    ],
)
def test_a_token_is_read_up_to_its_last_moment_both_ways(
    ready: Bot, lives: float, what: str, expected: tuple[int, str | None]
) -> None:
    """A bot may rely on every second that it asks for; at `expires_at` itself it is over."""
    now = timezone.now().replace(microsecond=0)
    AccessToken.objects.update(expires_at=now + timedelta(seconds=lives))
    with time_machine.travel(now, tick=False):
        at_once, (status, body) = both_ways(ready, what)
    assert ((status, body.get("code")), at_once is not None) == (expected, status == 200)


def test_a_key_that_expires_now_has_expired_both_ways(ready: Bot) -> None:
    """G4."""
    now = timezone.now().replace(microsecond=0)
    BotKey.objects.update(expires_at=now)
    with time_machine.travel(now, tick=False):
        at_once, (status, body) = both_ways(ready)
    assert (status, body["code"], at_once) == (401, "invalid_bot_key", None)


def test_each_of_a_brands_keys_reads_at_once(ready: Bot) -> None:
    colleague = make_bot(Brand.objects.get())
    assert all(both_ways(bot)[0] is not None for bot in (ready, colleague))


def test_a_pending_token_beside_a_live_one_is_not_handed_out(
    ready: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A1: until it is confirmed, the old one stays readable."""
    sign_in_again(ready, ada, acme_login, confirm=False)
    assert AccessToken.objects.filter(ended_at=None).count() == 2
    at_once, _ = both_ways(ready)
    assert at_once is not None
    assert at_once[1]["access_token"] == acme_login.issued_access_tokens[0]


@pytest.mark.parametrize("clocks", ["in step", "the second machine's is behind"])
def test_a_replaced_token_is_not_handed_out_and_its_successor_is(
    ready: Bot, ada: Browser, acme_login: FakeAuthorizationServer, clocks: str
) -> None:
    """The bug: confirmed by a machine whose clock was behind, a live token looked older than the one that it replaced.

    Step by step the newest by that moment was taken, which had ended.
    """
    sign_in_again(ready, ada, acme_login, confirm=True)
    if clocks != "in step":
        earlier = timezone.now() - timedelta(minutes=1)
        AccessToken.objects.filter(ended_at=None).update(confirmed_at=earlier)
    at_once, _ = both_ways(ready)
    assert at_once is not None
    assert at_once[1]["access_token"] == acme_login.issued_access_tokens[1]


def test_a_read_is_one_query_and_no_write(ready: Bot) -> None:
    """G6: key, brand, conversation, server and token in one; `last_used_at` is written at most once a minute."""
    ready.token()  # PostgreSQL plans the query once for each connection
    with CaptureQueriesContext(connection) as queries:
        assert ready.token()[0] == 200
    assert [query["sql"].split()[0] for query in queries] == [READ]


def test_the_use_of_a_key_is_noted_at_once_too(ready: Bot) -> None:
    """G4: at most once a minute, and its digest moves to the newest key of the ring."""
    ready.token()
    BotKey.objects.update(last_used_at=None)
    with CaptureQueriesContext(connection) as queries:
        assert ready.token()[0] == 200
    assert [query["sql"].split()[0] for query in queries if "PREPARE " not in query["sql"]] == [READ, NOTED]
    assert BotKey.objects.get().last_used_at is not None


def test_a_revocation_is_effective_at_the_next_read(ready: Bot) -> None:
    """G4, K6: nothing but the text of the query outlives a read."""
    assert ready.token()[0] == 200
    assert ready.in_chat("DELETE", "/token?reason=signed_out")[0] == 200
    assert (ready.token()[0], ready.token()[1]["code"]) == (409, "rechallenge_required")
    row, key = create_bot_key(Brand.objects.get(), "second", BotKey.Scope.values)
    second = Bot(key.reveal())
    assert second.token()[0] == 409
    revoke(row)
    assert second.token()[0] == 401


def test_a_read_writes_its_line_and_the_line_does_not_hold_the_token(ready: Bot, caplog: Any) -> None:
    """G6: who, of which brand and conversation, which token, for what; whichever way it was found."""
    caplog.set_level("INFO", "consumer_delegation.audit")
    caplog.clear()
    both_ways(ready, "/token?purpose=order.status")
    lines = [{name: vars(record).get(name) for name in LINE} for record in caplog.records]
    token = AccessToken.objects.get()
    assert lines == 2 * [
        {
            "msg": "token.read",
            "actor": f"bot:{BotKey.objects.get().public_id}",
            "brand_uuid": str(Brand.objects.get().uuid),
            "conversation_uuid": str(Conversation.objects.get().uuid),
            "access_token_uuid": str(token.uuid),
            "purpose": Challenge.objects.get().purpose,
            "read_purpose": "order.status",
        }
    ]
    assert token.reveal_access_token().reveal() not in json.dumps([vars(line) for line in caplog.records], default=str)
    assert ACME_SECRET not in caplog.text


LINE = ("msg", "actor", "brand_uuid", "conversation_uuid", "access_token_uuid", "purpose", "read_purpose")
