"""Drive the system's Firefox by Marionette, its remote control: WebDriver commands as JSON over a socket.

Playwright drives only its own build of Firefox. Selenium needs geckodriver, which Debian does not have. Mozilla's
client needs sixteen packages.
"""

import base64
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SECONDS: Final = 30
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver section 12: the key of a reference to an element
_PRESSED: Final = (
    "return [...document.querySelectorAll('button, a')].find(e => !e.hidden && e.innerText.startsWith(arguments[0]))"
)
_QUIET: Final = {
    "marionette.port": 0,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
}


class BrowserError(Exception):
    """Firefox refused a command. The message is Firefox's own."""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition returns a true value. Returns that value."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise BrowserError(f"{what} did not come within {SECONDS} s")


@dataclass
class Firefox:
    """A running Firefox with its own profile. Commands go to the tab that was chosen last."""

    connection: socket.socket
    received: bytes = b""
    commands: int = field(default=0)

    def call(self, command: str, **parameters: Any) -> Any:
        """Send a WebDriver command. Returns its value. Raises `BrowserError`."""
        self.commands += 1
        sent = json.dumps([0, self.commands, command, parameters]).encode()
        self.connection.sendall(b"%d:%s" % (len(sent), sent))
        _, _, error, result = self.read()
        if error:
            raise BrowserError(f"{command}: {error['error']}: {error['message']}")
        return result.get("value", result) if isinstance(result, dict) else result

    def read(self) -> Any:
        """Read the next message: its length in digits, a colon, JSON."""
        while b":" not in self.received:
            self._receive()
        length, _, self.received = self.received.partition(b":")
        while len(self.received) < int(length):
            self._receive()
        message, self.received = self.received[: int(length)], self.received[int(length) :]
        return json.loads(message)

    def _receive(self) -> None:
        more = self.connection.recv(65536)
        if not more:
            raise BrowserError("Firefox has gone away")
        self.received += more

    def open(self, url: str) -> None:
        """Open a URL in this tab, and wait for the page."""
        self.call("WebDriver:Navigate", url=url)

    @property
    def address(self) -> str:
        return str(self.call("WebDriver:GetCurrentURL"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page. Returns its value."""
        return self.call("WebDriver:ExecuteScript", script=script, args=list(arguments))

    def find(self, selector: str) -> str | None:
        """The first element of a CSS selector; None if there is none."""
        found = self.call("WebDriver:FindElements", using="css selector", value=selector)
        return str(found[0][_ELEMENT]) if found else None

    def text(self, selector: str) -> str:
        """Wait for the first such element. Returns its text, found and read at once: the page may change meanwhile."""
        script = "return document.querySelector(arguments[0])?.innerText.trim()"
        return str(until(lambda: self.run(script, selector), selector))

    def heading(self) -> str:
        return self.text("h1")

    def press(self, words: str) -> None:
        """Click on the visible button or link whose text begins so, and wait for the page that it opens, if any."""
        found = until(lambda: self.run(_PRESSED, words), f"a button {words!r}")
        self.call("WebDriver:ElementClick", id=found[_ELEMENT])

    def fill(self, selector: str, words: str) -> None:
        """Type into a field."""
        self.call("WebDriver:ElementSendKeys", id=until(lambda: self.find(selector), selector), text=words)

    def cookies(self) -> set[str]:
        """The names of this page's cookies."""
        return {cookie["name"] for cookie in self.call("WebDriver:GetCookies")}

    def tabs(self) -> list[str]:
        return [str(handle) for handle in self.call("WebDriver:GetWindowHandles")]

    def choose(self, tab: str) -> None:
        """Switch to another tab."""
        self.call("WebDriver:SwitchToWindow", handle=tab, focus=True)

    def new_tab(self) -> None:
        """Open an empty tab and switch to it."""
        self.choose(self.call("WebDriver:NewWindow", type="tab")["handle"])

    @contextmanager
    def preferring(self, preferences: dict[str, int]) -> Iterator[None]:
        """Change Firefox settings inside the block, as in `about:config`."""
        self._in_chrome("for (const n in arguments[0]) Services.prefs.setIntPref(n, arguments[0][n])", preferences)
        try:
            yield
        finally:
            self._in_chrome("for (const n in arguments[0]) Services.prefs.clearUserPref(n)", preferences)

    def _in_chrome(self, script: str, *arguments: Any) -> None:
        self.call("Marionette:SetContext", value="chrome")
        try:
            self.run(script, *arguments)
        finally:
            self.call("Marionette:SetContext", value="content")

    def picture(self, file: Path) -> None:
        """Save a picture of the whole page."""
        file.write_bytes(base64.b64decode(self.call("WebDriver:TakeScreenshot", full=True)))


@contextmanager
def running_firefox(executable: Path, folder: Path) -> Iterator[Firefox]:
    """Run Firefox with a new profile in this folder. It accepts the certificates of loopback servers."""
    profile = folder / "profile"
    profile.mkdir(parents=True)
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in _QUIET.items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [str(executable), "--headless", "--marionette", "--remote-allow-system-access", "--no-remote"]
    command += ["--profile", str(profile)]
    with (folder / "firefox.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            port = until(lambda: _port(profile / "MarionetteActivePort"), "Firefox")
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS * 2) as connection:
                firefox = Firefox(connection)
                firefox.read()  # Firefox introduces itself
                firefox.call("WebDriver:NewSession", acceptInsecureCerts=True)
                yield firefox
        finally:
            process.terminate()
            process.wait(SECONDS)


def _port(file: Path) -> int | None:
    """The port that Firefox chose and wrote into a file."""
    written = re.fullmatch(r"(\d+)\s*", file.read_text()) if file.exists() else None
    return int(written[1]) if written else None
