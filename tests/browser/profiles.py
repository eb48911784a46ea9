"""Browser profiles with their own cookies. Each records everything that its browser complains about."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
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

# How long anything may take to appear, in milliseconds. Two processors run servers, databases and browsers at once.
PATIENCE: Final = 30_000
expect.set_options(timeout=PATIENCE)


@dataclass
class Profile:
    """One person's browser. `expected` are error statuses that the test expects."""

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
        """Open a URL in a new tab."""
        page = self.context.new_page()
        page.goto(url)
        return page

    def follow(self, url: str) -> Page:
        """Open a link of ours and press its button. Returns the last page after all redirects."""
        page = self.open(url)
        page.locator("main form button").first.click()
        page.wait_for_load_state()
        return page

    def begin(self, page: Page) -> None:
        """Press the button of a link. Does not wait for the next page."""
        page.evaluate("document.forms[0].submit()")

    def post(self, url: str) -> None:
        """Submit a link's first form as a scanner does, which does not follow the redirect."""
        form_token = self.context.request.get(url).text().partition('csrfmiddlewaretoken" value="')[2].partition('"')[0]
        origin = {"Origin": self.stage.addresses.product, "Referer": self.stage.addresses.product}
        sent: dict[str, Any] = {"csrfmiddlewaretoken": form_token}
        answer = self.context.request.post(url, form=sent, headers=origin, max_redirects=0)
        assert answer.status == 303, answer.text()

    def authorization_url(self) -> str:
        """The last authorization request with which this browser was sent to the brand."""
        return next(address for address in reversed(self.addresses) if "/identity/o/authorize?" in address)

    def callback_with(self, **parameters: str) -> str:
        """The URL of our callback with another authorization response."""
        request = dict(parse_qsl(urlsplit(self.authorization_url()).query))
        sent = {"state": request["state"], "iss": self.stage.addresses.brand, **parameters}
        return f"{request['redirect_uri']}?{urlencode(sent)}"

    def callback_url(self) -> str:
        """The last URL of our callback that this browser was sent to, with code and state."""
        return next(address for address in reversed(self.addresses) if "/callback/" in address)

    def sign_in_at_the_brand(self, name: str, page: Page | None = None) -> None:
        """Sign in, on the sign-in page if it is open, or on the brand's own page."""
        page = page or self.open(f"{self.stage.addresses.brand}/accounts/login/")
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(self.stage.demo.customers[name])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state()

    def _note_console(self, message: ConsoleMessage) -> None:
        # The console shows an expected error status as an error too.
        expected = any(f"status of {status} " in message.text for status in self.expected)
        # Chromium's warning if a window cannot be closed because no script opened it (static/consumer.js).
        expected = expected or message.text == "Scripts may close only the windows that were opened by them."
        if message.type in {"error", "warning"} and not expected:
            self.complaints.append(f"{message.text} ({message.location['url']})")

    def _note_failed(self, request: Request) -> None:
        # Leaving a page while it still loads aborts the requests. That is no fault.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.failure}: {request.url}")

    def _note_response(self, response: Response) -> None:
        self.addresses.append(response.url)
        if response.status >= 400 and response.status not in self.expected:
            self.complaints.append(f"{response.status}: {response.url}")


@contextmanager
def running_chromium(executable: Path, stage: Stage) -> Iterator[Browser]:
    """Run a Chromium that trusts the stage's certificate, and otherwise only what it trusts by default."""
    trusted = f"--ignore-certificate-errors-spki-list={stage.certificate.public_key_digest()}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), args=["--no-sandbox", trusted])
        yield browser
        browser.close()


@contextmanager
def profile_of(browser: Browser, stage: Stage, memory: Any = None, **options: Any) -> Iterator[Profile]:
    """Open a profile with the cookies in `memory`. Fails at its end if the browser complained about anything.

    `options` are Playwright's own: locale, viewport and the like.
    """
    context = browser.new_context(storage_state=memory, **options)
    context.set_default_timeout(PATIENCE)
    profile = Profile(context, stage)
    yield profile
    context.close()
    assert profile.complaints == [], profile.complaints


def heading(page: Page, words: str) -> None:
    """Fail if a page has another heading."""
    expect(page.get_by_role("heading", level=1)).to_have_text(words)


def code_on(page: Page) -> str:
    """The completion code on a page. Fails if there is none."""
    return page.locator("[data-completion-code]").get_attribute("data-completion-code") or ""
