"""The admin in a real browser: a secret that is typed and interrupted, and lists on a desktop and on a phone."""

import re
from typing import Final

import pytest
from playwright.sync_api import FloatRect, Page, expect

from demo.processes import run_command
from tests.browser.pictures import LOOKS, Look, show_as
from tests.browser.profiles import Profile, heading
from tests.browser.stage import LEAKED, STUBBORN, Bot, Stage

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
def admin(stage: Stage, stranger: Profile, admin_password: str) -> Page:
    """Return the admin's first page after a sign-in."""
    page = stranger.open(f"{stage.addresses.product}/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(admin_password)
    page.get_by_role("button", name="Sign in", exact=True).click()
    heading(page, "Brands and their conversations")
    return page


def let_time_pass(stage: Stage) -> None:
    command = ["manage.py", "shell", "--no-imports", "-c", _LET_TIME_PASS]
    run_command(command, stage.demo.product_environment())


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
    stage: Stage, admin: Page, victor: Profile
) -> None:
    """H10. The bug: the form said "was changed successfully", and sign-ins went on with the secret that had leaked."""
    page = victor.follow(Bot(stage, LEAKED).challenge()["url"])
    heading(page, "Acme cannot sign you in right now")
    let_time_pass(stage)
    admin.goto(f"{stage.addresses.product}/admin/brands/authorizationserver/")
    admin.get_by_role("link", name=LEAKED, exact=True).click()
    admin.get_by_label("Client secret").fill(stage.demo.client_secret)
    admin.get_by_text("Lifetimes, in seconds").click()
    admin.get_by_label("How long a link works").fill("10")
    save(admin)
    expect(admin.get_by_text("greater than or equal to 300")).to_be_visible()
    expect(admin.get_by_text("The secret that you typed is not saved yet.")).to_be_visible()
    admin.get_by_label("How long a link works").fill("600")
    confirm(admin, stage.demo.admin_password)
    assert admin.get_by_label("Client secret").input_value() == ""
    save(admin)
    expect(admin.get_by_text("was changed successfully")).to_be_visible()
    admin.get_by_role("link", name=LEAKED, exact=True).click()
    expect(admin.get_by_text("UTC by admin.")).to_be_visible()
    signed_in = Bot(stage, LEAKED)
    victor.follow(signed_in.challenge()["url"])
    assert stage.customer_of(signed_in.read_token().body["access_token"]) == "victor"


def sign_in_again_in_another_tab(page: Page, stage: Stage, password: str) -> None:
    other = page.context.new_page()
    other.goto(f"{stage.addresses.product}/admin/")
    other.get_by_label("Username").fill("admin")
    other.get_by_label("Password").fill(password)
    other.get_by_role("button", name="Sign in", exact=True).click()
    heading(other, "Brands and their conversations")
    other.close()


def test_forms_that_were_open_before_a_sign_in_in_another_tab_lead_on(
    stage: Stage, admin: Page, stranger: Profile
) -> None:
    """B22, H10: a form of the admin, the sign-in page itself, and a consumer's link in the same browser."""
    stranger.expected.add(403)
    product, refused = stage.addresses.product, "Somebody has signed in since this form was opened"
    admin.goto(f"{product}/admin/brands/brand/")
    admin.locator("#result_list tbody th a").click()
    expect(admin.get_by_role("button", name="Save", exact=True)).to_be_visible()
    link, sign_in = admin.context.new_page(), admin.context.new_page()
    link.goto(Bot(stage, STUBBORN).challenge()["url"])
    admin.context.clear_cookies(name="__Host-session")  # the session ends after eight hours
    sign_in.goto(f"{product}/admin/brands/brand/")
    sign_in_again_in_another_tab(admin, stage, stage.demo.admin_password)

    form = admin.url
    save(admin)
    heading(admin, refused)
    admin.get_by_role("link", name="Open the form again").click()
    expect(admin).to_have_url(form)
    save(admin)
    expect(admin.get_by_text("was changed successfully")).to_be_visible()

    sign_in.get_by_label("Username").fill("admin")
    sign_in.get_by_label("Password").fill(stage.demo.admin_password)
    sign_in.get_by_role("button", name="Sign in", exact=True).click()
    heading(sign_in, refused)
    sign_in.get_by_role("link", name="Open the form again").click()
    expect(sign_in).to_have_url(f"{product}/admin/brands/brand/")

    link.locator("main form button").first.click()
    heading(link, "This was not sent from our own page")
    link.get_by_role("link", name="Try again").click()
    link.locator("main form button").first.click()
    expect(link).not_to_have_url(re.compile(f"^{re.escape(product)}/c/"))


def test_status_and_error_of_a_challenge_are_on_the_screen(stage: Stage, admin: Page, victor: Profile) -> None:
    """The bug: the last column was cut off at 1280 pixels; on a phone one had to scroll sideways to see how it went."""
    conversation = f"teams:19:{'f3a8c1b209d4e5f6' * 4}@thread.v2"
    victor.follow(Bot(stage, STUBBORN, conversation).challenge()["url"])
    admin.goto(f"{stage.addresses.product}/admin/conversations/challenge/")
    row = admin.locator("#result_list tbody tr").first
    expect(row.locator(".field-conversation")).to_have_text(conversation)
    expect(row.locator(".field-last_error")).to_have_text("temporarily_unavailable")
    for look in LOOKS:
        show_as(admin, look)
        places = [cell.bounding_box() for cell in row.locator("th, td").all()]
        assert [place for place in places if not is_on(look, place)] == []
        assert admin.locator(".results").evaluate("list => list.scrollWidth <= list.clientWidth")
        headings = admin.locator("#result_list thead").bounding_box()
        assert headings
        assert (headings["height"] > 1) == (look.device == "desktop")


def is_on(look: Look, place: FloatRect | None) -> bool:
    return place is not None and place["x"] >= 0 and place["x"] + place["width"] <= look.width
