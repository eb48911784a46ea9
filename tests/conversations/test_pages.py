"""The consumer's pages: inert until the button, honest about whose they are, and silent to everybody else."""

from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from brands.models import AuthorizationServer, Brand
from conversations.models import AccessToken, AuthorizationRequest
from tests.cast import HOST, Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.limits import pause
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db

PREVIEW_AGENTS = [
    "WhatsApp/2.23.20.0",
    "TelegramBot (like TwitterBot)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "facebookexternalhit/1.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) SafeLinks HeadlessChrome/120",
]


class Page(HTMLParser):
    """What a browser makes of a page: its tags, and what stands in its head."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def rows() -> str:
    """Return what is stored, to be compared with what is stored later."""
    return everything_stored("brands_", "conversations_", "infrastructure_auditevent")


def test_the_link_page_says_whose_it_is_since_when_why_and_where_the_button_leads(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer
) -> None:
    """A4: and offers "this wasn't me" as a button of equal weight."""
    challenge = acme_bot.challenge(purpose="to look up your order")
    with time_machine.travel(timezone.now() + timedelta(minutes=2), tick=False):
        response = ada.get(challenge["url"])
    text = " ".join(response.content.decode().split())
    assert heading_of(response) == "Sign in to Acme to continue your chat"
    assert "<dt>Who asks</dt><dd>Acme's assistant, 2 minutes ago</dd>" in text
    assert '<dt>What for</dt><dd><bdi lang="">to look up your order</bdi></dd>' in text
    assert "<dt>How long</dt><dd>1 day at most, in this chat only</dd>" in text
    assert 'You sign in on <bdi class="host">login.acme.example</bdi>.' in text
    assert "Continue to login.acme.example</button>" in text
    assert "The assistant can then act for you in this one chat." in text
    assert "Only continue if the assistant sent this to your own chat." in text
    path = challenge["url"].removeprefix(f"https://{HOST}")
    forms = [(form["method"], form["action"]) for form in Page(response).all("form")]
    assert forms == [("post", path), ("post", f"{path}/cancel")]
    assert len(Page(response).all("button")) == 2


def test_what_a_bot_or_an_admin_typed_is_text_on_the_page(
    acme_bot: Bot, ada: Browser, acme: Brand, acme_server: AuthorizationServer
) -> None:
    Brand.objects.update(name="<script>alert(1)</script>")
    text = ada.get(acme_bot.challenge(purpose="<img src=x onerror=alert(1)>")["url"]).content.decode()
    assert "<script>alert" not in text
    assert "<img" not in text


def test_previews_and_scanners_change_nothing_and_the_link_still_works(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B6, B8: 20 GETs, 20 HEADs and 12 scripted posts, then a real completion."""
    challenge = acme_bot.challenge()
    before = rows()
    for agent in PREVIEW_AGENTS * 4:
        scanner = Client(SERVER_NAME=HOST, headers={"User-Agent": agent, "Sec-Purpose": "prefetch"})
        assert scanner.get(challenge["url"], secure=True).status_code == 200
        assert scanner.head(challenge["url"], secure=True).status_code == 200
    assert rows() == before
    pause()
    for _ in range(12):
        Browser().begin(challenge["url"])
    assert AuthorizationRequest.objects.filter(finished_at=None).count() == 10
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    assert acme_bot.token()[0] == 200


def test_a_preview_sees_the_same_neutral_page_as_everybody(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer
) -> None:
    """B9: the head carries nothing about the consumer, and nobody may index it."""
    response = ada.get(acme_bot.challenge(purpose="to look up order 4711")["url"])
    head = response.content.decode().split("</head>")[0]
    assert "<title>Sign in for your chat</title>" in head
    assert "4711" not in head
    assert response["X-Robots-Tag"] == "noindex, nofollow"


def test_no_page_acts_by_itself_or_loads_anything_foreign(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B7, B17: no refresh, no third-party resource, nothing to wait for; one script, and not on the link."""
    challenge = acme_bot.challenge()
    script = {"src": "/static/consumer.js", "defer": None}
    pages = {
        ada.get(challenge["url"]): [],
        ada.sign_in(challenge["url"], acme_login): [script],
        ada.get("https://x/c/"): [],
    }
    for response, scripts in pages.items():
        page = Page(response)
        assert page.all("script") == scripts
        assert page.all("img") == page.all("iframe") == []
        assert [link["href"] for link in page.all("link")] == ["/static/icon.svg"]
        assert not [meta for meta in page.all("meta") if meta.get("http-equiv")]
        assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]


@pytest.mark.parametrize("action", ["", "/cancel", "/undo"])
def test_a_form_of_another_origin_starts_cancels_and_undoes_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, action: str
) -> None:
    """B22: also with the consumer's own cookies."""
    challenge = acme_bot.challenge()
    if action == "/undo":
        ada.sign_in(challenge["url"], acme_login)
    else:
        ada.get(challenge["url"])
    before = rows()
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        response = ada.client.post(challenge["url"] + action, {}, secure=True, headers=headers)
        assert (response.status_code, heading_of(response)) == (403, "This was not sent from our own page")
    assert rows() == before


def test_this_wasnt_me_closes_the_link_and_tells_the_bot(
    acme_bot: Bot, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """A4."""
    challenge = acme_bot.challenge()
    page = rita.press(challenge["url"], "/cancel")
    assert heading_of(page) == "Thank you: this link is now closed"
    assert acme_bot.read_challenge(challenge)["status"] == "cancelled"
    assert rita.get(challenge["url"]).status_code == 404
    again = rita.press(challenge["url"], "/cancel")
    assert (again.status_code, again["Location"]) == (303, challenge["url"].removeprefix(f"https://{HOST}"))


def test_cancelling_is_only_for_before_the_sign_in(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B22: afterwards it is undo, which asks for the cookie."""
    challenge = acme_bot.challenge()
    late = Browser()
    late.get(challenge["url"])
    ada.sign_in(challenge["url"], acme_login)
    token = late.client.cookies["__Host-csrf"].value
    for action in ("/cancel", "/undo"):
        late.client.post(challenge["url"] + action, {"csrfmiddlewaretoken": token}, secure=True, headers=REFERER)
    assert acme_bot.read_challenge(challenge)["status"] == "confirmation_needed"
    assert heading_of(rita.get(f"{challenge['url']}/done")) == "This link no longer works"


REFERER = {"Referer": f"https://{HOST}/"}


@pytest.mark.parametrize("ended", ["unknown", "expired", "withdrawn", "superseded", "completed", "inactive", "closed"])
def test_an_unknown_link_and_every_ended_challenge_are_one_page(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, ended: str
) -> None:
    """G9: to a browser without the cookie, byte for byte but for the CSRF token, which no such page has."""
    challenge = acme_bot.challenge()
    url, later = challenge["url"], timezone.now()
    match ended:
        case "unknown":
            url = url[:-5] + "xxxxx"
        case "expired":
            later += timedelta(seconds=901)
        case "withdrawn":
            acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
        case "superseded":
            acme_bot.challenge(replace=True)
        case "completed":
            acme_bot.complete(code_on(ada.sign_in(url, acme_login)))
        case "inactive":
            Brand.objects.update(is_active=False)
        case "closed":
            acme_bot.in_chat("DELETE")
    with time_machine.travel(later, tick=False):
        pages = [rita.get(url + suffix) for suffix in ("", "/done", "/other-browser")]
    unknown = rita.get("https://delegation.test/c/no-such-link")
    assert {page.status_code for page in pages} == {404}
    assert {page.content for page in pages} == {unknown.content}
    assert heading_of(unknown) == "This link no longer works"


def test_pressing_the_button_of_a_link_that_ended_leads_back_to_its_page(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer
) -> None:
    challenge = acme_bot.challenge()
    ada.get(challenge["url"])
    acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    token = ada.client.cookies["__Host-csrf"].value
    answer = ada.client.post(challenge["url"], {"csrfmiddlewaretoken": token}, secure=True, headers=REFERER)
    assert (answer.status_code, answer["Location"]) == (303, challenge["url"].removeprefix(f"https://{HOST}"))
    assert not AuthorizationRequest.objects.exists()


@pytest.mark.parametrize(
    ("ending", "heading"),
    [
        ("withdrawn", "The assistant no longer needs this"),
        ("signed out", "This is over"),
        ("expired token", "This is over"),
    ],
)
def test_the_browser_that_began_sees_the_precise_outcome(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, ending: str, heading: str
) -> None:
    """G9."""
    challenge, later = acme_bot.challenge(), timezone.now()
    page = ada.sign_in(challenge["url"], acme_login)
    match ending:
        case "withdrawn":
            acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
        case "signed out":
            acme_bot.complete(code_on(page))
            acme_bot.in_chat("DELETE", "/token?reason=signed_out")
        case "expired token":
            acme_bot.complete(code_on(page))
            later += timedelta(seconds=3540)
            AccessToken.objects.update(expires_at=later)
    with time_machine.travel(later, tick=False):
        page = ada.get(f"{challenge['url']}/done")
    assert (page.status_code, heading_of(page)) == (200, heading)


def test_the_scanner_that_posts_cannot_lock_the_consumer_out(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B8: the oldest unfinished authorization requests are dropped, one that is being exchanged is not."""
    challenge = acme_bot.challenge()
    ada.begin(challenge["url"])
    AuthorizationRequest.objects.update(claimed_at=timezone.now())
    claimed = AuthorizationRequest.objects.get()
    for _ in range(15):
        Browser().begin(challenge["url"])
    assert AuthorizationRequest.objects.filter(pk=claimed.pk).exists()
    assert AuthorizationRequest.objects.filter(claimed_at=None, finished_at=None).count() == 10


def test_a_consumer_whose_authorization_request_was_pushed_out_is_offered_another_try(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """B8: ten scripted presses later she comes back, and her link is not dead."""
    challenge = acme_bot.challenge()
    query = acme_login.authorize(ada.begin(challenge["url"]))
    for _ in range(10):
        Browser().begin(challenge["url"])
    page = ada.get(ada.get(f"{acme_login.redirect_uri}?{query}")["Location"])
    assert heading_of(page) == "Let us start again"
    assert acme_login.token_requests == []
    assert code_on(ada.sign_in(challenge["url"], acme_login))


def test_a_missing_page_and_a_failing_one_have_words_and_a_reference(ada: Browser) -> None:
    response = ada.get("https://delegation.test/nothing/here")
    assert (response.status_code, heading_of(response)) == (404, "There is nothing here")
    whole = response["X-Request-Id"]
    assert f'<bdi class="reference">{whole[:5]} {whole[5:10]}</bdi>' in response.content.decode()


def test_the_address_of_a_link_names_all_that_it_answers(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer
) -> None:
    """The bug: the button's POST works there, and `Allow` said GET and HEAD."""
    link = acme_bot.challenge()["url"].removeprefix("https://delegation.test")
    answer = ada.client.options(link, secure=True)
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("language", "words"), [("en", "act for you in that one chat"), ("he", "העוזר"), ("de", "der Assistent")]
)
def test_the_address_before_any_path_says_what_this_is(ada: Browser, language: str, words: str) -> None:
    """The bug: 404, and "Go back to your chat", for whoever only wants to know whose address that is."""
    answer = ada.client.get("/", secure=True, headers={"Accept-Language": language})
    assert (answer.status_code, answer["Content-Language"]) == (200, language)
    assert words in answer.content.decode()
    assert "__Host-" not in str(answer.cookies)
    assert ada.client.post("/", secure=True, headers={"Referer": "https://delegation.test/"}).status_code in {403, 405}
