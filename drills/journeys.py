"""Journeys: whole sign-ins over HTTP, by a bot and a consumer who try again as real ones do, and load made of them."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Event, Lock, Thread
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from demo.bot_api import Answer, BotApi
from demo.browser import Browser, BrowserError, Page
from drills.promises import BUSY, NO_ANSWER

# Long enough for the longest fault, for a claim without outcome (30 s) and for what a consumer then does again.
JOURNEY_SECONDS: Final = 180
_PAUSE_SECONDS: Final = 0.5
_ERRORS_FROM: Final = 400
_BUSY_SECONDS: Final = "5"
# The answer to a code that is sent again, because the answer to the first was lost after its commit.
_ALREADY: Final = "authorized"


class GivenUp(Exception):
    """The journey did not end in time."""


@dataclass
class Seen:
    """What all bots and consumers were answered: errors by status, and when the last one was (but for a busy brand)."""

    errors: "Counter[str]" = field(default_factory=Counter)
    last_error_at: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def note(self, status: int | None, name: str = "") -> None:
        """Note an answer, or that there was none. `name` is noted for an error instead of its status."""
        if status is not None and status < _ERRORS_FROM:
            return
        with self._lock:
            self.errors[name or (NO_ANSWER if status is None else str(status))] += 1
            if name != BUSY:
                self.last_error_at = time.monotonic()


class FromAddress(HTTPAdapter):
    """Connects from an address of this machine's loopback, because an address may open so many pages a minute."""

    def __init__(self, number: int) -> None:
        self._source = (f"127.1.{number // 250 % 250}.{number % 250 + 1}", 0)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options | {"source_address": self._source})


@dataclass
class Journey:
    """One chat: a challenge, a sign-in, its code, and the read of the token. `token` was acknowledged to the bot."""

    number: int
    bot: BotApi
    seen: Seen
    token: str = field(default="", repr=False)
    began_at: float = 0.0
    ended_at: float = 0.0

    @property
    def conversation_id(self) -> str:
        return f"drill:{self.number}"

    def play(self) -> None:
        """Play it to its end. Raises `GivenUp`."""
        self.began_at = time.monotonic()
        self._at = ""
        self._browser = Browser(self._report)
        self._browser.session.mount("https://", FromAddress(self.number))
        while not self.token:
            self._confirm(self._sign_in(self._challenge()))
            self.token = self._read_token()
        self.ended_at = time.monotonic()

    def _challenge(self) -> str:
        """Ask for a link until there is one."""
        while True:
            answer = self._ask(self.bot.challenge, self.conversation_id)
            if answer and answer.status in {HTTPStatus.OK, HTTPStatus.CREATED}:
                return str(answer.body["url"])
            self._wait()

    def _sign_in(self, url: str) -> str:
        """Press the page's button, or load the page again, until it shows a code. Empty: the link is over."""
        page = self._load(self._browser.open, url)
        while True:
            if page and (code := page.parsed.data.get("data-completion-code")):
                return code
            if page and page.status == HTTPStatus.NOT_FOUND:
                return ""
            button = _button_of(page, url) if page else ""
            if page and button:
                page = self._load(self._browser.press, page, button)
                continue
            self._wait()
            # A person reloads the address that the browser shows: a callback, if that is where it stopped.
            stopped_at = self._at if "/callback/" in self._at else url
            page = self._load(self._browser.open, stopped_at)

    def _confirm(self, code: str) -> None:
        """Type the code into the chat. If the answer was lost, the token tells whether it arrived."""
        while code:
            answer = self._ask(self.bot.complete, self.conversation_id, code)
            if answer and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return
            self._wait()

    def _read_token(self) -> str:
        """Read the token; empty if there is none to read."""
        while True:
            answer = self._ask(self.bot.token, self.conversation_id)
            if answer and answer.is_ok:
                return str(answer.body["access_token"])
            if answer and answer.status == HTTPStatus.CONFLICT:
                return ""
            self._wait()

    def _ask(self, call: Any, *arguments: str) -> Answer | None:
        try:
            answer: Answer = call(*arguments)
        except requests.RequestException:
            self.seen.note(None)
            return None
        if answer.code != _ALREADY:
            is_refusal = answer.code and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
            self.seen.note(answer.status, f"{answer.status} {answer.code}" if is_refusal else "")
        return answer

    def _load(self, go: Any, *arguments: Any) -> Page | None:
        try:
            page: Page = go(*arguments)
        except (requests.RequestException, BrowserError):
            self.seen.note(None)
            return None
        return page

    def _report(self, _method: str, url: str, response: requests.Response) -> None:
        is_busy = response.status_code == HTTPStatus.SERVICE_UNAVAILABLE and _says_busy(response)
        self.seen.note(response.status_code, BUSY if is_busy else "")
        self._at = urljoin(url, response.headers["Location"]) if response.is_redirect else url

    def _wait(self) -> None:
        if time.monotonic() > self.began_at + JOURNEY_SECONDS:
            raise GivenUp(self.conversation_id)
        time.sleep(_PAUSE_SECONDS)


def _says_busy(response: requests.Response) -> bool:
    """Whether the answer is the page that a busy brand's callback gets. Without a database the wait is 30 seconds."""
    return response.headers.get("Retry-After") == _BUSY_SECONDS


def _button_of(page: Page, url: str) -> str:
    """Return the words of the button that begins a sign-in; empty if the page has none."""
    link = urlsplit(url).path
    for form in page.parsed.forms:
        if form.method == "POST" and urlsplit(urljoin(page.url, form.action)).path == link and form.buttons:
            return form.buttons[0].words
    return ""


class Load:
    """Journeys that so many threads play until the block ends. Their numbers go on.

    No more than `per_second` begin in a second, so that the load is the same on every machine that can bear it.
    """

    def __init__(self, bot: BotApi, per_second: float) -> None:
        self.seen = Seen()
        self.per_second = per_second
        self._next_at = 0.0
        self.journeys: list[Journey] = []
        self._bot = bot
        self._lock = Lock()
        self._faults: list[BaseException] = []

    @property
    def done(self) -> list[Journey]:
        return [journey for journey in list(self.journeys) if journey.token]

    def done_since(self, moment: float) -> int:
        """Count the journeys that began after a moment and are done."""
        return sum(journey.began_at >= moment for journey in self.done)

    @contextmanager
    def running(self, threads: int) -> Iterator[None]:
        """Play journeys during the block, and those that have begun to their end. Raises what a thread raised."""
        over = Event()
        players = [Thread(target=self._play_on, args=(over,), daemon=True) for _ in range(threads)]
        for player in players:
            player.start()
        try:
            yield
        finally:
            over.set()
            for player in players:
                player.join()
        if self._faults:
            raise self._faults[0]

    def pause(self) -> float:
        """Return how long the next journey has to wait for its turn."""
        with self._lock:
            now = time.monotonic()
            begins_at = max(self._next_at, now)
            self._next_at = begins_at + 1 / self.per_second
        return begins_at - now

    def _play_on(self, over: Event) -> None:
        while not over.wait(self.pause()):
            with self._lock:
                journey = Journey(len(self.journeys) + 1, self._bot, self.seen)
                self.journeys.append(journey)
            try:
                journey.play()
            except GivenUp:
                pass  # it counts as unfinished
            except BaseException as fault:
                self._faults.append(fault)
                raise
