"""Errors below `/admin/` have the admin's own page: the consumer's speaks of a chat, and has no way back."""

import re
from typing import Any

import pytest
from django.test import Client

from brands.models import AuthorizationServer
from tests.admin_pages import House, address
from tests.cast import HOST, client_of_ours

pytestmark = pytest.mark.django_db

Houses = tuple[House, House]
NOWHERE = ["/admin/nowhere", "/admin/brands/nothing/", "/admin/auth/group/", "/admin/account/nowhere/"]


def words_of(answer: Any) -> str:
    text = re.sub(r"<(style|script|head).*?</\1>", "", answer.content.decode(), flags=re.DOTALL)
    return " ".join(re.sub("<[^>]+>", " ", text).split())


@pytest.mark.parametrize("url", NOWHERE)
def test_an_unknown_address_leads_back_to_the_admin(houses: Houses, url: str) -> None:
    """The bug: "Go back to your chat and open the link again", in a page whose style the admin's policy blocked."""
    acme, rival = houses
    answer = acme.admin.get(url)
    assert answer.status_code == 404
    text = answer.content.decode()
    assert '<a href="/admin/">Back to the first page of the admin</a>' in text
    assert "chat" not in words_of(answer).lower()
    assert "<style" not in text
    assert [mark for mark in (*acme.marks, *rival.marks) if mark in text] == []


@pytest.mark.parametrize("url", [*NOWHERE, "/admin/brands/"])
def test_a_stranger_learns_nothing_of_which_addresses_there_are(db: None, url: str) -> None:
    answer = Client(SERVER_NAME=HOST).get(url, secure=True)
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={url}")


def test_a_page_that_is_not_allowed_and_a_bad_filter_have_it_too(houses: Houses) -> None:
    acme, _ = houses
    refused = acme.admin.get("/admin/auth/user/")
    assert refused.status_code == 403
    assert "Your operator can allow it" in words_of(refused)
    bad = acme.admin.get(address(AuthorizationServer, "changelist"), client_secret_ciphertext__startswith="x")
    assert bad.status_code == 400
    for answer in (refused, bad):
        assert "Back to the first page of the admin" in words_of(answer)
        assert "chat" not in words_of(answer).lower()


def test_a_sign_in_form_without_its_cookie_says_what_to_do() -> None:
    """B22: nobody is signed in, and no list of the admin's pages is shown."""
    answer = client_of_ours(enforce_csrf_checks=True).post("/admin/account/login/", {}, secure=True)
    assert answer.status_code == 403
    assert "allow cookies for this website" in words_of(answer)
    assert "Authorization servers" not in words_of(answer)


def test_the_address_without_its_slash_leads_to_the_admin() -> None:
    """The bug: 404, and a page that speaks of a chat, for whoever types /admin."""
    answer = Client(SERVER_NAME=HOST).get("/admin", secure=True)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
