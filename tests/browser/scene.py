"""Who plays on the stage when a page is to be reached, and the table in which every page has a row."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from playwright.sync_api import Page

from tests.browser.profiles import Profile, code_on
from tests.browser.stage import ACCENT_COLOUR, Bot, Stage
from tests.installation import database_file

PURPOSES: Final = {"en": "to look up your order", "he": "לבדוק את ההזמנה שלך"}


@dataclass
class Scene:
    """Who plays: a consumer who is signed in at the brand, and a stranger who is not; their chat has a language."""

    stage: Stage
    consumer: Profile
    stranger: Profile
    locale: str = "en"

    def challenge(self, check: str = "completion_code", **wishes: Any) -> tuple[Bot, dict[str, Any]]:
        """Return a bot in a conversation of its own, and the challenge that it asked for."""
        bot = self.stage.bot(check)
        return bot, bot.challenge(purpose=PURPOSES.get(self.locale, PURPOSES["en"]), locale=self.locale, **wishes)

    def begun_by_stranger(self, **wishes: Any) -> tuple[Bot, dict[str, Any]]:
        """Return the same after a stranger has pressed the button; the brand asks that browser to sign in."""
        bot, challenge = self.challenge(**wishes)
        self.stranger.follow(challenge["url"])
        return bot, challenge

    def signed_in(self) -> tuple[Bot, Page]:
        """Return the bot, which can read the token, and the page that says so."""
        bot, challenge = self.challenge()
        page = self.consumer.follow(challenge["url"])
        assert bot.complete(code=code_on(page)).status == 200
        page.reload()
        return bot, page

    def rewrite(self, challenge: dict[str, Any], assignment: str) -> None:
        """Change a challenge's row past the product."""
        statement = f"UPDATE conversations_challenge SET {assignment} WHERE uuid = ?"  # noqa: S608  our own words
        assert self.execute(statement, challenge["challenge_id"].replace("-", "")) == 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the database's lock to write inside the block: whoever else writes gives up after 20 seconds."""
        connection = sqlite3.connect(database_file(self.stage.demo.folder), timeout=20, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.rollback()
            connection.close()

    @contextmanager
    def brand_in(self, accent_colour: str) -> Iterator[None]:
        """Give the brand another colour inside the block."""
        self.execute("UPDATE brands_brand SET accent_colour = ?", accent_colour)
        try:
            yield
        finally:
            self.execute("UPDATE brands_brand SET accent_colour = ?", ACCENT_COLOUR)

    @contextmanager
    def brand_named(self, name: str) -> Iterator[None]:
        """Give the brand another name inside the block."""
        self.execute("UPDATE brands_brand SET name = ?", name)
        try:
            yield
        finally:
            self.execute("UPDATE brands_brand SET name = 'Acme'")

    def execute(self, statement: str, *values: str) -> int:
        """Execute SQL in the product's database; return the number of rows that it changed."""
        connection = sqlite3.connect(database_file(self.stage.demo.folder), timeout=20)
        with connection:
            rows = connection.execute(statement, values).rowcount
        connection.close()
        return rows


@dataclass(frozen=True)
class State:
    """A page, by the template that it is made from, and what the browser is shown it with."""

    template: str
    shows: Callable[[Scene], Page]
    statuses: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.shows.__name__

    @property
    def about(self) -> str:
        """Return when a consumer sees it."""
        return self.shows.__doc__ or ""


STATES: Final[dict[str, State]] = {}


def state(template: str, *statuses: int) -> Callable[[Callable[[Scene], Page]], Callable[[Scene], Page]]:
    """Enter a page in the table, with the statuses that browsers complain of and that belong to it."""

    def enter(shows: Callable[[Scene], Page]) -> Callable[[Scene], Page]:
        STATES[shows.__name__] = State(template, shows, statuses)
        return shows

    return enter
