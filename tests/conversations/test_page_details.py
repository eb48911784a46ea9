"""What the consumer's pages have in common: weight, head, language, way back, a reference for support."""

import html
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as current
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations import views
from conversations.models import AccessToken, Challenge
from tests.cast import HOST, Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


class Outline(HTMLParser):
    """The head's sentences, and the elements in their order."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.meta: dict[str, str] = {}
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        given = dict(attrs)
        name = given.get("name") or given.get("property")
        if tag == "meta" and name:
            self.meta[name] = given["content"] or ""


def static(name: str) -> int:
    return len((Path(current.BASE_DIR) / "static" / name).read_bytes())


def test_a_first_visit_weighs_less_than_ten_kilobytes_and_the_script_a_few_more(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The page with everything that it loads, but for a logo, which adds 8 KB at most."""
    challenge = acme_bot.challenge(purpose="x" * 140, locale="he")
    link, done = ada.get(challenge["url"]), ada.sign_in(challenge["url"], acme_login)
    headers = sum(len(f"{name}: {value}") for name, value in link.headers.items())
    assert len(link.content) + headers + static("icon.svg") < 10_000
    assert len(done.content) + headers + static("icon.svg") + static("consumer.js") < 15_000


def test_a_preview_is_neutral_and_in_the_chats_language(acme_bot: Bot, ada: Browser, acme_server: Any) -> None:
    """B9: nothing about anybody, not even the brand."""
    page = ada.get(acme_bot.challenge(purpose="about order 4711", locale="fr")["url"])
    meta = Outline(page).meta
    assert meta["og:title"] == "Connexion pour votre discussion"
    assert meta["og:description"] == meta["description"]
    assert meta["description"].startswith("Mène à la page de connexion de l'entreprise avec laquelle vous discutez.")
    head = page.content.decode().split("</head>")[0]
    assert ("Acme" in head, "4711" in head) == (False, False)


def test_the_reader_hears_the_heading_then_the_code_digit_by_digit(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    page = ada.sign_in(acme_bot.challenge(locale="he")["url"], acme_login)
    code = code_on(page)
    text = page.content.decode()
    heard = f'<p class="code" dir="ltr"><span class="heard-only">{" ".join(code[:3])}, {" ".join(code[3:])}</span>'
    shown = f'<span class="digits" aria-hidden="true" data-completion-code="{code}">{code[:3]} {code[3:]}</span>'
    assert text.index("<h1>") < text.index(heard) < text.index(shown)
    assert Outline(page).elements.count("h1") == Outline(page).elements.count("main") == 1
    assert f'<button type="button" hidden data-copy="{code}"' in text
    assert '<p class="said" role="status"></p>' in text


def test_the_code_works_for_five_minutes_and_the_page_says_so(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A second after its five minutes began it used to say four."""
    page = ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert "It works for <span data-left>5\xa0minutes</span>." in page.content.decode()


@pytest.mark.parametrize(
    ("locale", "said"), [("en", "It works for less than a minute."), ("fr", "Il est valable moins d'une minute.")]
)
def test_seconds_before_the_code_ends_the_page_promises_no_minute(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, locale: str, said: str
) -> None:
    """The bug: with seven seconds left it said one minute."""
    challenge = acme_bot.challenge(locale=locale)
    ada.sign_in(challenge["url"], acme_login)
    Challenge.objects.update(expires_at=timezone.now() + timedelta(seconds=7))
    text = html.unescape(ada.get(f"{challenge['url']}/done").content.decode())
    assert said in text.replace("<span data-left>", "").replace("</span>", "")


def test_seconds_before_the_access_ends_the_pages_promise_no_minute(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The same bug, on the signed-in page and on the receipt."""
    challenge = acme_bot.challenge()
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    AccessToken.objects.update(expires_at=timezone.now() + timedelta(seconds=7))
    done = ada.get(f"{challenge['url']}/done").content.decode()
    assert "It can act for you in that chat for less than a minute." in done
    receipt = re.search(r'href="(/r/[A-Za-z0-9_-]{43})"', done)
    assert receipt
    assert "This ends by itself in less than a minute, or at once" in ada.get(receipt[1]).content.decode()


@pytest.mark.parametrize("check", ["none", "completion_code"])
def test_the_signed_in_page_offers_to_close_the_window_and_nothing_closes_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, check: str
) -> None:
    """A9: the bug: after a sign-in without a code it was closed at once, with undo and receipt on it."""
    AuthorizationServer.objects.update(same_person_checks=[check])
    challenge = acme_bot.challenge()
    page = ada.sign_in(challenge["url"], acme_login)
    if check == "completion_code":
        acme_bot.complete(code_on(page))
        page = ada.get(f"{challenge['url']}/done")
    assert heading_of(page) == "You're signed in"
    text = page.content.decode()
    assert ("data-finished" in text, '<button type="button" hidden data-close ' in text) == (False, True)
    assert "Close this window</button>" in text


@pytest.mark.parametrize(
    ("checks", "wanted", "way_back"),
    [
        (["completion_code"], "completion_code", True),
        (["completion_code", "chat_page"], "completion_code", False),
        (["completion_code", "chat_page"], "chat_page", True),
    ],
)
def test_the_way_back_leads_to_the_chats_own_page_where_the_chat_is_on_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, checks: list[str], wanted: str, *, way_back: bool
) -> None:
    """A chat that asked for a code beside `chat_page` is in another channel: it must not be led to the web."""
    AuthorizationServer.objects.update(same_person_checks=checks, chat_page_url="https://www.acme.example/chat")
    acme_login.denies = True
    page = ada.sign_in(acme_bot.challenge(same_person_check=wanted)["url"], acme_login)
    assert heading_of(page) == "You are not signed in"
    text = page.content.decode()
    assert ('href="https://www.acme.example/chat">Back to my chat</a>' in text) == way_back
    assert ("You can close this window." in text) != way_back


def test_a_restored_tab_of_an_answer_is_led_to_the_links_page(acme_bot: Bot, ada: Browser, acme_server: Any) -> None:
    """It asks with GET for what was posted: this used to be an empty page."""
    challenge = acme_bot.challenge()
    path = challenge["url"].removeprefix(f"https://{HOST}")
    ada.press(challenge["url"], "/cancel")
    again = ada.get(f"{challenge['url']}/cancel")
    assert (again.status_code, again["Location"]) == (303, path)
    assert heading_of(ada.get(path)) == "This link no longer works"


def test_support_is_offered_where_a_link_was_not_meant_for_its_reader(
    acme_bot: Bot, ada: Browser, acme_server: Any
) -> None:
    Brand.objects.update(support_contact="https://acme.example/help")
    page = ada.press(acme_bot.challenge()["url"], "/cancel")
    found = re.findall(r'<a( class="button second")? href="https://acme.example/help">', page.content.decode())
    assert found == [' class="button second"', ""]


@pytest.mark.parametrize(
    ("fault", "status", "heading"),
    [(OperationalError, 503, "We cannot answer right now"), (RuntimeError, 500, "Something failed on our side")],
)
def test_a_fault_of_ours_says_so_and_offers_another_try(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception], status: int, heading: str
) -> None:
    """A database that is away comes back, and is said in other words than a fault that does not pass."""

    def fail(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(views, "challenge_of_link", fail)
    page = Client(SERVER_NAME=HOST, raise_request_exception=False).get(f"/c/{'x' * 27}", secure=True)
    assert (page.status_code, heading_of(page), page.get("Retry-After")) == (
        status,
        heading,
        "30" if status == 503 else None,
    )
    text = page.content.decode()
    assert '<a class="button" href="">Try again</a>' in text
    whole = page["X-Request-Id"]
    assert f'Reference for support: <bdi class="reference">{whole[:5]} {whole[5:10]}</bdi>' in text
