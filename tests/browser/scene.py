"""The persons in a scene that leads to a page, and the table of all pages."""

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
    """A consumer who is signed in at the brand, a stranger who is not, and the language of their chat."""

    stage: Stage
    consumer: Profile
    stranger: Profile
    locale: str = "en"

    def challenge(self, check: str = "completion_code", **wishes: Any) -> tuple[Bot, dict[str, Any]]:
        """Create a challenge in a new conversation. Returns the bot and the challenge."""
        bot = self.stage.bot(check)
        return bot, bot.challenge(purpose=PURPOSES.get(self.locale, PURPOSES["en"]), locale=self.locale, **wishes)

    def begun_by_stranger(self, **wishes: Any) -> tuple[Bot, dict[str, Any]]:
        """As `challenge`, after a stranger has pressed the button. The brand asks that browser to sign in."""
        bot, challenge = self.challenge(**wishes)
        self.stranger.follow(challenge["url"])
        return bot, challenge

    def signed_in(self) -> tuple[Bot, Page]:
        """The bot, which can read the token, and the page after the sign-in."""
        bot, challenge = self.challenge()
        page = self.consumer.follow(challenge["url"])
        assert bot.complete(code=code_on(page)).status == 200
        page.reload()
        return bot, page

    def rewrite(self, challenge: dict[str, Any], assignment: str) -> None:
        """Change a challenge's row without the product."""
        statement = f"UPDATE conversations_challenge SET {assignment} WHERE uuid = ?"  # noqa: S608  our own words
        assert self.execute(statement, challenge["challenge_id"].replace("-", "")) == 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the database's write lock inside the block. Other writers give up after 20 seconds."""
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
        """Execute SQL in the product's database. Returns the number of changed rows."""
        connection = sqlite3.connect(database_file(self.stage.demo.folder), timeout=20)
        with connection:
            rows = connection.execute(statement, values).rowcount
        connection.close()
        return rows


@dataclass(frozen=True)
class State:
    """A page by its template, and a function that leads a browser to it."""

    template: str
    shows: Callable[[Scene], Page]
    statuses: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.shows.__name__

    @property
    def about(self) -> str:
        """When a consumer sees the page: the function's docstring."""
        return self.shows.__doc__ or ""


STATES: Final[dict[str, State]] = {}


def state(template: str, *statuses: int) -> Callable[[Callable[[Scene], Page]], Callable[[Scene], Page]]:
    """Add a page to the table, with the error statuses that belong to it."""

    def enter(shows: Callable[[Scene], Page]) -> Callable[[Scene], Page]:
        STATES[shows.__name__] = State(template, shows, statuses)
        return shows

    return enter
