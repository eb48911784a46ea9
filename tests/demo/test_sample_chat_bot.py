"""What the sample bot says and calls, against a small server that plays the product and the brand."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from demo.bot_api import BotApi
from demo.sample_chat.bot import ENDS, ODD, ORDERS_WERE_REFUSED, TROUBLE, Bot
from demo.sample_chat.conversation import Conversation, Conversations

CHALLENGE = {
    "challenge_id": "c-1",
    "status": "issued",
    "url": "http://localhost:8000/c/abc",
    "message": "Please sign in at Acme to continue: http://localhost:8000/c/abc",
}
ORDERS = {"orders": [{"number": "A-1001", "item": "Boots", "status": "On its way"}]}
CALLED = {"response": {"status": 200, "headers": {}, "body_encoding": "json", "body": ORDERS}}
CALL = "POST /calls/orders.list"

RECEIPT = {"conversation_id": "chat-1", "closed_at": "2026-11-22T17:02:08.347777Z", "access_tokens_erased": 1}


class Wire:
    """Answers each call with the next of its planned answers; the last one stays."""

    def __init__(self) -> None:
        self.planned: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        self.calls: list[str] = []
        self.bearers: list[str] = []
        self.sent: list[dict[str, Any]] = []

    def plan(self, call: str, *answers: tuple[int, dict[str, Any]]) -> None:
        self.planned[call] = list(answers)

    def answer(self, call: str, bearer: str, sent: bytes) -> tuple[int, dict[str, Any]]:
        self.calls.append(call)
        self.sent.append(json.loads(sent or b"{}"))
        self.bearers.append(bearer)
        left = self.planned[call]
        if not left:
            return 500, {}
        return left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def bot(wire: Wire) -> Iterator[Bot]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            call = f"{self.command} {self.path.removeprefix('/api/v1/conversations/chat-1').removeprefix('/api')}"
            status, body = wire.answer(call, self.headers["Authorization"], sent)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_POST(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield Bot(BotApi(address, "bot-key"))
        server.shutdown()


@pytest.fixture
def chat() -> Conversation:
    return Conversation(id="chat-1")


def last(chat: Conversation) -> str:
    return chat.messages[-1].text


def test_asked_for_an_order_it_sends_the_link_once_and_the_words_without_it(
    bot: Bot, wire: Wire, chat: Conversation
) -> None:
    wire.plan(CALL, (202, CHALLENGE))
    bot.hear(chat, "Where is my order?")
    assert (last(chat), chat.messages[-1].link) == ("Please sign in at Acme to continue:", CHALLENGE["url"])
    assert wire.bearers == ["Bearer bot-key"]


def test_it_asks_for_the_code_once_when_the_sign_in_is_done(bot: Bot, wire: Wire, chat: Conversation) -> None:
    chat.challenge_id = "c-1"
    wire.plan("GET /v1/challenges/c-1", (200, {"status": "started"}), (200, {"status": "confirmation_needed"}))
    for _ in range(4):
        bot.look(chat)
    assert [message.text for message in chat.messages] == [
        "Thank you. The page you came back to shows six digits: please type them here."
    ]


@pytest.mark.parametrize(
    ("has_script", "prefers_code", "check"),
    [(True, False, "chat_page"), (True, True, "completion_code"), (False, False, "completion_code")],
)
def test_the_chats_own_page_is_named_where_it_can_read_a_fragment(
    bot: Bot, wire: Wire, chat: Conversation, has_script: bool, prefers_code: bool, check: str
) -> None:
    chat.has_script, chat.prefers_code = has_script, prefers_code
    wire.plan(CALL, (202, CHALLENGE))
    bot.hear(chat, "Where is my order?")
    wanted = {"purpose": "to look up your order", "same_person_check": check, "replace": True}
    assert wire.sent == [{"challenge": wanted}]


def test_no_code_is_asked_for_where_the_chats_own_page_comes_back(bot: Bot, wire: Wire, chat: Conversation) -> None:
    chat.challenge_id = "c-1"
    wire.plan("GET /v1/challenges/c-1", (200, {"status": "confirmation_needed", "same_person_check": "chat_page"}))
    bot.look(chat)
    assert chat.messages == []


def test_a_handle_from_the_chats_own_page_is_passed_on_and_the_orders_shown(
    bot: Bot, wire: Wire, chat: Conversation
) -> None:
    wire.plan("POST /completion", (200, {"status": "authorized"}))
    wire.plan(CALL, (200, CALLED))
    bot.take_handle(chat, "the-handle")
    assert (wire.sent[0], chat.messages[-1].orders) == ({"handle": "the-handle"}, tuple(ORDERS["orders"]))


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (409, "other_conversation", "a link of another chat"),
        (422, "handle_unknown", "a little too late"),
        (410, "conversation_closed", "conversation_closed"),
    ],
)
def test_a_handle_that_is_refused_is_explained(
    bot: Bot, wire: Wire, chat: Conversation, status: int, code: str, words: str
) -> None:
    wire.plan("POST /completion", (status, {"code": code}))
    bot.take_handle(chat, "the-handle")
    assert words in last(chat)


@pytest.mark.parametrize("typed", ["493027", "493 027", " 493·027 ", "It is 493-027."])
def test_a_code_is_understood_however_it_is_typed(bot: Bot, wire: Wire, chat: Conversation, typed: str) -> None:
    wire.plan("POST /completion", (200, {"status": "authorized"}))
    wire.plan(CALL, (200, CALLED))
    bot.hear(chat, typed)
    assert wire.calls == ["POST /completion", CALL]
    assert set(wire.bearers) == {"Bearer bot-key"}
    assert chat.messages[-1].orders == tuple(ORDERS["orders"])


def test_a_wrong_code_tells_how_many_tries_are_left(bot: Bot, wire: Wire, chat: Conversation) -> None:
    wire.plan("POST /completion", (422, {"code": "completion_code_incorrect", "attempts_left": 4}))
    bot.hear(chat, "000000")
    assert last(chat) == "That is not the code I expected. Tries left: 4."


def test_a_code_that_nobody_waits_for_is_explained(bot: Bot, wire: Wire, chat: Conversation) -> None:
    wire.plan("POST /completion", (409, {"code": "unchallenged"}))
    bot.hear(chat, "123456")
    assert "not waiting for a code" in last(chat)


def test_a_consumer_whose_sign_in_the_brand_no_longer_accepts_is_asked_again(
    bot: Bot, wire: Wire, chat: Conversation
) -> None:
    wire.plan(CALL, (200, CALLED), (202, CHALLENGE))
    bot.hear(chat, "Where is my order?")
    bot.hear(chat, "Where is my order?")
    assert wire.calls == [CALL, CALL]
    assert chat.messages[-2].text == ORDERS_WERE_REFUSED
    assert chat.messages[-1].link == CHALLENGE["url"]
    bot.hear(chat, "Where is my order?")
    assert [message.text for message in chat.messages].count(ORDERS_WERE_REFUSED) == 1


def test_what_the_brand_answers_is_not_taken_for_an_answer_of_ours(bot: Bot, wire: Wire, chat: Conversation) -> None:
    wire.plan(CALL, (200, {"response": {"status": 409, "body": {"code": "conversation_closed"}}}))
    bot.hear(chat, "Where is my order?")
    assert "HTTP 409" in last(chat)


@pytest.mark.parametrize("status", sorted(ENDS))
def test_each_end_of_a_challenge_is_told_once(bot: Bot, wire: Wire, chat: Conversation, status: str) -> None:
    chat.challenge_id = "c-1"
    wire.plan("GET /v1/challenges/c-1", (200, {"status": status}))
    bot.look(chat)
    bot.look(chat)
    assert [message.text for message in chat.messages] == [ENDS[status]]


def test_a_challenge_that_was_completed_meanwhile_shows_the_orders(bot: Bot, wire: Wire, chat: Conversation) -> None:
    chat.challenge_id = "c-1"
    wire.plan("GET /v1/challenges/c-1", (200, {"status": "completed"}))
    wire.plan(CALL, (200, CALLED))
    bot.look(chat)
    bot.look(chat)
    assert [message.orders for message in chat.messages] == [tuple(ORDERS["orders"])]


def test_a_challenge_that_cannot_be_read_is_told_once(bot: Bot, wire: Wire, chat: Conversation) -> None:
    chat.challenge_id = "c-1"
    wire.plan("GET /v1/challenges/c-1", (404, {"code": "challenge_unknown"}))
    bot.look(chat)
    bot.look(chat)
    assert [message.text for message in chat.messages] == [ODD.format(what="challenge_unknown")]


def test_a_code_for_a_chat_that_was_closed_is_told_by_what_came_back(bot: Bot, wire: Wire, chat: Conversation) -> None:
    chat.challenge_id, chat.awaits_code = "c-1", True
    wire.plan("POST /completion", (410, {"code": "conversation_closed"}))
    bot.hear(chat, "123456")
    assert (last(chat), chat.challenge_id, chat.awaits_code) == (ODD.format(what="conversation_closed"), "", False)


def test_a_chat_that_could_not_be_closed_stays_open(bot: Bot, wire: Wire, chat: Conversation) -> None:
    wire.plan("DELETE ", (503, {}))
    bot.hear(chat, "bye")
    assert (last(chat), chat.is_closed) == (ODD.format(what="HTTP 503"), False)


def test_bye_closes_the_conversation_and_shows_the_receipt(bot: Bot, wire: Wire, chat: Conversation) -> None:
    wire.plan("DELETE ", (200, RECEIPT))
    bot.hear(chat, "bye")
    assert chat.is_closed
    assert last(chat) == "Your receipt: chat chat-1, closed 2026-11-22 at 17:02:08 UTC, access erased: 1."
    bot.hear(chat, "Where is my order?")
    assert wire.calls == ["DELETE "]


def test_a_chat_that_never_asked_for_anything_can_be_closed_too(bot: Bot, wire: Wire, chat: Conversation) -> None:
    wire.plan("DELETE ", (404, {"code": "conversation_unknown"}))
    bot.hear(chat, "Bye")
    assert chat.is_closed


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, "Done. I can no longer see your orders."),
        (409, "You were not signed in"),
        (422, "Something did not go as I expected"),  # the bug: this, too, was told as not signed in
    ],
)
def test_sign_out_ends_the_token(bot: Bot, wire: Wire, chat: Conversation, status: int, words: str) -> None:
    wire.plan("DELETE /token?reason=signed_out", (status, {}))
    bot.hear(chat, "Sign me out")
    assert last(chat).startswith(words)


def test_a_product_that_is_down_is_told_in_a_sentence_and_only_once(chat: Conversation) -> None:
    chat.challenge_id = "c-1"
    bot = Bot(BotApi("http://127.0.0.1:1", "bot-key"))
    bot.look(chat)
    bot.look(chat)
    assert [message.text for message in chat.messages] == [TROUBLE]


def test_an_answer_it_does_not_know_is_told_by_its_code(bot: Bot, wire: Wire, chat: Conversation) -> None:
    wire.plan(CALL, (429, {"code": "too_many_requests"}))
    bot.hear(chat, "Where is my order?")
    assert "too_many_requests" in last(chat)


def test_other_words_get_a_hint(bot: Bot, wire: Wire, chat: Conversation) -> None:
    bot.hear(chat, "Tell me a joke")
    assert "Where is my order?" in last(chat)
    assert wire.calls == []


def test_nothing_said_is_nothing_heard(bot: Bot, chat: Conversation) -> None:
    bot.hear(chat, "")
    assert chat.messages == []


def test_every_chat_has_keys_of_its_own_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.sample_chat.conversation.MOST_CONVERSATIONS", 2)
    chats = Conversations()
    first, second, third = chats.begin(), chats.begin(), chats.begin()
    assert len({first.key, second.key, third.key, first.id, second.id, third.id}) == 6
    assert (chats.find(first.key), chats.find(third.key)) == (None, third)
