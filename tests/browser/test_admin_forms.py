"""The admin's form of an authorization server, as a person uses it who types a secret and is interrupted."""

from typing import Final

import pytest
from playwright.sync_api import Page, expect

from demo.preparation import create_admin
from demo.processes import run_command
from tests.browser.profiles import Profile, heading
from tests.browser.stage import LEAKED, Bot, Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]

# Ten minutes pass for every sign-in.
_LET_TIME_PASS: Final = """
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
for row in Session.objects.all():
    session = SessionStore(row.session_key)
    records = session.get("account_authentication_methods", [])
    session["account_authentication_methods"] = [record | {"at": record["at"] - 660} for record in records]
    session.save()
"""


@pytest.fixture
def admin_page(stage: Stage, stranger: Profile) -> Page:
    """Return the form of the server whose secret leaked, opened by a superuser eleven minutes after the sign-in."""
    environment = stage.demo.product_environment()
    create_admin(stage.demo.admin_password, environment)
    page = stranger.open(f"{stage.addresses.product}/admin/brands/authorizationserver/?q=")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(stage.demo.admin_password)
    page.get_by_role("button", name="Sign in", exact=True).click()
    run_command(["manage.py", "shell", "--no-imports", "-c", _LET_TIME_PASS], environment)
    page.get_by_role("link", name=LEAKED, exact=True).click()
    return page


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_load_state()


def confirm(page: Page, password: str) -> None:
    """Follow the link of the message into another tab, and give the password there."""
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Confirm that it is you").click()
    other = opened.value
    other.get_by_label("Password").fill(password)
    other.get_by_role("button", name="Confirm").click()
    heading(other, "Brands and their conversations")
    other.close()


def test_a_replaced_secret_survives_another_fields_error_and_the_confirmation(
    stage: Stage, admin_page: Page, victor: Profile
) -> None:
    """H10. The bug: the form said "was changed successfully", and sign-ins went on with the secret that had leaked."""
    page = victor.follow(Bot(stage, LEAKED).challenge()["url"])
    heading(page, "Acme cannot sign you in right now")
    admin_page.get_by_label("Client secret").fill(stage.demo.client_secret)
    admin_page.get_by_label("Challenge lifetime").fill("10")
    save(admin_page)
    expect(admin_page.get_by_text("greater than or equal to 300")).to_be_visible()
    expect(admin_page.get_by_text("The secret that you typed is not saved yet.")).to_be_visible()
    admin_page.get_by_label("Challenge lifetime").fill("600")
    confirm(admin_page, stage.demo.admin_password)
    assert admin_page.get_by_label("Client secret").input_value() == ""
    save(admin_page)
    expect(admin_page.get_by_text("was changed successfully")).to_be_visible()
    admin_page.get_by_role("link", name=LEAKED, exact=True).click()
    expect(admin_page.get_by_text("UTC by admin.")).to_be_visible()
    signed_in = Bot(stage, LEAKED)
    victor.follow(signed_in.challenge()["url"])
    assert stage.customer_of(signed_in.read_token().body["access_token"]) == "victor"
