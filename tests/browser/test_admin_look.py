"""Every page of the admin in a real browser, on a phone and on a desk, in light and dark, as each kind of account.

The pages come from the URL configuration, so that a new one cannot be forgotten. `KEEP_PICTURES=1` keeps pictures.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.browser.axe import Axe
from tests.browser.pictures import LOOKS, keep_looks, show_as
from tests.installation import Installation
from tests.served import installation_at_a_free_port, serving

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

PASSWORD: Final = "a-planted-password-77"
# One brand with rows of every model, and the addresses of all pages about them.
MAKE: Final = f"""
import json
from datetime import timedelta
from types import SimpleNamespace
from django.contrib.auth import get_user_model
from django.utils import timezone
from brands.authentication import create_bot_key
from brands.models import BotKey, Brand, ServerHealth, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
from conversations.flow.authorization_requests import begin_authorization_request
from conversations.flow.challenges import WantedChallenge, issue_challenge
from conversations.flow.outcomes import store_result
from conversations.models import ApiCallCount, TokenReadCount
from infrastructure.crypto import Secret
from oauth_client import Account, TokenResponse
from tests.admin_pages import House, addresses_of_the_admin
from tests.cast import declare_api, declare_operation, make_server

now = timezone.now()
acme = Brand.objects.create(name="Acme", slug="acme")
make = get_user_model().objects.create_user
operator = get_user_model().objects.create_superuser("operator", password="{PASSWORD}")
ada = make("ada", password="{PASSWORD}", is_staff=True)
acme.admins.add(ada)
acme.viewers.add(make("vera", password="{PASSWORD}", is_staff=True))
make("eve", password="{PASSWORD}", is_staff=True)
server = make_server(acme)
endpoint = WebhookEndpoint(brand=acme, url="https://bot.acme.example/webhooks/consumer-delegation", label="Web chat")
create_webhook_endpoint(endpoint, ada)
for number in range(3):
    key, _ = create_bot_key(acme, f"Web chat {{number}}", ["challenge:create", "challenge:read"])
    chat = "teams:19:" + f"{{number}}f3a8c1b209d4e5f6" * 3 + "@thread.v2"
    challenge, _ = issue_challenge(acme, chat, WantedChallenge(server=server), actor=f"bot:{{key.public_id}}", now=now)
    begun = begin_authorization_request(challenge, now)
    token = TokenResponse(Secret(f"token-{{number}}"), server.scope, False, now + timedelta(hours=1), False, None)
    store_result(begun.authorization_request, begun.cookie.reveal(), token, Account(), now)
# A server that fails and a key that reads too much: their marks.
problem = dict(code="no_answer", label="Token endpoint", meaning="No answer. The address is wrong.", remedy="Compare.")
ServerHealth.objects.create(
    authorization_server=server, next_attempt_at=now, check_problems=[problem], failing_since=now
)
BotKey.objects.filter(pk=key.pk).update(reads_unusual_at=now)
TokenReadCount.objects.create(bot_key=key, hour=now, purpose="order.status", times=7)
operation = declare_operation(declare_api(server))
ApiCallCount.objects.create(
    bot_key=key, operation=operation.name, outcome="2xx", purpose="order.status", hour=now, times=7, milliseconds=900
)
house = House(acme, SimpleNamespace(user=operator), None, server, {{}})
print(json.dumps(addresses_of_the_admin(house, with_accounts=True)))
"""
PEOPLE: Final = ("operator", "ada", "vera", "eve")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, list[str]]]:
    """Serve an installation; return it with the addresses of its admin's pages."""
    made = installation_at_a_free_port(tmp_path_factory.mktemp("admin"), ALLOW_LOCAL_ENDPOINTS="1")
    made.manage("migrate", "-v0")
    addresses = json.loads(made.python(MAKE).splitlines()[-1])
    with serving(made):
        yield made, addresses


def sign_in(page: Page, base: str, name: str) -> None:
    page.goto(f"{base}/admin/login/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/admin/")


def pages(context: BrowserContext, base: str, addresses: list[str]) -> list[str]:
    """Return the addresses that answer with a page, a refusal among them, each once."""
    found = {}
    for address in addresses:
        answer = context.request.get(base + address)
        if answer.headers.get("content-type", "").startswith("text/html") and answer.body():
            found[answer.url.removeprefix(base)] = address
    return list(found)


@pytest.mark.parametrize("name", PEOPLE)
def test_every_page_can_be_read_on_a_phone_and_a_desk(
    installation: tuple[Installation, list[str]], requires_chromium: Path, requires_axe: Axe, name: str
) -> None:
    """H6: no barrier of WCAG 2.2 AA, nothing that the policy stops, and nothing beside the screen."""
    made, addresses = installation
    base, said = made.settings["PUBLIC_BASE_URL"], list[str]()
    wrong: dict[str, str] = {}  # where a fault was seen first
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(requires_chromium), args=["--no-sandbox"])
        page = browser.new_page(reduced_motion="reduce")
        page.on("console", lambda message: said.append(f"{page.url}: {message.text}"))
        sign_in(page, base, name)
        opened = pages(page.context, base, addresses)
        for path in opened:
            page.goto(base + path)
            for look in LOOKS:
                wrong |= {
                    fault: f"{path} {look.name}" for fault in _faults(page, look, requires_axe) if fault not in wrong
                }
            keep_looks(page, f"{name}{path.replace('/', '-')}")
        browser.close()
    assert len(opened) > 10
    if wrong:
        pytest.fail("\n".join(f"{fault} ({where})" for fault, where in wrong.items()))
    assert [line for line in said if "the server responded with a status of 40" not in line] == []


def _faults(page: Page, look: Any, axe: Axe) -> list[str]:
    show_as(page, look)
    beside = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    cells = page.locator("#result_list tbody tr:first-child > *").all()
    cut = [cell.inner_text() for cell in cells if not _is_inside(cell.bounding_box(), look.width)]
    tall = replace(look, height=6000)  # axe cannot judge what is cut off at the edge
    return [
        *axe.findings(page, (tall,), undecided=False)[look.name],
        *([f"{beside} px beside the screen"] if beside > 0 else []),
        *cut,
    ]


def _is_inside(box: Any, width: int) -> bool:
    return box is None or box["x"] + box["width"] <= width
