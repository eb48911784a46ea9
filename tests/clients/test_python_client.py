"""The Python client: a whole conversation with the product, and what it does if an answer is late, lost or odd."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest

from brands.models import AuthorizationServer
from consumer_delegation import (
    AccessToken,
    AsyncDelegation,
    CallResult,
    Challenge,
    CodeIncorrect,
    ConversationClosed,
    Delegation,
    KeyRefused,
    NoAnswer,
    NotFound,
    NothingToConfirm,
    NoToken,
    RateLimited,
    RequestRefused,
    ServiceFailed,
    StepUpRequired,
    Unavailable,
    UnreadableAnswer,
)
from tests.brand_api import ORDERS, STRONG, STRONGER, Caller, sign_in_with
from tests.cast import Bot, Browser, code_on
from tests.clients.product import BASE, client_of
from tests.contract import document
from tests.fake_authorization_server import FakeAuthorizationServer

KEY = "cd_test.planted-key-1"


@pytest.mark.django_db
def test_a_conversation_from_link_to_close(acme_bot: Bot, acme_login: FakeAuthorizationServer, ada: Browser) -> None:
    with client_of(acme_bot) as delegation:
        with pytest.raises(NotFound):
            delegation.token(acme_bot.chat)
        challenge = delegation.authorize(acme_bot.chat, purpose="to look up your order", min_ttl=30, context="order 1")
        assert isinstance(challenge, Challenge)
        assert challenge.waits_for_sign_in
        assert str(challenge.url) in str(challenge.message)
        with pytest.raises(NoToken) as none:
            delegation.token(acme_bot.chat)
        assert none.value.next
        assert none.value.next.operation == "readChallenge"
        with pytest.raises(NothingToConfirm):
            delegation.complete(acme_bot.chat, "123456")
        code = code_on(ada.sign_in(str(challenge.url), acme_login))
        waited = delegation.wait(challenge, timeout=5)
        assert (waited.status, waited.context, waited.waits_for_code) == ("confirmation_needed", "order 1", True)
        with pytest.raises(CodeIncorrect) as wrong:
            delegation.complete(acme_bot.chat, f"{(int(code) + 1) % 1_000_000:06}", session=1)
        assert wrong.value.attempts_left == 4
        assert delegation.complete(acme_bot.chat, code, session=1).status == "authorized"
        token = delegation.authorize(acme_bot.chat, purpose="to look up your order", min_ttl=30)
        assert isinstance(token, AccessToken)
        assert token == delegation.token(acme_bot.chat, min_ttl=30, session=1)
        (server,) = delegation.conversation(acme_bot.chat).authorization_servers
        assert (server.status, server.challenge) == ("authorized", None)
        assert delegation.end_token(acme_bot.chat, "rejected", session=token.session).end_reason == "rejected"
        assert delegation.close(acme_bot.chat, session=1).status == "closed"
        with pytest.raises(ConversationClosed):
            delegation.authorize(acme_bot.chat)


@pytest.mark.django_db
def test_the_operations_are_listed(caller: Caller) -> None:
    with client_of(caller.bot) as delegation:
        first, *_ = delegation.operations()
    assert (first.name, first.read_only, first.session_required) == ("orders.list", True, False)
    assert first.input_schema["properties"]["arguments"]["properties"]["limit"]["maximum"] == 50


@pytest.mark.django_db
def test_all_pages_of_the_operations_are_read(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conversations.api.operations.MAX_LISTED_OPERATIONS", 1)
    with client_of(caller.bot) as delegation:
        assert [each.name for each in delegation.operations()] == ["orders.list", "orders.note", "orders.read"]


@pytest.mark.django_db
def test_a_call_is_the_link_first_and_then_what_the_api_says(caller: Caller) -> None:
    """P10: a result and a challenge are classes of their own, and the API's status is not ours."""
    caller.bot.in_chat("DELETE", "/token?reason=signed_out")
    with client_of(caller.bot) as delegation:
        with pytest.raises(NoToken):
            delegation.call(caller.bot.chat, "orders.list")
        wanted: dict[str, Any] = {"arguments": {"order_id": "A/.."}, "challenge": {"purpose": "to look up your order"}}
        challenge = delegation.call(caller.bot.chat, "orders.list", challenge={"purpose": "to look up your order"})
        assert isinstance(challenge, Challenge)
        caller.sign_in({"url": challenge.url, "session": challenge.session})
        result = delegation.call(caller.bot.chat, "orders.list", purpose="order.status", arguments={"limit": 3})
        assert isinstance(result, CallResult)
        assert (result.operation, result.session, result.response.is_success) == ("orders.list", 1, True)
        assert (result.response.status, result.response.body) == (200, {"orders": ["A-1001"]})
        assert "A-1001" not in repr(result)
        with pytest.raises(RequestRefused) as refused:
            delegation.call(caller.bot.chat, "orders.read", **wanted)
        assert refused.value.code == "arguments_invalid"


@pytest.mark.django_db
def test_a_call_that_needs_a_stronger_sign_in_is_an_error_of_its_own(paying: Caller) -> None:
    """P30, P34: the API's demand, the link that brings it, and what the token says of the sign-in."""
    paying.api.play(STRONGER)
    with client_of(paying.bot) as delegation:
        with pytest.raises(StepUpRequired) as demand:
            delegation.call(paying.bot.chat, "orders.list")
        assert (demand.value.acr_values, demand.value.max_age) == (STRONG, None)
        challenge = delegation.call(paying.bot.chat, "orders.list", challenge={})
        assert isinstance(challenge, Challenge)
        assert challenge.acr_values == STRONG
        code = code_on(sign_in_with(paying, {"url": challenge.url}, acr=STRONG, amr=["hwk"]))
        facts = delegation.complete(paying.bot.chat, code).access_token
        assert facts
        assert (facts.acr, facts.amr, type(facts.auth_time)) == (STRONG, ["hwk"], datetime)
        paying.api.play(ORDERS)
        assert isinstance(delegation.call(paying.bot.chat, "orders.list"), CallResult)


@pytest.mark.django_db
def test_a_challenge_is_issued_once_and_withdrawn(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    with client_of(acme_bot) as delegation:
        first = delegation.create_challenge(acme_bot.chat, idempotency_key="order-1", scope="orders.read")
        again = delegation.create_challenge(acme_bot.chat, idempotency_key="order-1", scope="orders.read")
        assert first.challenge_id == again.challenge_id
        assert delegation.withdraw(first.challenge_id).status == "withdrawn"
        assert delegation.challenge(first.challenge_id).ended_at


@pytest.mark.django_db
def test_a_strangers_key_and_conversation(acme_bot: Bot, rival_bot: Bot, acme_server: AuthorizationServer) -> None:
    with client_of(acme_bot) as acme, client_of(rival_bot) as rival:
        challenge = acme.create_challenge(acme_bot.chat)
        with pytest.raises(NotFound):
            rival.challenge(challenge.challenge_id)
    with client_of(Bot("cd_nobody.nothing")) as nobody, pytest.raises(KeyRefused):
        nobody.conversation(acme_bot.chat)


Wire = Callable[[httpx.Request], httpx.Response]


def delegation_on(wire: Wire, patience: float = 10) -> Delegation:
    return Delegation(BASE, KEY, patience=patience, http=httpx.Client(transport=httpx.MockTransport(wire)))


class Answers:
    """A wire that gives one answer after the other, and keeps what was sent."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.sent = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return how long the client has slept; it does not really."""
    slept: list[float] = []
    monkeypatch.setattr("consumer_delegation.clients.time.sleep", slept.append)
    return slept


def example(name: str, **more: Any) -> dict[str, Any]:
    return {**document()["components"]["examples"][name]["value"], **more}


def issued(**headers: str) -> httpx.Response:
    return httpx.Response(202, json=example("issued"), headers=headers)


def busy(status: int = 429, retry_after: str = "2") -> httpx.Response:
    name = "rate_limited" if status == 429 else "unavailable"
    return httpx.Response(status, json=example(name), headers={"Retry-After": retry_after})


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int, pauses: list[float]) -> None:
    wire = Answers(busy(status), busy(status, "3"), issued())
    assert isinstance(delegation_on(wire).authorize("chat"), Challenge)
    assert (pauses, len(wire.sent)) == ([2, 3], 3)


@pytest.mark.parametrize(("status", "error"), [(429, RateLimited), (503, Unavailable)])
def test_a_longer_pause_than_the_bots_patience_is_the_bots_decision(
    status: int, error: type[RateLimited], pauses: list[float]
) -> None:
    with pytest.raises(error) as raised:
        delegation_on(Answers(busy(status, "11"))).authorize("chat")
    assert (raised.value.retry_after, pauses) == (11, [])


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "٣", "", "Thu, 32 Nov 2026 00:00:00 GMT"])
def test_an_odd_retry_after_is_a_short_pause(value: str, pauses: list[float]) -> None:
    limited = httpx.Response(429, json=example("rate_limited"), headers={b"Retry-After": value.encode()})
    delegation_on(Answers(limited, issued())).authorize("chat")
    assert pauses == [0.5]


def test_a_code_is_never_sent_twice(pauses: list[float]) -> None:
    """A 503 may have been done: the repeated code would find nothing to confirm, and a wrong one uses up a try."""
    for answer in (busy(503), httpx.ReadTimeout("lost")):
        wire = Answers(answer)
        with pytest.raises((Unavailable, NoAnswer)):
            delegation_on(wire).complete("chat", "123456")
        assert len(wire.sent) == 1
    assert pauses == []


@pytest.mark.parametrize("answer", [busy(503), httpx.ReadError("lost")])
def test_what_would_end_or_replace_something_newer_is_not_repeated(answer: Any, pauses: list[float]) -> None:
    with pytest.raises((Unavailable, NoAnswer)):
        delegation_on(Answers(answer)).end_token("chat", "rejected")
    with pytest.raises((Unavailable, NoAnswer)):
        delegation_on(Answers(answer)).authorize("chat", replace=True)
    with pytest.raises((Unavailable, NoAnswer)):
        delegation_on(Answers(answer)).call("chat", "orders.list")


def test_a_lost_answer_is_asked_for_again_with_the_same_idempotency_key(pauses: list[float]) -> None:
    wire = Answers(httpx.ReadTimeout("lost"), issued())
    delegation_on(wire).create_challenge("chat", replace=True)
    first, second = (request.headers["Idempotency-Key"] for request in wire.sent)
    assert first == second
    other = Answers(issued())
    delegation_on(other).create_challenge("chat")
    assert other.sent[0].headers["Idempotency-Key"] != first


def test_no_connection_is_tried_again_and_then_told_apart_from_a_lost_answer(pauses: list[float]) -> None:
    with pytest.raises(NoAnswer) as unsent:
        delegation_on(Answers(*[httpx.ConnectError("refused")] * 3)).complete("chat", "123456")
    with pytest.raises(NoAnswer) as lost:
        delegation_on(Answers(httpx.ReadTimeout("lost"))).complete("chat", "123456")
    assert (unsent.value.may_be_done, lost.value.may_be_done) == (False, True)


def test_an_answer_that_cannot_be_decoded_is_an_error_of_this_client(pauses: list[float]) -> None:
    """A proxy that damages a compressed answer: the call may have been done."""
    with pytest.raises(NoAnswer) as lost:
        delegation_on(Answers(httpx.DecodingError("damaged"))).complete("chat", "123456")
    assert lost.value.may_be_done


def test_waiting_goes_on_after_an_unchanged_answer(pauses: list[float]) -> None:
    tag = 'W/"1"'
    wire = Answers(
        httpx.Response(304, headers={"ETag": tag}),
        httpx.Response(304, headers={"ETag": tag, "Retry-After": "1"}),
        httpx.Response(200, json=example("challenge_started"), headers={"ETag": 'W/"2"'}),
        httpx.Response(200, json=example("challenge_denied")),
    )
    challenge = delegation_on(Answers(issued(ETag=tag))).authorize("chat")
    assert isinstance(challenge, Challenge)
    assert delegation_on(wire).wait(challenge).status == "denied"
    assert [request.headers["If-None-Match"] for request in wire.sent] == [tag, tag, tag, 'W/"2"']
    assert pauses == [1]


def test_waiting_ends_when_a_sign_in_has_failed_and_when_the_time_is_over() -> None:
    challenge = delegation_on(Answers(issued())).authorize("chat")
    assert isinstance(challenge, Challenge)
    failed = httpx.Response(200, json=example("challenge_started", last_error="invalid_client"))
    assert delegation_on(Answers(failed)).wait(challenge).last_error == "invalid_client"
    assert delegation_on(Answers()).wait(challenge, timeout=0.5) == challenge


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(502, text="<h1>Bad gateway</h1>"), ServiceFailed),
        (httpx.Response(404, text="nothing here"), NotFound),
        (httpx.Response(302, headers={"Location": "https://elsewhere.example"}), RequestRefused),
        (httpx.Response(418, json=[]), RequestRefused),
        (httpx.Response(409, json={"code": "of_tomorrow", "next": None}), NoToken),
        (httpx.Response(200, text="<h1>Sign in to the hotel's network</h1>"), UnreadableAnswer),
        (httpx.Response(200, json={}), UnreadableAnswer),
        (httpx.Response(200, json=[1]), UnreadableAnswer),
        (httpx.Response(202, json={"status": "issued"}), UnreadableAnswer),
    ],
)
def test_an_odd_answer_is_an_error_of_this_client(answer: httpx.Response, error: type[Exception]) -> None:
    with pytest.raises(error):
        delegation_on(Answers(answer)).authorize("chat")


def test_a_date_that_is_none_is_an_unreadable_answer() -> None:
    with pytest.raises(UnreadableAnswer):
        delegation_on(Answers(httpx.Response(202, json=example("issued", issued_at="yesterday")))).authorize("chat")


def test_answers_may_grow() -> None:
    grown = example("challenge_failed", error="of_tomorrow", same_person_check="of_tomorrow", member=1)
    assert delegation_on(Answers(httpx.Response(200, json=grown))).challenge("x").error == "of_tomorrow"


@pytest.mark.parametrize(
    "conversation_id", ["", ".", "..", "spaces/AAAA", "a b", "é", "x" * 201, "a\n", "a?b", "a%2Fb"]
)
def test_an_id_that_would_lead_elsewhere_is_never_sent(conversation_id: str) -> None:
    wire = Answers()
    for call in (delegation_on(wire).close, delegation_on(wire).token, delegation_on(wire).authorize):
        with pytest.raises(ValueError, match="conversation_id_of"):
            call(conversation_id)
    assert wire.sent == []


def test_ids_are_percent_encoded() -> None:
    wire = Answers(issued())
    delegation_on(wire).authorize("19:a@thread;m=1|b")
    assert wire.sent[0].url.raw_path == b"/api/v1/conversations/19%3Aa%40thread%3Bm%3D1%7Cb/authorize"


@pytest.mark.parametrize(
    "base", ["https://delegation.test", "delegation.test/api/v1", "https://u:p@x/api/v1", "ftp://x/api/v1"]
)
def test_a_wrong_address_is_refused_at_once(base: str) -> None:
    with pytest.raises(ValueError, match="/api/v1"):
        Delegation(base, KEY)


@pytest.mark.parametrize("key", ["", " cd_acme", "cd_acme\n", "cd_ächme"])
def test_a_key_that_is_none_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="bot_key") as refused:
        Delegation(BASE, key)
    assert "cd_" not in str(refused.value)


def test_secrets_are_in_no_repr_and_no_error() -> None:
    token = example("token")
    delegation = delegation_on(Answers(httpx.Response(200, json=token), issued(), httpx.ReadTimeout("lost")))
    granted, asked = delegation.authorize("chat"), delegation.authorize("chat")
    with pytest.raises(NoAnswer) as lost:
        delegation.complete("chat", "493027")
    told = "".join(map(repr, (granted, asked, delegation, lost.value, lost.value.__cause__)))
    for secret in (token["access_token"], KEY, example("issued")["url"], "493027"):
        assert secret not in told


def test_the_asynchronous_client_follows_the_same_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("consumer_delegation.clients.asyncio.sleep", sleep)
    wire = Answers(busy(), httpx.ConnectError("refused"), issued(), busy(503, "1"))

    async def play() -> None:
        http = httpx.AsyncClient(transport=httpx.MockTransport(wire))
        async with AsyncDelegation(BASE, KEY, http=http) as delegation:
            challenge = await delegation.authorize("chat")
            assert isinstance(challenge, Challenge)
            with pytest.raises(Unavailable):
                await delegation.complete("chat", "123456")

    asyncio.run(play())
    assert slept == [2, 0.5]
