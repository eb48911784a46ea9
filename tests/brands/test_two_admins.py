"""Two admins have the same form open: the later save does not undo the earlier one in silence (H10)."""

from collections.abc import Callable
from typing import Any

import pytest

from brands.models import AuthorizationServer, Brand
from tests.admin_pages import OURS, AdminBrowser, House, address, filled_in
from tests.cast import make_admin, make_brand

pytestmark = pytest.mark.django_db

MEANWHILE = "was saved while this form was open"


@pytest.fixture
def ann(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


@pytest.fixture
def bert(acme: Brand) -> AdminBrowser:
    """Another admin of Acme."""
    admin = make_admin(make_brand("other"))
    acme.admins.add(admin)
    return AdminBrowser(admin)


@pytest.fixture
def page(acme_server: AuthorizationServer) -> str:
    return address(AuthorizationServer, "change", acme_server)


def opened(browser: AdminBrowser, page: str) -> dict[str, Any]:
    """Open a form. Returns what it would submit."""
    return sent_again(browser.get(page))


def sent_again(answer: Any) -> dict[str, Any]:
    return filled_in(answer.context["adminform"].form) | {"seen": answer.context["seen"]}


def stored(server: AuthorizationServer) -> tuple[bool, int, int]:
    server.refresh_from_db()
    return server.is_active, server.challenge_lifetime, server.max_token_lifetime


@pytest.fixture
def switch_off(bert: AdminBrowser, page: str) -> Callable[[], None]:
    """Bert switches the server off while Ann has its form open."""

    def save() -> None:
        form = opened(bert, page)
        del form["is_active"]
        assert bert.post(page, form | {"challenge_lifetime": "777"}).status_code == 302

    return save


def test_an_older_form_does_not_undo_another_admins_change(
    ann: AdminBrowser, page: str, acme_server: AuthorizationServer, switch_off: Callable[[], None]
) -> None:
    """H10: the older form switched the server on again, and was reported as a success."""
    before = opened(ann, page)
    switch_off()
    answer = ann.post(page, before | {"max_token_lifetime": "500"})
    assert (answer.status_code, MEANWHILE in answer.content.decode()) == (200, True)
    assert stored(acme_server)[:2] == (False, 777)
    # What was typed is still there, and a second save is a decision.
    again = sent_again(answer)
    assert again["max_token_lifetime"] == "500"
    assert ann.post(page, again).status_code == 302
    assert stored(acme_server) == (True, int(before["challenge_lifetime"]), 500)


@pytest.mark.usefixtures("acme_login")
def test_it_is_said_after_discover_too(
    ann: AdminBrowser, page: str, acme_server: AuthorizationServer, switch_off: Callable[[], None]
) -> None:
    """*Discover* saves nothing and shows the form again, which still holds the older values."""
    before = opened(ann, page)
    switch_off()
    found = ann.post(page, before | {"_discover": "1", "max_token_lifetime": "500"})
    answer = ann.post(page, sent_again(found))
    assert (answer.status_code, MEANWHILE in answer.content.decode()) == (200, True)
    assert stored(acme_server)[:2] == (False, 777)


def test_a_form_that_is_sent_twice_is_no_conflict(ann: AdminBrowser, page: str) -> None:
    form = opened(ann, page) | {"max_token_lifetime": "500"}
    assert [ann.post(page, form).status_code for _ in range(2)] == [302, 302]


@pytest.mark.parametrize("model", [model for model in OURS if model.__module__.startswith("brands.")])
def test_every_form_says_what_it_showed(houses: tuple[House, House], model: type[Any]) -> None:
    acme = houses[0]
    answer = acme.admin.get(address(model, "change", acme.row(model)))
    assert f'name="seen" value="{answer.context["seen"]}"' in answer.content.decode()
    assert answer.context["seen"]
