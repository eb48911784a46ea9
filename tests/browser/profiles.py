"""Browser profiles of their own cookies, each with a watch on everything that its browser complains of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from tests.browser.stage import Stage


@dataclass
class Profile:
    """One person's browser. `expected` are the statuses that the test expects beside good ones."""

    context: BrowserContext
    stage: Stage
    expected: set[int] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context.on("console", self._note_console)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.context.on("requestfailed", self._note_failed)
        self.context.on("response", self._note_response)

    def open(self, url: str) -> Page:
        """Open an address in a new tab."""
        page = self.context.new_page()
        page.goto(url)
        return page

    def follow(self, url: str) -> Page:
        """Open a link of ours and press its button; return the page at the end of all redirects."""
        page = self.open(url)
        page.locator("main form button").first.click()
        page.wait_for_load_state()
        return page

    def begin(self, page: Page) -> None:
        """Press the button of a link; return without waiting for where it leads."""
        page.evaluate("document.forms[0].submit()")

    def post(self, url: str) -> None:
        """Send a link's first form as a scanner does, which goes nowhere from there."""
        form_token = self.context.request.get(url).text().partition('csrfmiddlewaretoken" value="')[2].partition('"')[0]
        origin = {"Origin": self.stage.addresses.product, "Referer": self.stage.addresses.product}
        sent: dict[str, Any] = {"csrfmiddlewaretoken": form_token}
        answer = self.context.request.post(url, form=sent, headers=origin, max_redirects=0)
        assert answer.status == 303, answer.text()

    def authorization_url(self) -> str:
        """Return the authorization request that this browser was last sent to the brand with."""
        return next(address for address in reversed(self.addresses) if "/identity/o/authorize?" in address)

    def callback_with(self, **parameters: str) -> str:
        """Return where the brand sends this browser back to, with an answer of the test's own."""
        request = dict(parse_qsl(urlsplit(self.authorization_url()).query))
        sent = {"state": request["state"], "iss": self.stage.addresses.brand, **parameters}
        return f"{request['redirect_uri']}?{urlencode(sent)}"

    def callback_url(self) -> str:
        """Return the address at our callback that this browser was last sent to, code and state included."""
        return next(address for address in reversed(self.addresses) if "/callback/" in address)

    def sign_in_at_the_brand(self, name: str, page: Page | None = None) -> None:
        """Sign in; on a page that already asks for it, or at the brand's own door."""
        page = page or self.open(f"{self.stage.addresses.brand}/accounts/login/")
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(self.stage.demo.customers[name])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state()

    def _note_console(self, message: ConsoleMessage) -> None:
        # A status that the test expects is one the console shows as an error, too.
        expected = any(f"status of {status} " in message.text for status in self.expected)
        # What Chromium says where a window is to stay open, since no script had opened it (static/consumer.js).
        expected = expected or message.text == "Scripts may close only the windows that were opened by them."
        if message.type in {"error", "warning"} and not expected:
            self.complaints.append(f"{message.text} ({message.location['url']})")

    def _note_failed(self, request: Request) -> None:
        # A page that is left while something of it still loads aborts that: whoever goes on quickly sees no fault.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.failure}: {request.url}")

    def _note_response(self, response: Response) -> None:
        self.addresses.append(response.url)
        if response.status >= 400 and response.status not in self.expected:
            self.complaints.append(f"{response.status}: {response.url}")


@contextmanager
def running_chromium(executable: Path, stage: Stage) -> Iterator[Browser]:
    """Run a Chromium that trusts the stage's certificate and no other that it would not trust anyway."""
    trusted = f"--ignore-certificate-errors-spki-list={stage.certificate.public_key_digest()}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), args=["--no-sandbox", trusted])
        yield browser
        browser.close()


@contextmanager
def profile_of(browser: Browser, stage: Stage, memory: Any = None, **options: Any) -> Iterator[Profile]:
    """Open a profile, with the cookies that `memory` holds; fail at its end if the browser complained of anything.

    `options` are Playwright's own: locale, viewport and the like.
    """
    context = browser.new_context(storage_state=memory, **options)
    context.set_default_timeout(10_000)
    profile = Profile(context, stage)
    yield profile
    context.close()
    assert profile.complaints == [], profile.complaints


def heading(page: Page, words: str) -> None:
    """Fail where a page's heading is another one."""
    expect(page.get_by_role("heading", level=1)).to_have_text(words)


def code_on(page: Page) -> str:
    """Return the completion code on a page; fails where it shows none."""
    return page.locator("[data-completion-code]").get_attribute("data-completion-code") or ""
