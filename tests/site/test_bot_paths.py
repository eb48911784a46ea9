"""The short way to the bot API: what it leaves out, and what it must not leave out."""

import socket
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.db import InterfaceError, OperationalError
from django.test import Client

from tests.cast import HOST, Bot, Browser
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

PEOPLES = (
    "django.contrib.sessions.middleware.SessionMiddleware.process_request",
    "django.contrib.auth.middleware.AuthenticationMiddleware.process_request",
    "django.contrib.messages.middleware.MessageMiddleware.process_request",
    "django.middleware.csrf.CsrfViewMiddleware.process_request",
)


def fail(*_: Any) -> None:
    raise AssertionError("a middleware of people's pages was asked")


def test_no_session_user_form_or_message_is_looked_at_for_a_bot(
    acme_bot: Bot, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G7."""
    for name in PEOPLES:
        monkeypatch.setattr(name, fail)
    monkeypatch.setattr(SessionStore, "load", fail)
    cookies = {"Cookie": "__Host-session=abc; __Host-csrf=abc"}
    answers = [
        acme_bot.send("POST", f"/conversations/{acme_bot.chat}/challenges", {}, **cookies),
        acme_bot.send("GET", f"/conversations/{acme_bot.chat}/token", **cookies),
        acme_bot.send("GET", "/nothing", **cookies),
    ]
    assert [answer.status_code for answer in answers] == [201, 409, 404]
    assert [answer.get("Vary") for answer in answers] == [None] * 3


def test_people_go_the_long_way(ada: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PEOPLES[:1]:
        monkeypatch.setattr(name, fail)
    with pytest.raises(AssertionError, match="people's pages"):
        ada.get("/c/x")


@pytest.mark.parametrize("host", ["elsewhere.example", "delegation.test.elsewhere.example", "bad host", ""])
def test_a_host_that_is_not_ours_is_refused(acme_bot: Bot, host: str) -> None:
    """B16: on the short way nobody else asks."""
    answer = acme_bot.send("GET", f"/conversations/{acme_bot.chat}", Host=host)
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["code"] == "bad_request"


@pytest.mark.parametrize("query", ["min_ttl=%00", "%00=1"])
def test_a_nul_in_the_query_is_refused(acme_bot: Bot, query: str) -> None:
    answer = acme_bot.send("GET", f"/conversations/{acme_bot.chat}/token?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_plain_http_is_not_answered(acme_bot: Bot) -> None:
    """H6: a key that was sent in the clear gets no answer that works."""
    answer = Client(SERVER_NAME=HOST, headers={"Authorization": f"Bearer {acme_bot.key}"}).get("/api/v1/challenges/x")
    assert (answer.status_code, answer["Location"]) == (301, f"https://{HOST}/api/v1/challenges/x")


def test_an_answer_says_how_long_it_is(acme_bot: Bot) -> None:
    """Without it a kept connection could not be used again."""
    answer = acme_bot.send("GET", f"/conversations/{acme_bot.chat}")
    assert answer["Content-Length"] == str(len(answer.content))


@pytest.mark.parametrize("lost", [OperationalError, InterfaceError])
def test_a_database_that_is_away_is_to_be_asked_again(
    acme_bot: Bot, monkeypatch: pytest.MonkeyPatch, lost: type[Exception]
) -> None:
    """The bug: bots were told of a fault, and people of the same moment that it passes."""

    def away(*_: Any, **__: Any) -> None:
        raise lost("connection to server at db.internal failed")

    monkeypatch.setattr("conversations.api.calls.PresentedKey.read", away)
    client = Client(SERVER_NAME=HOST, raise_request_exception=False)
    answer = client.get("/api/v1/conversations/x", secure=True)
    assert (answer.status_code, answer["Retry-After"], answer["Content-Type"]) == (
        503,
        "30",
        "application/problem+json",
    )
    document = answer.json()
    assert (document["code"], document["next"], b"db.internal" in answer.content) == ("unavailable", None, False)


def test_a_fault_of_ours_is_a_problem_document(acme_bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """H4."""

    def broken(*_: Any, **__: Any) -> None:
        raise socket.gaierror("of the database's host")

    monkeypatch.setattr("conversations.api.calls.PresentedKey.read", broken)
    client = Client(SERVER_NAME=HOST, raise_request_exception=False)
    answer = client.get("/api/v1/conversations/x", secure=True)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert b"database" not in answer.content
