"""A product, its worker and a sample brand that run, a bot for any conversation, and a scripted consumer with it."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import pytest

from demo.addresses import Addresses
from demo.bot_api import Answer, BotApi, call
from demo.browser import Browser, Page
from demo.preparation import CALLING_SCOPES, Demo, create_bot_key
from tests.demo.machines import running_servers


@dataclass(frozen=True)
class Stage:
    """The running servers."""

    demo: Demo
    bot_key: str = field(repr=False)

    @cached_property
    def calling_key(self) -> str:
        """A key that cannot read tokens."""
        return create_bot_key(self.demo.product_environment(), "Calls only", CALLING_SCOPES)

    @property
    def addresses(self) -> Addresses:
        return self.demo.addresses

    @property
    def orders_url(self) -> str:
        return f"{self.addresses.brand}/api/orders"

    def bot(self) -> BotApi:
        return BotApi(self.addresses.product, self.bot_key)

    def consumer(self) -> "Consumer":
        """Return somebody with a browser of their own."""
        return Consumer(self.demo)

    def orders(self, access_token: str) -> Answer:
        return call("GET", self.orders_url, access_token)


class Consumer:
    """One browser: its cookies last from one sign-in to the next."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.browser = Browser(lambda *_: None)

    def goes_to_brand(self, link: str) -> Page:
        return self.browser.press(self.browser.open(link), "Continue")

    def signs_in(self, link: str, login: str = "ada", **picked: str) -> Page:
        """Sign in by way of the link as `login`, also as `ada+slow`; return the page after the password."""
        password = self.demo.customers[login.partition("+")[0]]
        return self.browser.press(self.goes_to_brand(link), "Sign in", login=login, password=password, **picked)

    def allows(self, link: str, login: str = "ada", **picked: str) -> Page:
        """Sign in and press Allow; return our page at the end."""
        return self.browser.press(self.signs_in(link, login, **picked), "Allow")

    def takes_back(self) -> None:
        """Press the brand's own button that ends every permission of its signed-in customer."""
        self.browser.press(self.browser.open(self.demo.addresses.brand), "Take that back")

    def gets_code(self, link: str, login: str = "ada") -> str:
        """Sign in, allow, and return the six digits of our page."""
        return self.allows(link, login).parsed.data["data-completion-code"]


def new_chat() -> str:
    """Return the id of a conversation that nobody has had."""
    return f"web:{secrets.token_hex(6)}"


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One stage for all tests of a process: each has chats and consumers of its own."""
    with running_servers(tmp_path_factory.mktemp("stage") / "folder") as (demo, _, bot_key):
        yield Stage(demo, bot_key)
