"""The journey stops at the first step that does not hold, and says which, what was expected, and what was seen."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from demo.addresses import Addresses, DemoError
from demo.bot_api import Answer, BotApi
from demo.browser import Page
from demo.html_forms import parse_page
from demo.journey import play
from demo.processes import Servers
from demo.story import Journey, StepError
from demo.transcript import Transcript
from tests.demo.machines import free_ports
from tests.demo.stage import Stage

Step = Callable[[Journey], object]
REFUSED = Answer("GET", "http://a.example/token", None, 409, {"code": "challenged"}, {})


def page(status: int, text: str) -> Page:
    response = requests.Response()
    response.status_code = status
    return Page("http://a.example/c/", response, parse_page(text))


@pytest.fixture
def journey() -> Journey:
    bot = BotApi("http://a.example", "bot-key")
    return Journey(Addresses(), bot, bot, "password", Transcript(io.StringIO()))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda it: it.expect("status", "issued", "started"), "Expected status to be 'started', but it is 'issued'."),
        (lambda it: it.expect_true("the cookie is Secure", held=False), "This does not hold: the cookie is Secure."),
        (
            lambda it: it.answered(REFUSED, 200),
            "Expected HTTP 200 from GET http://a.example/token, but it is 409.",
        ),
        (
            lambda it: it.answered(REFUSED, 409, code="denied"),
            "Expected code to be 'denied', but it is 'challenged'.",
        ),
        (
            lambda it: it._shows_page(page(404, "<p>This link does not work")),
            "Expected a page at http://a.example/c/, but it is HTTP 404: This link does not work",
        ),
    ],
)
def test_a_step_that_does_not_hold_is_named(journey: Journey, step: Step, said: str) -> None:
    with pytest.raises(StepError) as told:
        step(journey)
    assert (str(told.value), journey.transcript.checks) == (said, 0)


def test_the_whole_journey_stops_there_with_its_chapter_and_the_servers_logs(stage: Stage, tmp_path: Path) -> None:
    demo = replace(stage.demo, addresses=Addresses(*free_ports(3)))
    with Servers(tmp_path) as servers, pytest.raises(DemoError) as told:
        play(demo, servers, "no key of ours")
    *logs, said = str(told.value).splitlines()
    assert said.startswith("The journey stopped in chapter 1. Expected HTTP ")
    assert said.endswith(", but it is 401.")
    for name in ("product", "sample-brand", "worker"):
        assert f"--- the last lines of {tmp_path}/{name}.log ---" in logs
