"""A brand is connected from an empty database: in a real browser, at npm `oidc-provider`, as docs/brand-admin.md shows.

`PERSONS_PACE=1` reads, points and types as slowly as a person does. The seconds are printed. `KEEP_PICTURES=1` keeps
the pictures of docs/brand-admin.md.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect, sync_playwright

from tests import measurements
from tests.browser.pictures import LOOKS, keep_looks, show_as
from tests.installation import Installation
from tests.peers.oidc_provider import OidcProvider
from tests.served import installation_at_a_free_port, serving

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("oidc_provider"), pytest.mark.timeout(600)]

_ID: Final = {"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}
_LOGIN: Final = [{"login": ["orders.read"]}]
_PATHS: Final = {
    "/orders": {
        "get": {"operationId": "orders.list", "summary": "List the customer's orders", "security": _LOGIN},
        "post": {"operationId": "orders.upload", "requestBody": {"required": True, "content": {"text/csv": {}}}},
    },
    "/orders/{order_id}": {
        "get": {"operationId": "orders.read", "summary": "Read one order", "parameters": [_ID], "security": _LOGIN},
        "delete": {"operationId": "orders.cancel", "summary": "Cancel an order", "parameters": [_ID]},
    },
}
_SCHEMES: Final = {"securitySchemes": {"login": {"type": "openIdConnect"}}}
DOCUMENT: Final[FilePayload] = {
    "name": "openapi.json",
    "mimeType": "application/json",
    "buffer": json.dumps({"openapi": "3.1.0", "paths": _PATHS, "components": _SCHEMES}).encode(),
}
PASSWORD: Final = "a-planted-password-77"
# In seconds: to find one's way on a new page, to point and press, to paste, and to type one letter.
_READ, _PRESS, _PASTE, _TYPE = (5.0, 1.5, 2.0, 0.25) if os.environ.get("PERSONS_PACE") else (0.0,) * 4


class Person:
    """An admin at a browser."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def reads(self, heading: str) -> None:
        expect(self.page.get_by_role("heading", name=heading).first).to_be_visible()
        time.sleep(_READ)

    def presses(self, target: Locator) -> None:
        time.sleep(_PRESS)
        target.click()

    def presses_button(self, name: str) -> None:
        self.presses(self.page.get_by_role("button", name=name, exact=True))

    def follows(self, name: str) -> None:
        self.presses(self.page.get_by_role("link", name=name, exact=True).first)

    def types(self, label: str, text: str) -> None:
        time.sleep(_PRESS + _TYPE * len(text))
        self.page.get_by_label(label).fill(text)

    def pastes(self, label: str, text: str) -> None:
        time.sleep(_PASTE)
        self.page.get_by_label(label).or_(self.page.get_by_placeholder(label)).fill(text)

    def keeps(self, name: str) -> None:
        """Take the pictures of this page."""
        keep_looks(self.page, f"setup-{name}")
        show_as(self.page, LOOKS[2])


@pytest.fixture
def installation(tmp_path: Path, oidc_provider: OidcProvider) -> Installation:
    """An empty database, and the account that `createsuperuser` makes."""
    made = installation_at_a_free_port(tmp_path, ALLOW_LOCAL_ENDPOINTS="1", OUTBOUND_CA_FILE=oidc_provider.ca_file)
    made.migrate()
    made.settings["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    made.manage("createsuperuser", "--no-input", "--username", "ada", "--email", "ada@acme.example")
    return made


@pytest.fixture
def ada(installation: Installation, requires_chromium: Path) -> Iterator[Person]:
    with serving(installation), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(requires_chromium), args=["--no-sandbox"])
        page = browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 800}).new_page()
        page.goto(f"{installation.settings['PUBLIC_BASE_URL']}/admin/")
        yield Person(page)
        browser.close()


def test_a_brand_is_connected_from_an_empty_database(ada: Person, oidc_provider: OidcProvider) -> None:
    """Brand, server by discovery, doctor, trial sign-in, bot key: with nothing but what the pages say."""
    began = time.monotonic()
    signs_in(ada)
    adds_the_brand(ada)
    adds_the_server(ada, oidc_provider)
    has_the_set_up_checked(ada)
    tries_a_sign_in(ada)
    makes_a_bot_key(ada)
    pace = "at a person's pace" if _READ else "at once"
    measurements.note("first set-up", pace, {"seconds": round(time.monotonic() - began)})
    declares_what_bots_may_do(ada)


def signs_in(ada: Person) -> None:
    ada.types("Username", "ada")
    ada.pastes("Password", PASSWORD)
    ada.presses_button("Sign in")
    ada.reads("Brands and their conversations")
    ada.keeps("empty")


def adds_the_brand(ada: Person) -> None:
    ada.follows("Add brand")
    ada.reads("Add brand")
    ada.types("Name:", "Acme")
    ada.types("Slug", "acme")
    ada.presses_button("Save")


def adds_the_server(ada: Person, provider: OidcProvider) -> None:
    """The redirect URI is copied to the server's console before the first save."""
    ada.follows("Home")
    ada.follows("Connect your authorization server")
    ada.follows("Add authorization server")
    ada.reads("Add authorization server")
    redirect_uri = ada.page.locator(".field-redirect_uri code").inner_text()
    registered = provider.register(redirect_uri)
    ada.page.get_by_label("Brand").first.select_option("Acme")
    ada.types("Short name", "orders")
    ada.pastes("Issuer (your", f"{provider.issuer}/.well-known/openid-configuration")
    ada.presses_button("Discover")
    ada.reads("What your server publishes")
    ada.pastes("Client ID:", registered.client_id)
    ada.pastes("Client secret", registered.client_secret)
    ada.types("Scope to ask for", "openid orders.read")
    ada.keeps("server")
    ada.presses_button("Save")


def has_the_set_up_checked(ada: Person) -> None:
    ada.follows("orders")
    ada.follows("Check the set-up")
    ada.reads("Check the set-up")
    ada.presses_button("Check the set-up now")
    expect(ada.page.get_by_text("Everything that can be proven without a sign-in")).to_be_visible()
    # One of them: the server announces DPoP, and nobody has switched it on.
    expect(ada.page.locator(".step.good")).to_have_count(5)
    expect(ada.page.locator(".step.problem, .step.note")).to_have_count(0)
    ada.keeps("doctor")


def tries_a_sign_in(ada: Person) -> None:
    ada.follows("Back to Acme orders")
    ada.follows("Try a sign-in")
    ada.reads("Try a sign-in")
    ada.presses_button("Try a sign-in")
    # oidc-provider's own pages, which ask for any name and any password.
    ada.pastes("Enter any login", "ada")
    ada.pastes("and password", "any")
    ada.presses_button("Sign-in")
    ada.presses_button("Continue")
    expect(ada.page.get_by_text("A consumer can sign in like this")).to_be_visible()
    expect(ada.page.locator(".step.problem, .step.note")).to_have_count(0)
    ada.keeps("trial")


def declares_what_bots_may_do(ada: Person) -> None:
    """Two operations of the API's own document are ticked, and one gets its words."""
    ada.follows("Home")
    ada.follows("Brand APIs")
    ada.follows("Add brand API")
    ada.reads("Add brand API")
    ada.page.get_by_label("Authorization server").first.select_option("Acme orders")
    ada.types("Short name", "orders-api")
    ada.pastes("Address of the API", "https://api.acme.example/v1")
    ada.presses_button("Save")
    ada.follows("orders-api")
    ada.follows("Import operations")
    ada.page.get_by_label("File").set_input_files(DOCUMENT)
    ada.presses_button("Read the document")
    ada.presses(ada.page.get_by_label("orders.list"))
    ada.presses(ada.page.get_by_label("orders.cancel"))
    ada.keeps("import")
    ada.presses_button("Declare the ticked operations")
    expect(ada.page.get_by_text("2 operations declared.")).to_be_visible()
    ada.follows("orders.cancel")
    ada.types("What it does, for people", "cancel an order")
    ada.keeps("operation")
    ada.presses_button("Save")


def makes_a_bot_key(ada: Person) -> None:
    ada.follows("Home")
    ada.follows("Make a key for your bot")
    ada.follows("Add bot key")
    ada.reads("Add bot key")
    ada.page.get_by_label("Brand").first.select_option("Acme")
    ada.types("Label", "acme-bot")
    ada.presses(ada.page.get_by_label("api:call"))
    ada.presses_button("Save")
    expect(ada.page.get_by_text("Copy the key now")).to_contain_text("cdk_")
    ada.keeps("key")
