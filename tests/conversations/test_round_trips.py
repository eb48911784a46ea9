"""How often a call waits for PostgreSQL, counted on the wire, on a connection that has prepared its statements.

tests/conversations/test_query_counts.py counts the statements.
"""

from collections.abc import Iterator

import pytest
from django.db import connection
from django.test import Client

from brands.models import AuthorizationServer
from conversations.models import AuthorizationRequest, Challenge, Conversation
from infrastructure.models import AuditEvent
from tests.cast import HOST, Bot, Browser, code_on, make_bot
from tests.concurrency import at_once
from tests.conversations.test_query_counts import post
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.wire import Wire, wired

pytestmark = pytest.mark.django_db(transaction=True)

# The first query has the key, the servers, and whether the chat is known. The second has BEGIN, three inserts and
# COMMIT. The share of calls that has been counted for this process is not used up.
CREATE = 2
# Count, find the link; BEGIN, lock and read; insert, update, audit row and COMMIT.
BEGIN = 4
CALLBACK = 8


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, acme_server: AuthorizationServer) -> Iterator[Wire]:
    with wired(monkeypatch) as found:
        yield found


def test_each_call_waits_as_often_as_it_is_meant_to(
    wire: Wire, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    bot = make_bot(acme_server.brand)
    warm_up(bot, acme_login)
    counted = []
    began = wire.trips
    url = bot.challenge()["url"]
    counted.append(wire.trips - began)
    ada.get(url)
    began = wire.trips
    to_brand = post(ada, url)
    counted.append(wire.trips - began)
    returned = f"{acme_login.redirect_uri}?{acme_login.authorize(to_brand['Location'])}"
    began = wire.trips
    ada.get(returned)
    counted.append(wire.trips - began)
    assert counted == [CREATE, BEGIN, CALLBACK]


def warm_up(bot: Bot, login: FakeAuthorizationServer) -> None:
    other, browser = Bot(bot.key, "another-chat"), Browser()
    code_on(browser.sign_in(other.challenge()["url"], login))


def answer_to(bot: Bot) -> tuple[int, str]:
    """Create a challenge as a server answers, which does not pass exceptions on. Return status and code or status."""
    client = Client(SERVER_NAME=HOST, headers={"Authorization": f"Bearer {bot.key}"}, raise_request_exception=False)
    path = f"/api/v1/conversations/{bot.chat}/challenges"
    answer = client.post(path, {}, content_type="application/json", secure=True)
    return answer.status_code, answer.json().get("code") or answer.json()["status"]


def test_a_wire_that_is_cut_before_a_challenge_is_committed_gives_a_503_and_stores_nothing(
    wire: Wire, acme_bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """The inserts travel with COMMIT: the bot may not hear of a challenge that nobody confirmed."""
    wire.cut_at = b"COMMIT"
    assert answer_to(acme_bot) == (503, "unavailable")
    assert not Conversation.objects.exists()
    assert not AuditEvent.objects.filter(kind="challenge.changed").exists()
    assert "challenge.changed" not in {record.message for record in caplog.records}
    assert acme_bot.challenge()["status"] == "issued"


def test_a_challenge_whose_commit_was_not_confirmed_is_not_handed_out(wire: Wire, acme_bot: Bot) -> None:
    """It may be stored. The bot repeats its call, and gets that challenge."""
    wire.cut_at, wire.cut_after = b"COMMIT", True
    assert answer_to(acme_bot)[0] == 503
    assert answer_to(acme_bot)[0] in {200, 201}
    assert Challenge.objects.count() == 1


@pytest.mark.parametrize("at", [b"FOR UPDATE", b"COMMIT"])
def test_a_wire_that_is_cut_while_a_sign_in_begins_gives_a_503_and_stores_nothing(
    wire: Wire, acme_bot: Bot, ada: Browser, at: bytes
) -> None:
    url = acme_bot.challenge()["url"]
    ada.get(url)
    wire.cut_at, ada.client.raise_request_exception = at, False
    assert post(ada, url).status_code == 503
    assert not AuthorizationRequest.objects.exists()
    assert Challenge.objects.get().status == "issued"
    assert post(ada, url).status_code == 303


def test_of_simultaneous_first_calls_of_a_chat_one_creates_it(acme_server: AuthorizationServer) -> None:
    """All of them may have read that there is no such chat. The constraint tells the others at their COMMIT."""
    bots = [make_bot(acme_server.brand, chat="one-chat") for _ in range(4)]

    def create(number: int) -> tuple[int, str]:
        status, challenge = bots[number].in_chat("POST", "/challenges", {})
        return status, challenge["challenge_id"]

    answers = at_once(4, create)
    assert sorted(status for status, _ in answers) == [200, 200, 200, 201]
    assert len({challenge for _, challenge in answers}) == 1
    assert (Conversation.objects.count(), Challenge.objects.count()) == (1, 1)
    assert AuditEvent.objects.filter(kind="challenge.changed").count() == 1
    connection.close()
