"""The admin's own look: one stylesheet behind Django's, no script, and lists that a phone can show as cards."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import django.contrib.admin
import pytest
from django.conf import settings as current
from django.contrib.auth.models import User
from django.utils.safestring import mark_safe

from brands.models import BotKey, Brand
from conversations.models import Conversation
from delegation_site.templatetags.cards import with_labels
from tests.admin_pages import AdminBrowser, House, address, addresses_of_the_admin

RESULTS = Path("admin") / "change_list_results.html"


@pytest.mark.django_db
def test_every_page_of_the_admin_has_the_look_behind_every_other_stylesheet(houses: tuple[House, House]) -> None:
    acme, _ = houses
    for page in ("/admin/", address(BotKey, "changelist"), address(BotKey, "change", acme.row(BotKey))):
        text = acme.admin.get(page).content.decode()
        assert text.rpartition('<link rel="stylesheet"')[2].lstrip().startswith('href="/static/admin_look.css"')
        assert '<link rel="icon" href="/static/icon.svg"' in text


@pytest.mark.django_db
def test_moments_say_their_seconds_and_their_zone(houses: tuple[House, House]) -> None:
    """The bug: "Nov. 28, 2026, 3:43 p.m.", beside a timeline in UTC."""
    acme, _ = houses
    key = acme.row(BotKey)
    created = f"{key.created_at:%Y-%m-%d %H:%M:%S} UTC"
    assert created in acme.admin.get(address(BotKey, "change", key)).content.decode()


@pytest.mark.django_db
def test_the_heading_of_a_list_says_what_it_lists(houses: tuple[House, House]) -> None:
    """The bug: "Select bot key to change", though most of it never changes."""
    acme, _ = houses
    assert "<h1>Bot keys</h1>" in acme.admin.get(address(BotKey, "changelist")).content.decode()


@pytest.mark.django_db
def test_each_cell_of_a_list_says_its_column(houses: tuple[House, House]) -> None:
    """On a phone the heads of the columns are not there."""
    acme, _ = houses
    text = acme.admin.get(address(BotKey, "changelist")).content.decode()
    assert '<td data-label="Public id" class="field-public_id">' in text
    assert '<td class="action-checkbox">' in text
    assert text.count(' data-label="Label"') == 1


def test_the_words_of_a_column_are_escaped() -> None:
    cells = [mark_safe("<td>a</td>"), mark_safe('<td class="x">b</td>')]
    headers: list[dict[str, Any]] = [{"text": 'a"><b>'}, {"text": "b", "class_attrib": ' class="x"'}]
    labelled = with_labels(cells, headers)
    assert labelled == ['<td data-label="A&quot;&gt;&lt;b&gt;">a</td>', '<td data-label="B" class="x">b</td>']


@pytest.mark.skipif(django.VERSION[:2] != (5, 2), reason="our copy is that of the Django in requirements.txt")
def test_the_copied_template_is_still_djangos_but_for_the_labels() -> None:
    """A new Django may change its own; then the copy has to follow."""
    theirs = (Path(django.contrib.admin.__file__).parent / "templates" / RESULTS).read_text()
    ours = (current.BASE_DIR / "templates" / RESULTS).read_text().partition("\n")[2]
    back = ours.replace("{% load i18n cards %}", "{% load i18n %}").replace(
        "result|with_labels:result_headers", "result"
    )
    assert back == theirs


class _Forms(HTMLParser):
    """The `autocomplete` of each field of each form on a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "form":
            self.found.append([])
        elif tag == "input" and self.found:
            given = dict(attrs)
            word = given.get("autocomplete") or ("no word" if given.get("type") == "password" else "")
            self.found[-1].append(word)


@pytest.mark.django_db
def test_every_form_with_an_accounts_password_names_the_account(
    houses: tuple[House, House], operator: AdminBrowser
) -> None:
    """The bug: a password manager could not tell whose password it saves or fills in."""
    acme, _ = houses
    asking = set()
    for path in addresses_of_the_admin(replace(acme, admin=operator), with_accounts=True):
        forms = _Forms()
        forms.feed(operator.get(path).content.decode(errors="replace"))
        for words in forms.found:
            assert "no word" not in words, path
            if {"current-password", "new-password"} & set(words) and "/authorizationserver/" not in path:
                assert "username" in words, path
                asking.add(path)
    user = address(User, "change", operator.user)
    of_others = {address(User, "add"), user.replace("/change/", "/password/")}
    assert asking == {"/admin/password_change/", "/admin/account/reauthenticate/", *of_others}


@pytest.mark.django_db
def test_a_page_that_changes_nothing_leads_back_to_its_list(houses: tuple[House, House]) -> None:
    """The bug: a button "Close" on a conversation's page, beside "Close and erase"."""
    acme, _ = houses
    page = acme.admin.get(address(Conversation, "change", acme.row(Conversation))).content.decode()
    assert f'<a href="{address(Conversation, "changelist")}" class="closelink">Back to the list</a>' in page
    assert ">Close<" not in page


@pytest.mark.django_db
def test_a_choice_has_no_pictures_that_open_windows(houses: tuple[House, House], operator: AdminBrowser) -> None:
    acme, _ = houses
    for page in (address(BotKey, "add"), address(Brand, "change", acme.brand)):
        assert "related-widget-wrapper" not in operator.get(page).content.decode()
