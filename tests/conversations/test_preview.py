"""The consumer's page as a brand's admin previews it: with typed values, and nothing saved."""

from typing import Any

import pytest
from django.urls import reverse

from brands.models import AuthorizationServer, Brand
from conversations.models import Challenge, Conversation
from tests.cast import Browser, heading_of
from tests.conversations.test_trial_sign_in import TrialBrowser

pytestmark = pytest.mark.django_db


def preview(browser: Browser, brand: Brand, **typed: str) -> Any:
    address = reverse("brand_preview", args=[brand.pk])
    browser.get(reverse("admin:brands_brand_change", args=[brand.pk]))
    token = {"csrfmiddlewaretoken": browser.client.cookies["__Host-csrf"].value}
    return browser.client.post(address, token | typed, secure=True, headers={"Referer": "https://delegation.test/"})


@pytest.fixture
def admin(acme_admin: Any) -> TrialBrowser:
    return TrialBrowser(acme_admin)


def test_the_preview_shows_what_is_typed_and_saves_nothing(
    admin: TrialBrowser, acme: Brand, acme_server: AuthorizationServer
) -> None:
    page = preview(admin, acme, name="Acme Boots", accent_colour="#aa2200", support_contact="mailto:help@acme.example")
    text = page.content.decode()
    assert heading_of(page) == "Sign in to Acme Boots to continue your chat"
    assert ("--fill:#aa2200" in text, 'href="mailto:help@acme.example"' in text) == (True, True)
    assert "Continue to login.acme.example" in text
    acme.refresh_from_db()
    assert (acme.name, acme.accent_colour, acme.support_contact) == ("Acme", "", "")
    assert (Challenge.objects.count(), Conversation.objects.count()) == (0, 0)


def test_the_preview_shows_a_support_contact_as_it_would_be_saved(admin: TrialBrowser, acme: Brand) -> None:
    """The form takes a plain address and saves it as `mailto:`; the preview left it out."""
    text = preview(admin, acme, support_contact=" help@acme.example ").content.decode()
    assert 'href="mailto:help@acme.example"' in text


def test_a_viewers_preview_shows_what_is_saved(admin: TrialBrowser, acme: Brand, rival_admin: Any) -> None:
    """J15: a viewer's page has no fields, so its button sends none; the support contact was missing then."""
    Brand.objects.filter(pk=acme.pk).update(support_contact="mailto:help@acme.example")
    acme.viewers.add(rival_admin)
    for browser in (admin, TrialBrowser(rival_admin)):
        assert 'href="mailto:help@acme.example"' in preview(browser, acme).content.decode()


def test_a_typed_address_that_could_run_a_script_is_left_out(admin: TrialBrowser, acme: Brand) -> None:
    """B17: the page is ours; what is typed must not become a link of any other scheme."""
    page = preview(admin, acme, name="<b>Acme</b>", support_contact="data:text/html,hello", accent_colour="red;}")
    text = page.content.decode()
    assert ("data:text" in text, "<b>Acme" in text, "red;}" in text) == (False, False, False)
    assert "style-src 'sha256-" in page["Content-Security-Policy"]


def test_a_brand_without_a_server_has_a_preview(admin: TrialBrowser, acme: Brand) -> None:
    page = admin.get(reverse("brand_preview", args=[acme.pk]))
    assert "Continue to login.example" in page.content.decode()


def test_the_preview_speaks_other_languages(admin: TrialBrowser, acme: Brand) -> None:
    page = admin.get(reverse("brand_preview", args=[acme.pk]) + "?language=he")
    assert 'lang="he" dir="rtl"' in page.content.decode()


def test_its_buttons_begin_nothing(admin: TrialBrowser, acme: Brand, acme_server: AuthorizationServer) -> None:
    admin.get(reverse("brand_preview", args=[acme.pk]))
    answer = admin.press("https://delegation.test/c/preview-of-the-page-no-link")
    assert (answer.status_code, Challenge.objects.count()) == (303, 0)


def test_another_brands_page_is_not_found(rival_admin: Any, acme: Brand) -> None:
    """J1."""
    assert TrialBrowser(rival_admin).get(reverse("brand_preview", args=[acme.pk])).status_code == 404


def test_the_form_has_the_preview_beside_it(admin: TrialBrowser, acme: Brand) -> None:
    """B17: in a frame without scripts and forms, which only our own pages can show."""
    address = reverse("brand_preview", args=[acme.pk])
    form = admin.get(reverse("admin:brands_brand_change", args=[acme.pk]))
    frame = 'title="Preview of the page that a link opens" sandbox="allow-same-origin"'
    for part in (
        f'formaction="{address}" formtarget="consumer-preview"',
        f'name="consumer-preview" src="{address}" {frame}',
    ):
        assert part in form.content.decode()
    framed = admin.get(address)
    assert framed["X-Frame-Options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in framed["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in form["Content-Security-Policy"]


def test_a_frame_says_that_the_session_has_ended(admin: TrialBrowser, acme: Brand) -> None:
    """H10: the sign-in page cannot be framed, so the frame stayed blank, and the next sign-in spoke of a lost form."""
    admin.get(reverse("admin:brands_brand_change", args=[acme.pk]))
    admin.client.session.flush()
    token = {"csrfmiddlewaretoken": admin.client.cookies["__Host-csrf"].value}
    address = reverse("brand_preview", args=[acme.pk])
    page = admin.client.post(address, token, secure=True, headers={"Referer": "https://delegation.test/"})
    assert (page.status_code, page["X-Frame-Options"], "signed out" in page.content.decode()) == (
        403,
        "SAMEORIGIN",
        True,
    )
    assert "frame-ancestors 'self'" in page["Content-Security-Policy"]
    assert admin.get(address).status_code == 302  # "Open in a new tab" leads to the sign-in
