"""The consumer's language: every sentence in every one, chosen without a cookie, right to left where it is so."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import RequestFactory
from django.utils import timezone, translation
from django.utils.timesince import timesince

from tests.cast import Bot, Browser, heading_of
from tests.catalogs import LANGUAGES, catalog, compiled, sentences
from web.pages import language_of_chat, language_of_page

CODES = [translation.to_language(name) for name in LANGUAGES]
PLACEHOLDER = re.compile(r"%\(\w+\)s|<[^>]+>")


def words(found: Any) -> dict[str, str]:
    return {str(message.id): str(message.string) for message in found if message.id}


def test_there_is_a_catalog_for_every_language_but_english() -> None:
    assert sorted(["en", *CODES]) == sorted(code for code, _ in settings.LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_has_words_and_nothing_is_left_over(language: str) -> None:
    found = catalog(language)
    assert set(words(found)) == sentences()
    assert [message.id for message in found if message.id and (not message.string or message.fuzzy)] == []
    assert list(found.obsolete) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_placeholders_and_tags_of_its_sentence(language: str) -> None:
    kept = {sentence: sorted(PLACEHOLDER.findall(sentence)) for sentence in sentences()}
    assert {sentence: sorted(PLACEHOLDER.findall(said)) for sentence, said in words(catalog(language)).items()} == kept


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_can_stand_in_an_attribute(language: str) -> None:
    """Some do, as a live region's words; and what a translator writes is not escaped."""
    marks = {said for said in words(catalog(language)).values() if set('"&') & set(said.replace('class="host"', ""))}
    assert marks == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_django_reads_is_what_people_wrote(language: str) -> None:
    """Compiled and committed: an installation needs no gettext."""
    assert words(compiled(language)) == words(catalog(language))


@pytest.mark.parametrize(
    ("locale", "accepted", "language"),
    [
        ("de-AT", "fr", "de"),
        ("pt", "fr", "pt-br"),
        ("iw-IL", "fr", "he"),
        ("", "fr-CA, en;q=0.5", "fr"),
        ("xx", "en;q=0.5, es-MX;q=0.9", "es"),
        ("", "de;q=0, he", "he"),
        ("", "de;q=high, fr;q=0.1", "fr"),
        ("tlh-Latn", "*", "en"),
        ("", "", "en"),
        ("", "de" * 400, "en"),
    ],
)
def test_the_chats_locale_comes_first_then_what_the_browser_asks_for(locale: str, accepted: str, language: str) -> None:
    request = RequestFactory().get("/", headers={"Accept-Language": accepted})
    request.COOKIES["django_language"] = "es"
    assert language_of_page(request, locale) == language


@pytest.mark.django_db
def test_the_sentence_for_the_chat_is_in_its_language(acme_bot: Bot, acme_server: Any) -> None:
    message = acme_bot.challenge(locale="de-DE")["message"]
    assert message.startswith("Bitte melden Sie sich bei Acme an, um fortzufahren: https://delegation.test/c/")
    assert acme_bot.challenge(locale="xx", replace=True)["message"].startswith("Please sign in at Acme to continue: ")
    assert language_of_chat("") == "en"


@pytest.mark.django_db
def test_a_page_is_in_the_chats_language_and_says_which(acme_bot: Bot, ada: Browser, acme_server: Any) -> None:
    page = ada.get(acme_bot.challenge(locale="he")["url"])
    assert '<html lang="he" dir="rtl">' in page.content.decode()
    sentence = words(catalog("he"))["Sign in to %(brand)s to continue your chat"]
    assert heading_of(page) == sentence.replace("%(brand)s", "Acme")
    assert (page["Content-Language"], page["Vary"]) == ("he", "Accept-Language, Cookie")
    assert translation.get_language() == "en"


@pytest.mark.django_db
def test_a_dead_links_page_and_an_error_are_in_the_browsers_language(
    acme_bot: Bot, ada: Browser, acme_server: Any
) -> None:
    """G9: the language of a link that has ended would say that there was one."""
    challenge = acme_bot.challenge(locale="he")
    acme_bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")
    headers = {"Accept-Language": "fr-FR,fr;q=0.9,en;q=0.8"}
    dead = ada.client.get(challenge["url"], secure=True, headers=headers)
    missing = ada.client.get("/nothing", secure=True, headers=headers)
    assert (dead.status_code, heading_of(dead)) == (404, "Ce lien ne fonctionne plus")
    assert (missing.status_code, heading_of(missing)) == (404, "Il n'y a rien ici")
    assert '<html lang="fr" dir="ltr">' in dead.content.decode()


@pytest.mark.parametrize(("code", "said"), [("de", "2 Stunden"), ("fr", "2 heures"), ("he", "שעתיים")])
def test_durations_are_told_in_the_pages_language(code: str, said: str) -> None:
    """Pages tell durations, since nobody knows a consumer's time zone; the words are Django's own."""
    now = timezone.now()
    with translation.override(code):
        assert timesince(now, now + timedelta(hours=2)).replace("\xa0", " ") == said
