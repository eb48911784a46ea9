"""Every page of the admin in a real browser, on a phone and on a desk, in light and dark, for an admin and a viewer."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.browser.axe import OPTIONS, Axe
from tests.installation import Installation
from tests.served import installation_at_a_free_port, serving

pytestmark = pytest.mark.full

PASSWORD = "a-planted-password-77"
MAKE = f"""
from django.contrib.auth import get_user_model
from django.utils import timezone
from brands.authentication import create_bot_key
from brands.models import BotKey, Brand, ServerHealth
from conversations.flow.challenges import WantedChallenge, issue_challenge
from tests.cast import make_server
acme = Brand.objects.create(name="Acme", slug="acme")
server = make_server(acme)
for number in range(3):
    create_bot_key(acme, f"Web chat {{number}}", ["challenge:create", "challenge:read"])
    wanted = WantedChallenge(server=server)
    issue_challenge(acme, f"web:{{number}}", wanted, actor="bot:x", now=timezone.now())
# A server that fails and a key that reads too much: their marks.
problem = dict(code="no_answer", label="Token endpoint", meaning="No answer. The address is wrong.", remedy="Compare.")
ServerHealth.objects.create(
    authorization_server=server, next_attempt_at=timezone.now(), check_problems=[problem], failing_since=timezone.now()
)
BotKey.objects.filter(pk=1).update(reads_unusual_at=timezone.now())
make = get_user_model().objects.create_user
acme.admins.add(make("ada", password="{PASSWORD}", is_staff=True))
acme.viewers.add(make("vera", password="{PASSWORD}", is_staff=True))
"""
PAGES = (
    "", "brands/", "brands/brand/", "brands/brand/1/change/", "brands/authorizationserver/",
    "brands/authorizationserver/1/change/", "brands/authorizationserver/1/history/", "brands/botkey/",
    "brands/botkey/1/change/", "brands/webhookendpoint/", "conversations/challenge/",
    "conversations/challenge/1/change/", "infrastructure/auditevent/", "password_change/",
)  # fmt: skip


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = installation_at_a_free_port(tmp_path, ALLOW_LOCAL_ENDPOINTS="1")
    made.manage("migrate", "-v0")
    made.python(MAKE)
    return made


def sign_in(page: Page, base: str, name: str) -> None:
    page.goto(f"{base}/admin/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/admin/")


def barriers(page: Page, axe: Axe) -> list[str]:
    """Return the rules of WCAG that the page breaks."""
    page.evaluate(f"() => {{ {axe.source} }}")
    rules = OPTIONS | {"runOnly": [rule for rule in OPTIONS["runOnly"] if rule != "best-practice"]}
    return list(page.evaluate("async options => (await axe.run(document, options)).violations.map(v => v.id)", rules))


@pytest.mark.parametrize("name", ["ada", "vera"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_page_can_be_read_on_a_phone_and_a_desk(
    installation: Installation, requires_chromium: Path, requires_axe: Axe, name: str, width: int, colours: Any
) -> None:
    """H6: no barrier of WCAG 2.2 AA, nothing that the policy stops, and nothing beside the screen."""
    base, said = installation.settings["PUBLIC_BASE_URL"], list[str]()
    found: dict[str, Any] = {}
    with serving(installation), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(requires_chromium), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=colours)
        page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
        sign_in(page, base, name)
        for path in PAGES:
            page.goto(f"{base}/admin/{path}")
            beside = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            cells = page.locator("#result_list tbody tr:first-child > *").all()
            hidden = [cell.inner_text() for cell in cells if not _is_inside(cell.bounding_box(), width)]
            found[path] = (barriers(page, requires_axe), beside, hidden)
        browser.close()
    assert found == dict.fromkeys(PAGES, ([], 0, []))
    assert said == []


def _is_inside(box: Any, width: int) -> bool:
    return box is None or box["x"] + box["width"] <= width
