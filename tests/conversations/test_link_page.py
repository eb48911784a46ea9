"""The words of the link's page: few, true, and the bot's reason in the consumer's language, or marked as another."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.retention import sweep
from conversations.models import AccessToken, Challenge
from tests.cast import Bot, Browser
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

IN_MANY = {"en": "to look up your order.", "de": "um Ihre Bestellung zu finden", "he": "Acme מחפשת את ההזמנה שלך"}


class Words(HTMLParser):
    """What is read on a page before anything is pressed: of a fold its summary alone."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []
        text = response.content.decode()
        self.feed(text[text.index("<body>") : text.index("</body>")])

    def handle_starttag(self, tag: str, _attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "details" not in self.open or "summary" in self.open:
            self.found += data.split()


def line(page: Any, name: str) -> str:
    """The text of a line of the page, with its markup."""
    found = re.search(f"<dt>{name}</dt><dd>(.*?)</dd>", page.content.decode())
    return found[1].replace("\xa0", " ") if found else ""


def reason_on(page: Any) -> str:
    found = re.search("<bdi(.*?</bdi>)</dd>", page.content.decode())
    return found[1].strip() if found else ""


def test_it_has_half_the_words_and_the_warning_stands_beside_the_button(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer
) -> None:
    """A4: the page had 105 words; who read them all had looked away."""
    AuthorizationServer.objects.update(scope_descriptions={"orders.read": {"en": "see your orders"}})
    page = ada.get(acme_bot.challenge(purpose="to look up your order")["url"])
    assert len(Words(page).found) <= 52, " ".join(Words(page).found)
    text = page.content.decode()
    care, button = text.index("Only continue if the assistant sent this"), text.index("Continue to login.acme.example")
    assert 0 < text[care:button].count("<") <= 6
    folded = text[text.index("<details>") : text.index("</details>")]
    assert "<li>see your orders</li>" in folded
    assert "Your password belongs on Acme's own page" in folded


def test_before_the_first_token_it_says_the_longest_that_is_configured(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer
) -> None:
    AuthorizationServer.objects.update(max_token_lifetime=7200)
    assert line(ada.get(acme_bot.challenge()["url"]), "How long") == "2 hours at most, in this chat only"


@pytest.mark.parametrize(
    ("expires_in", "said"), [(120, "2 minutes"), (3600, "1 hour"), (86_400, "1 day"), (20, "1 minute")]
)
def test_then_it_says_what_this_servers_tokens_last(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, expires_in: int, said: str
) -> None:
    """The bug: "1 day at most" over a token of two minutes."""
    acme_login.expires_in = expires_in
    url = acme_bot.challenge()["url"]
    ada.sign_in(url, acme_login)
    sweep(timezone.now())
    page = ada.get(acme_bot.challenge(replace=True)["url"])
    assert line(page, "How long") == f"usually {said}, in this chat only"


def test_a_lower_maximum_counts_at_once_and_a_server_that_is_not_used_keeps_what_is_known(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    sweep(timezone.now())
    AuthorizationServer.objects.update(max_token_lifetime=600)
    assert line(ada.get(acme_bot.challenge(replace=True)["url"]), "How long").startswith("usually 10 minutes")
    AccessToken.objects.all().delete()
    sweep(timezone.now())
    assert AuthorizationServer.objects.get().usual_token_lifetime == 3600


@pytest.mark.parametrize(
    ("locale", "accepted", "reason"),
    [
        ("en", "", 'dir="ltr">to look up your order</bdi>'),
        ("de", "", 'dir="ltr">um Ihre Bestellung zu finden</bdi>'),
        ("de-AT", "", 'dir="ltr">um Ihre Bestellung zu finden</bdi>'),
        ("he", "", 'dir="rtl">Acme מחפשת את ההזמנה שלך</bdi>'),
        ("iw-IL", "", 'dir="rtl">Acme מחפשת את ההזמנה שלך</bdi>'),
        ("", "de", 'dir="ltr">um Ihre Bestellung zu finden</bdi>'),
        ("fr", "", 'lang="en" dir="ltr">to look up your order</bdi>'),
        ("ja", "he", 'dir="rtl">Acme מחפשת את ההזמנה שלך</bdi>'),
    ],
)
def test_of_several_the_page_shows_the_reason_in_its_own_language(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, locale: str, accepted: str, reason: str
) -> None:
    """A Hebrew text that begins with a Latin name would otherwise be laid out from left to right."""
    url = acme_bot.challenge(purpose=IN_MANY, locale=locale)["url"]
    page = ada.client.get(url, secure=True, headers={"Accept-Language": accepted})
    assert reason_on(page) == reason


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({"purpose": "to pay", "locale": "en"}, 'dir="ltr">to pay</bdi>'),
        ({"purpose": "to pay"}, 'lang="">to pay</bdi>'),
        ({"purpose": "支払い", "locale": "ja"}, 'lang="ja" dir="ltr">支払い</bdi>'),
        ({"purpose": "ادائیگی", "locale": "ur"}, 'lang="ur" dir="rtl">ادائیگی</bdi>'),
        ({"purpose": {"ja": "支払い", "en": "to pay"}, "locale": "ja-JP"}, 'lang="ja" dir="ltr">支払い</bdi>'),
        ({"purpose": {"tlh": "DIlmeH"}, "locale": "en"}, 'lang="tlh">DIlmeH</bdi>'),
        # Languages that are written in both directions: the text itself tells.
        ({"purpose": {"pa-Arab": "ادائیگی"}, "locale": "en"}, 'lang="pa-Arab">ادائیگی</bdi>'),
        ({"purpose": {"he-Latn": "leshalem"}, "locale": "en"}, 'lang="he-Latn">leshalem</bdi>'),
        ({"purpose": {"en": " . "}, "locale": "en"}, ""),
        ({"purpose": {"de": "", "en": "to pay"}, "locale": "de"}, 'lang="en" dir="ltr">to pay</bdi>'),
        ({"purpose": {"de": "\u00a0.", "en": "to pay"}, "locale": "de"}, 'lang="en" dir="ltr">to pay</bdi>'),
        ({"purpose": "\u3000", "locale": "en"}, ""),
        ({"purpose": "", "locale": "en"}, ""),
        ({}, ""),
    ],
)
def test_a_reason_in_another_language_is_marked_up_as_such(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, wishes: dict[str, Any], reason: str
) -> None:
    """WCAG 3.1.2. Of a text without a locale nobody knows the language, and `lang=""` says so."""
    assert reason_on(ada.get(acme_bot.challenge(**wishes)["url"])) == reason


def test_what_a_bot_wrote_in_several_languages_is_read_again_and_a_plain_text_as_before(
    acme_bot: Bot, acme_server: AuthorizationServer
) -> None:
    several = acme_bot.challenge(purpose=IN_MANY, locale="de")
    assert acme_bot.read_challenge(several)["purpose"] == IN_MANY
    assert Challenge.objects.get().purpose == IN_MANY["de"]
    acme_bot.challenge(purpose=IN_MANY, locale="de-at", replace=True)
    assert Challenge.objects.first().purpose == IN_MANY["de"]  # type: ignore[union-attr]
    plain = acme_bot.challenge(purpose="to pay", replace=True)
    assert acme_bot.read_challenge(plain)["purpose"] == "to pay"


def test_closing_erases_the_reason_in_every_language(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """K6."""
    acme_bot.challenge(purpose={"en": "planted", "de": "planted"})
    acme_bot.in_chat("DELETE")
    assert list(Challenge.objects.values_list("purpose", "purpose_by_locale")) == [("", {})]
