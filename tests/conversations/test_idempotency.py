"""`Idempotency-Key`: a challenge asked for twice is one challenge, and what is kept for that gives nothing away."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow import retention
from conversations.flow.errors import IdempotencyKeyReused
from conversations.flow.idempotency import IdempotentRequest, remember_request
from conversations.flow.retention import sweep
from conversations.models import Challenge, Conversation, IdempotencyKey
from infrastructure.crypto import key_ring
from tests.cast import Bot, Browser, code_on, make_bot
from tests.concurrency import at_once
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.limits import pause
from tests.stored import everything_stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("acme_server")]

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


def ask(bot: Bot, key: str = KEY, **body: Any) -> tuple[int, dict[str, Any]]:
    """Ask for a challenge with an Idempotency-Key."""
    return bot.call("POST", f"/conversations/{bot.chat}/challenges", body, **{"Idempotency-Key": key})


def later(**delta: float) -> Any:
    return time_machine.travel(timezone.now() + timedelta(**delta), tick=False)


def test_a_repeated_request_gets_the_challenge_of_its_first_time(acme_bot: Bot) -> None:
    status, first = ask(acme_bot, purpose="to pay")
    assert status == 201
    status, second = ask(acme_bot, purpose="to pay")
    assert (status, second | {"expires_in": 0}) == (200, first | {"expires_in": 0})
    assert Challenge.objects.count() == 1


def test_the_first_challenge_of_a_chat_is_remembered(acme_bot: Bot) -> None:
    """The short way of a new conversation left the key out: once its challenge had ended, a repeat made another."""
    first = ask(acme_bot)[1]
    acme_bot.call("DELETE", f"/challenges/{first['challenge_id']}")
    status, again = ask(acme_bot)
    assert (status, again["challenge_id"], Challenge.objects.count()) == (200, first["challenge_id"], 1)


def test_replace_is_not_repeated(acme_bot: Bot) -> None:
    """A lost answer, sent again: the link that the consumer has got meanwhile still works."""
    before = acme_bot.challenge()
    first = ask(acme_bot, replace=True)[1]
    assert first["challenge_id"] != before["challenge_id"]
    status, second = ask(acme_bot, replace=True)
    assert (status, second["url"]) == (200, first["url"])
    assert acme_bot.read_challenge(first)["status"] == "issued"


def test_a_challenge_that_was_handed_out_is_remembered_too(acme_bot: Bot) -> None:
    live = acme_bot.challenge()
    assert ask(acme_bot)[1]["challenge_id"] == live["challenge_id"]
    acme_bot.call("DELETE", f"/challenges/{live['challenge_id']}")
    status, again = ask(acme_bot)
    assert (status, again["challenge_id"], again["status"]) == (200, live["challenge_id"], "withdrawn")


@pytest.mark.parametrize("ending", ["withdrawn", "superseded", "completed", "expired"])
def test_one_that_has_ended_says_how_and_has_no_link(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, ending: str
) -> None:
    first = ask(acme_bot)[1]
    match ending:
        case "withdrawn":
            acme_bot.call("DELETE", f"/challenges/{first['challenge_id']}")
        case "superseded":
            acme_bot.challenge(replace=True)
        case "completed":
            acme_bot.complete(code_on(ada.sign_in(first["url"], acme_login)))
    with later(seconds=901 if ending == "expired" else 1):
        status, again = ask(acme_bot)
    assert (status, again["challenge_id"], again["status"]) == (200, first["challenge_id"], ending)
    assert (again["url"], again["message"]) == (None, None)


def test_a_repeated_request_uses_up_no_new_challenge(acme_bot: Bot) -> None:
    """G8: five new ones in ten minutes, and the sixth call is a repeated one."""
    keys = [f"key-{number}" for number in range(5)]
    asked = [ask(acme_bot, key, replace=True) for key in keys]
    assert [status for status, _ in asked] == [201] * 5
    assert [ask(acme_bot, key, replace=True)[0] for key in keys] == [200] * 5
    assert ask(acme_bot, "key-6", replace=True)[0] == 429


@pytest.mark.parametrize("spelling", [b'{"replace":false,"purpose":"to pay"}', b' {"purpose" : "to pay"} '])
def test_spelling_a_body_otherwise_makes_no_other_request_of_it(acme_bot: Bot, spelling: bytes) -> None:
    path, headers = f"/conversations/{acme_bot.chat}/challenges", {"Idempotency-Key": KEY}
    first = ask(acme_bot, purpose="to pay")[1]
    status, again = acme_bot.call("POST", path, spelling, **headers)
    assert (status, again["challenge_id"]) == (200, first["challenge_id"])


def test_another_body_or_conversation_is_refused(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    ask(acme_bot, purpose="to pay")
    other = make_bot(acme_server.brand, chat="web:other")
    for bot, purpose in ((acme_bot, "to look up your order"), (other, "to pay")):
        status, problem = ask(bot, purpose=purpose)
        assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert (Challenge.objects.count(), Conversation.objects.count()) == (1, 1)


def test_keys_are_a_brands_own(
    acme_bot: Bot, acme_server: AuthorizationServer, rival_bot: Bot, rival_server: AuthorizationServer
) -> None:
    first = ask(acme_bot)[1]
    status, theirs = ask(rival_bot)
    assert (status, theirs["challenge_id"] != first["challenge_id"]) == (201, True)
    colleague = make_bot(acme_server.brand)
    assert ask(colleague)[1]["challenge_id"] == first["challenge_id"]


def test_after_24_hours_a_key_is_new_again(acme_bot: Bot) -> None:
    first = ask(acme_bot)[1]
    with later(hours=23, minutes=59):
        assert ask(acme_bot)[1]["challenge_id"] == first["challenge_id"]
    with later(hours=24, seconds=1):
        status, second = ask(acme_bot, purpose="another body")
        assert (status, second["challenge_id"] != first["challenge_id"]) == (201, True)
        assert ask(acme_bot, purpose="another body")[1]["challenge_id"] == second["challenge_id"]
    assert IdempotencyKey.objects.count() == 1


def test_the_sweep_forgets_keys_after_24_hours_in_chunks(acme_bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNK", 2)
    for number in range(5):
        ask(acme_bot, f"key-{number}")
    with later(hours=23, minutes=59):
        sweep(timezone.now())
        assert IdempotencyKey.objects.count() == 5
        ask(acme_bot, "younger")
    with later(hours=24, seconds=1):
        sweep(timezone.now())
        kept = IdempotencyKey.objects.get()
    assert key_ring().recognises(kept.digest, "idempotency-key", kept.brand.uuid.bytes, "younger")


def test_closing_a_conversation_keeps_its_keys_for_their_24_hours(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """S5: a repeated request neither opens the closed chat nor means another one."""
    ask(acme_bot)
    acme_bot.in_chat("DELETE")
    assert ask(acme_bot)[1]["code"] == "conversation_closed"
    assert ask(make_bot(acme_server.brand, chat="web:other"))[1]["code"] == "idempotency_key_reused"
    with later(hours=24, seconds=1):
        sweep(timezone.now())
    assert not IdempotencyKey.objects.exists()


@pytest.mark.parametrize(
    "key", ["", " ", "with space", "über", "x" * 256, '"unclosed', '""', '"a"b', '"a\\b"', '"x";a=1']
)
def test_a_malformed_key_is_refused(acme_bot: Bot, key: str) -> None:
    status, problem = ask(acme_bot, key)
    assert (status, problem["code"]) == (422, "invalid_idempotency_key")
    assert not Challenge.objects.exists()


def test_the_drafts_quoted_form_is_the_same_key(acme_bot: Bot) -> None:
    """draft-ietf-httpapi-idempotency-key-header section 2.1; RFC 8941 section 3.3.3."""
    for bare, quoted in ((KEY, f'"{KEY}"'), ('a"b\\c', '"a\\"b\\\\c"'), ("x" * 255, f'"{"x" * 255}"')):
        pause()
        first = ask(acme_bot, bare, replace=True)
        again = ask(acme_bot, quoted, replace=True)
        assert (first[0], again[0], again[1]["challenge_id"]) == (201, 200, first[1]["challenge_id"])


def test_no_other_call_looks_at_the_header(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """No stored answer may ever hold a token: the call that answers with one keeps nothing."""
    headers = {"Idempotency-Key": "not one " * 40}
    path = f"/conversations/{acme_bot.chat}"
    status, challenge = acme_bot.call("POST", f"{path}/authorize", {}, **headers)
    assert status == 202
    code = code_on(ada.sign_in(challenge["url"], acme_login))
    assert acme_bot.call("POST", f"{path}/completion", {"code": code}, **headers)[0] == 200
    assert acme_bot.call("POST", f"{path}/authorize", {}, **headers)[0] == 200
    assert acme_bot.call("GET", f"{path}/token", **headers)[0] == 200
    assert not IdempotencyKey.objects.exists()


def test_nothing_that_was_sent_or_answered_is_kept(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K1: two keyed digests, the brand's and the challenge's id, and the moment."""
    first = ask(acme_bot, purpose="to pay my rent", context="planted-context")[1]
    acme_bot.complete(code_on(ada.sign_in(first["url"], acme_login)))
    ask(acme_bot, purpose="to pay my rent", context="planted-context")
    (token,) = acme_login.issued_access_tokens
    stored = everything_stored("conversations_idempotencykey")
    for value in (KEY, "rent", "planted-context", acme_bot.chat, token, first["url"].rsplit("/", 1)[1]):
        assert value not in stored
    columns = {field.column for field in IdempotencyKey._meta.concrete_fields}
    assert columns == {"id", "brand_id", "digest", "request_digest", "challenge_id", "created_at"}


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_with_one_key_make_one_challenge(acme_bot: Bot) -> None:
    answers = at_once(20, lambda _: ask(acme_bot, replace=True))
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert len({challenge["challenge_id"] for _, challenge in answers}) == 1
    assert (Challenge.objects.count(), IdempotencyKey.objects.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_of_two_conversations_at_once_with_one_key_one_gets_its_challenge(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """Each holds its own lock: the constraint decides, and nothing of the loser's is left behind."""
    for number in range(10):
        bots = [make_bot(acme_server.brand, chat=f"web:{number}-{which}") for which in range(2)]
        answers = at_once(2, lambda which, bots=bots, key=f"key-{number}": ask(bots[which], key))  # type: ignore[misc]
        assert sorted((status, body.get("code")) for status, body in answers) == [
            (201, None),
            (422, "idempotency_key_reused"),
        ]
    assert (Challenge.objects.count(), Conversation.objects.count(), IdempotencyKey.objects.count()) == (10, 10, 10)


def test_a_key_that_another_chat_kept_between_look_and_insert_is_refused(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    """The race above, without its luck: SQLite lets no second writer look before the first has ended."""
    ask(acme_bot)
    kept = IdempotencyKey.objects.values().get()
    make_bot(acme_server.brand, chat="web:other").challenge()
    theirs = Challenge.objects.select_related("conversation__brand").get(conversation__external_id="web:other")
    request = IdempotentRequest(KEY, b"{}")
    with pytest.raises(IdempotencyKeyReused):
        remember_request(theirs.conversation, request, theirs, timezone.now())
    assert list(IdempotencyKey.objects.values()) == [kept]


@pytest.mark.django_db(transaction=True)
def test_authorize_twenty_times_at_once_is_one_challenge_and_one_link(acme_bot: Bot) -> None:
    """`authorize` needs no key: the live challenge is its answer for as long as it lives."""
    answers = at_once(20, lambda _: acme_bot.in_chat("POST", "/authorize", {"min_ttl": 60}))
    assert [status for status, _ in answers] == [202] * 20
    assert len({(challenge["challenge_id"], challenge["url"]) for _, challenge in answers}) == 1
    assert Challenge.objects.count() == 1
    status, again = acme_bot.in_chat("POST", "/authorize", {"min_ttl": 60})
    assert (status, again["url"]) == (202, answers[0][1]["url"])


def test_authorize_asks_anew_where_the_token_does_not_live_long_enough(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    acme_login.expires_in = 600
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    assert acme_bot.in_chat("POST", "/authorize", {"min_ttl": 500})[0] == 200
    with time_machine.travel(timezone.now() + timedelta(seconds=200), tick=False):
        first, second = (acme_bot.in_chat("POST", "/authorize", {"min_ttl": 500}) for _ in range(2))
        assert (first[0], second[0], second[1]["url"]) == (202, 202, first[1]["url"])
        assert acme_bot.token()[0] == 200
