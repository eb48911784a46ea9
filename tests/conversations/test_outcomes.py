"""However a challenge goes on or ends: every way in which a bot can learn of it says the same, to the letter."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import time_machine
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.errors import StepUpRequired
from conversations.flow.step_up import refuse_weak_sign_in
from conversations.models import OPEN_STATUSES, AccessToken, Challenge, ChallengeStatus
from oauth_client.step_up import AuthenticationDemand
from tests import contract
from tests.cast import Bot, Browser, code_on, make_bot, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.long_poll import waiting
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True)

CHAT_PAGE = "https://www.acme.example/chat"


@dataclass
class Scene:
    """Acme's bot has asked, and Ada holds the link."""

    bot: Bot
    ada: Browser
    login: FakeAuthorizationServer
    server: AuthorizationServer
    clock: ExitStack

    def __post_init__(self) -> None:
        self.challenge = self.bot.challenge()

    @property
    def link(self) -> str:
        return str(self.challenge["url"])

    @property
    def path(self) -> str:
        return f"/challenges/{self.challenge['challenge_id']}"

    def begin_anew(self, **body: Any) -> None:
        """Ask for another challenge than the first one."""
        self.challenge = self.bot.challenge(replace=True, **body)


Happening = Callable[[], Any]


def started(scene: Scene) -> Happening:
    return lambda: scene.ada.begin(scene.link)


def another_try(scene: Scene) -> Happening:
    url = scene.ada.begin(scene.link)
    scene.login.next_token_answer = (503, {}, b"")
    return lambda: scene.ada.come_back(url, scene.login)


def confirmation_needed(scene: Scene) -> Happening:
    url = scene.ada.begin(scene.link)
    return lambda: scene.ada.come_back(url, scene.login)


def completed(scene: Scene) -> Happening:
    code = code_on(scene.ada.sign_in(scene.link, scene.login))
    return lambda: scene.bot.complete(code)


def denied(scene: Scene) -> Happening:
    url = scene.ada.begin(scene.link)
    scene.login.denies = True
    return lambda: scene.ada.come_back(url, scene.login)


def cancelled(scene: Scene) -> Happening:
    return lambda: scene.ada.press(scene.link, "/cancel")


def undone(scene: Scene) -> Happening:
    scene.ada.sign_in(scene.link, scene.login)
    return lambda: scene.ada.press(f"{scene.link}/done", "/undo")


def superseded(scene: Scene) -> Happening:
    return lambda: scene.bot.challenge(replace=True)


def withdrawn(scene: Scene) -> Happening:
    return lambda: scene.bot.call("DELETE", scene.path)


def closed(scene: Scene) -> Happening:
    return lambda: scene.bot.in_chat("DELETE")


def another_account(scene: Scene) -> Happening:
    use_openid(scene.server, scene.login)
    scene.begin_anew()
    scene.bot.complete(code_on(scene.ada.sign_in(scene.link, scene.login)))
    scene.begin_anew()
    scene.login.subject = "somebody-else"
    url = scene.ada.begin(scene.link)
    return lambda: scene.ada.come_back(url, scene.login)


def assurance_not_met(scene: Scene) -> Happening:
    use_openid(scene.server, scene.login)
    scene.begin_anew()
    scene.bot.complete(code_on(scene.ada.sign_in(scene.link, scene.login)))
    token, demand = AccessToken.objects.get(), AuthenticationDemand("urn:acme:loa:2")
    with suppress(StepUpRequired):  # so ends a call whose API wants a second factor
        refuse_weak_sign_in(token, token.authorization_server, demand, timezone.now())
    scene.begin_anew()
    url = scene.ada.begin(scene.link)
    return lambda: scene.ada.come_back(url, scene.login)


def too_many_codes(scene: Scene) -> Happening:
    code = code_on(scene.ada.sign_in(scene.link, scene.login))
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    for _ in range(4):
        scene.bot.complete(wrong)
    return lambda: scene.bot.complete(wrong)


def other_conversation(scene: Scene) -> Happening:
    AuthorizationServer.objects.update(same_person_checks=["chat_page"], chat_page_url=CHAT_PAGE)
    scene.begin_anew()
    answer = scene.ada.come_back(scene.ada.begin(scene.link), scene.login)
    handle = urlsplit(answer["Location"]).fragment.partition("=")[2]
    elsewhere = make_bot(scene.server.brand, chat="web:another-chat")
    elsewhere.challenge()
    return lambda: elsewhere.in_chat("POST", "/completion", {"handle": handle})


def expired(scene: Scene) -> Happening:
    later = time_machine.travel(timezone.now() + timedelta(seconds=901), tick=True)
    return lambda: scene.clock.enter_context(later)


OUTCOMES = [
    (started, "started", None, None),
    (another_try, "started", None, "temporarily_unavailable"),
    (confirmation_needed, "confirmation_needed", None, None),
    (completed, "completed", None, None),
    (denied, "denied", None, None),
    (cancelled, "cancelled", None, None),
    (undone, "cancelled", None, None),
    (expired, "expired", None, None),
    (superseded, "superseded", None, None),
    (withdrawn, "withdrawn", None, None),
    (closed, "withdrawn", None, None),
    (another_account, "failed", "subject_mismatch", None),
    (assurance_not_met, "failed", "assurance_not_met", None),
    (too_many_codes, "failed", "too_many_codes", None),
    (other_conversation, "failed", "other_conversation", None),
]


@pytest.fixture
def scene(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> Iterator[Scene]:
    with ExitStack() as clock:
        yield Scene(acme_bot, ada, acme_login, acme_server, clock)


@pytest.mark.parametrize(("prepare", "status", "error", "last_error"), OUTCOMES)
def test_every_outcome_is_told_alike_on_every_way(
    scene: Scene,
    acme_hooks: Receiver,
    prepare: Callable[[Scene], Happening],
    status: str,
    error: str | None,
    last_error: str | None,
) -> None:
    """The long poll waits while it happens; the read and the worker that delivers webhooks come after it."""
    happen = prepare(scene)
    with waiting(scene.bot, scene.challenge) as answer:
        happen()
        polled = answer.result().json()
    read = scene.bot.read_challenge(scene.challenge)
    told = {"long poll": polled, "read": read, "webhook": webhook_of(scene.challenge, acme_hooks)}
    assert {
        way: (facts["status"], facts["error"], facts["last_error"]) for way, facts in told.items()
    } == dict.fromkeys(told, (status, error, last_error))
    assert all(facts | {"expires_in": 0} == read | {"expires_in": 0} for facts in told.values())


# Where a token can be read, or a code is awaited, not all three ways refuse; a closed conversation tells no ends.
WAYS: dict[Any, int] = {closed: 1, confirmation_needed: 2, completed: 2, another_account: 2, assurance_not_met: 2}


@pytest.mark.parametrize(("prepare", "status"), [outcome[:2] for outcome in OUTCOMES])
def test_a_bot_that_kept_no_id_is_told_the_outcome_too(
    scene: Scene, prepare: Callable[[Scene], Happening], status: str
) -> None:
    """A refusal, five wrong codes and a link that ran out all looked as if nobody had ever been asked."""
    prepare(scene)()
    read = scene.bot.read_challenge(scene.challenge)
    is_told = status not in {*OPEN_STATUSES, "superseded"} and prepare is not closed
    ended = {name: read[name] for name in ("challenge_id", "status", "error", "last_error", "ended_at")}
    assert told_of_the_last(scene.bot) == [ended if is_told else None] * WAYS.get(prepare, 3)


def test_a_second_account_is_told_beside_how_the_first_token_ended(scene: Scene) -> None:
    happen = another_account(scene)
    happen()
    assert scene.bot.in_chat("DELETE", "/token?reason=signed_out")[1]["last_challenge"]["error"] == "subject_mismatch"
    _, problem = scene.bot.token()
    assert (problem["code"], problem["reason"], problem["last_challenge"]["error"]) == (
        "rechallenge_required",
        "signed_out",
        "subject_mismatch",
    )


def told_of_the_last(bot: Bot) -> list[dict[str, Any] | None]:
    """Return what the status read says of the last challenge, and what each 409 of token and completion says."""
    (authorization,) = bot.in_chat("GET")[1]["authorization_servers"]
    answers = (bot.token(), bot.complete("123456"))
    return [
        authorization["last_challenge"],
        *(answer.get("last_challenge") for code, answer in answers if code == 409),
    ]


def webhook_of(challenge: dict[str, Any], hooks: Receiver) -> dict[str, Any]:
    """Return the last that the bot's endpoint was told of this challenge."""
    hooks.deliver()
    in_order = sorted(hooks.messages, key=lambda message: message.payload["sequence"])
    told = [message.payload["data"] for message in in_order if not message.type.startswith("token.")]
    return dict([data for data in told if data.get("challenge_id") == challenge["challenge_id"]][-1])


@pytest.mark.parametrize(("status", "prepare"), {status: prepare for prepare, status, *_ in OUTCOMES[::-1]}.items())
def test_the_example_of_a_status_has_the_moments_of_a_real_challenge(
    scene: Scene, status: str, prepare: Callable[[Scene], Happening]
) -> None:
    """The example of a completed challenge had an end; a real one has none, since its token lives on."""
    prepare(scene)()
    example = contract.document()["components"]["examples"][f"challenge_{status}"]["value"]
    assert moments(example) == moments(scene.bot.read_challenge(scene.challenge))


def moments(facts: dict[str, Any]) -> set[str]:
    """Return the names of the moments that a challenge has had."""
    return {name for name, value in facts.items() if name.endswith("_at") and value is not None}


def test_no_outcome_is_left_out() -> None:
    assert {status for _, status, _, _ in OUTCOMES} == set(ChallengeStatus) - {ChallengeStatus.ISSUED}
    assert {error for _, _, error, _ in OUTCOMES} == {*Challenge.Error, None}
