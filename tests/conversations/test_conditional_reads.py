"""Conditional reads (RFC 9110 section 13): what has not changed is 304, without a body and not without a key."""

import base64
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey
from infrastructure import rate_limits
from infrastructure.rate_limits import Limit
from tests.cast import Bot, Browser, code_on, make_bot
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

ANOTHER_KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def challenge(acme_bot: Bot, acme_server: AuthorizationServer) -> dict[str, Any]:
    return acme_bot.challenge(context="resume")


@pytest.fixture(params=["challenge", "conversation"])
def path(request: pytest.FixtureRequest, acme_bot: Bot, challenge: dict[str, Any]) -> str:
    """Return the address of each of the two status reads."""
    if request.param == "challenge":
        return f"/challenges/{challenge['challenge_id']}"
    return f"/conversations/{acme_bot.chat}"


def read(bot: Bot, path: str, *tags: str) -> Any:
    return bot.send("GET", path, **({"If-None-Match": ", ".join(tags)} if tags else {}))


def test_what_has_not_changed_is_304_without_a_body(acme_bot: Bot, path: str) -> None:
    """H6: no-store stands beside the tag, which is for the bot's own memory."""
    first = read(acme_bot, path)
    answer = read(acme_bot, path, first["ETag"])
    assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", first["ETag"])
    assert (answer["Cache-Control"], first["Cache-Control"]) == ("no-store", "no-store")
    assert not answer.has_header("Content-Type")
    assert answer["Content-Length"] == first["Content-Length"]  # RFC 9110 section 8.6


def test_seconds_that_pass_are_no_change(acme_bot: Bot, path: str) -> None:
    tag = read(acme_bot, path)["ETag"]
    with time_machine.travel(timezone.now() + timedelta(seconds=600), tick=False):
        assert read(acme_bot, path, tag).status_code == 304


def test_expiring_is_a_change_though_nothing_was_written(acme_bot: Bot, path: str) -> None:
    tag = read(acme_bot, path)["ETag"]
    with time_machine.travel(timezone.now() + timedelta(seconds=901), tick=False):
        answer = read(acme_bot, path, tag)
    assert (answer.status_code, answer["ETag"] == tag) == (200, False)


def test_each_step_has_a_tag_of_its_own(
    acme_bot: Bot, ada: Browser, challenge: dict[str, Any], acme_login: FakeAuthorizationServer, path: str
) -> None:
    tags = [read(acme_bot, path)["ETag"]]
    url = ada.begin(challenge["url"])
    tags.append(read(acme_bot, path)["ETag"])
    page = ada.get(ada.come_back(url, acme_login)["Location"])
    tags.append(read(acme_bot, path)["ETag"])
    acme_bot.complete(code_on(page))
    last = read(acme_bot, path, *tags)
    assert (last.status_code, len({*tags, last["ETag"]})) == (200, 4)


@pytest.mark.parametrize("spelling", ["{}", '"other", {}', '{}, W/"other"', "strong", "*"])
def test_if_none_match_is_a_list_compared_weakly(acme_bot: Bot, path: str, spelling: str) -> None:
    """RFC 9110 section 13.1.2."""
    tag = read(acme_bot, path)["ETag"]
    value = tag.removeprefix("W/") if spelling == "strong" else spelling.format(tag)
    assert read(acme_bot, path, value).status_code == 304


@pytest.mark.parametrize("value", ['W/"other"', "nonsense", '"', "W/", ","])
def test_another_tag_or_nonsense_is_answered_in_full(acme_bot: Bot, path: str, value: str) -> None:
    assert read(acme_bot, path, value).status_code == 200


def test_a_tag_opens_nothing(
    acme_bot: Bot, rival_bot: Bot, acme_server: AuthorizationServer, path: str, challenge: dict[str, Any]
) -> None:
    """G2: 304 comes after key, scope and brand, and every one of them is counted (G8)."""
    tag = read(acme_bot, path)["ETag"]
    nobody = Bot("cdk_0000000000000000_x")
    reader = make_bot(acme_server.brand, BotKey.Scope.TOKEN_READ)
    assert [read(bot, path, tag, "*").status_code for bot in (nobody, reader, rival_bot)] == [401, 403, 404]


@pytest.mark.usefixtures("one_window")
def test_304_is_counted(acme_bot: Bot, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G8."""
    tag = read(acme_bot, path)["ETag"]
    monkeypatch.setattr(rate_limits, "CALLS_PER_KEY", Limit("a-limit-of-its-own", 2, 60))
    assert [read(acme_bot, path, tag).status_code for _ in range(3)] == [304, 304, 429]


def test_a_tag_gives_nothing_away(acme_bot: Bot, path: str, settings: Any) -> None:
    """It is written into logs: without our key nobody can try out which purpose or context it belongs to."""
    first = read(acme_bot, path)["ETag"]
    settings.ENCRYPTION_KEYS = f"another-key:{ANOTHER_KEY},{settings.ENCRYPTION_KEYS}"
    assert read(acme_bot, path)["ETag"] != first


@pytest.mark.parametrize(("what", "first", "again"), [("challenges", 201, 200), ("authorize", 202, 202)])
def test_what_is_issued_has_the_tag_of_its_first_read(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, what: str, first: int, again: int
) -> None:
    """The first long poll slept over what happened between the answer and itself."""
    address = f"/conversations/{acme_bot.chat}/{what}"
    new, same = acme_bot.send("POST", address, {"context": "resume"}), acme_bot.send("POST", address, {})
    path = f"/challenges/{new.json()['challenge_id']}"
    assert (new.status_code, same.status_code) == (first, again)
    assert new["ETag"] == same["ETag"] == read(acme_bot, path)["ETag"]
    ada.begin(new.json()["url"])
    missed = read(acme_bot, f"{path}?wait=25", new["ETag"])
    assert (missed.status_code, missed.json()["status"]) == (200, "started")
    assert acme_bot.send("POST", address, {})["ETag"] == missed["ETag"]
