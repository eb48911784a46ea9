"""A passkey, set up and used in a real browser at an installation that requires a second factor (G10)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.installation import Installation
from tests.served import installation_at_a_free_port, serving

# In milliseconds. Playwright's own 5 seconds for what is expected are too few for a busy machine.
PATIENCE = 30_000
expect.set_options(timeout=PATIENCE)
MAKE_OPERATOR = """
from django.contrib.auth import get_user_model
get_user_model().objects.create_superuser("operator", password="a-planted-password-77")
"""


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Return an installation with the default; browsers know passkeys for a name, and not for an address."""
    made = installation_at_a_free_port(tmp_path)
    made.settings["PUBLIC_BASE_URL"] = made.settings["PUBLIC_BASE_URL"].replace("127.0.0.1", "localhost")
    made.migrate()
    made.python(MAKE_OPERATOR)
    return made


@contextmanager
def page_with_a_passkey_device(executable: Path, complaints: list[str]) -> Iterator[Page]:
    """Open a browser with a device that holds passkeys, and whose owner touches it whenever it asks."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        debugger = page.context.new_cdp_session(page)
        debugger.send("WebAuthn.enable")
        device: dict[str, Any] = {"protocol": "ctap2", "transport": "internal", "automaticPresenceSimulation": True}
        device |= {"hasResidentKey": True, "hasUserVerification": True, "isUserVerified": True}
        debugger.send("WebAuthn.addVirtualAuthenticator", {"options": device})
        yield page
        browser.close()


def test_a_passkey_is_set_up_before_anything_else_and_signs_in(
    installation: Installation, requires_chromium: Path
) -> None:
    """G10: every page holds the policy; the key that was just set up counts at once, and signs in by itself later."""
    complaints: list[str] = []
    base = installation.settings["PUBLIC_BASE_URL"]
    with serving(installation), page_with_a_passkey_device(requires_chromium, complaints) as page:
        page.goto(f"{base}/admin/auth/user/")
        page.get_by_label("Username").fill("operator")
        page.get_by_label("Password").fill("a-planted-password-77")
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.locator(".message").first).to_contain_text("Set up a second factor first")
        page.goto(f"{base}/admin/account/second-factor/webauthn/add/")
        page.get_by_label("Password").fill("a-planted-password-77")
        page.get_by_role("button", name="Confirm").click()
        page.get_by_label("Name").fill("laptop")
        page.get_by_label("Passwordless").check()
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Recovery Codes")
        page.get_by_role("link", name="Back to the admin").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Brands and their conversations")
        page.context.clear_cookies()
        page.goto(f"{base}/admin/auth/user/")
        page.get_by_role("button", name="Sign in with a passkey").click()
        expect(page.get_by_role("heading", level=1)).not_to_have_text("Sign in")
        page.goto(f"{base}/admin/auth/user/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Select user to change")
    assert complaints == []
