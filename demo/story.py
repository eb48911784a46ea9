"""The steps of the journey in order, and what bot, consumer and brand must see at each."""

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from demo.addresses import Addresses, DemoError
from demo.bot_api import Answer, BotApi, call
from demo.browser import Browser, Page
from demo.transcript import Transcript, without_query

CUSTOMER = "ada"
CONTINUE, SIGN_IN, STILL_ME, ALLOW = "Continue", "Sign in", "Continue", "Allow"
LONGEST_TOKEN_LIFE = 10


class StepError(DemoError):
    """A check of the journey failed."""


@dataclass
class Journey:
    addresses: Addresses
    bot: BotApi
    # With a key that cannot read tokens.
    caller: BotApi
    password: str = field(repr=False)
    transcript: Transcript
    conversation_id: str = field(default_factory=lambda: f"journey-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self.browser = Browser(self._report_page)

    # Checks and their output.

    def expect(self, what: str, seen: object, wanted: object) -> None:
        if seen != wanted:
            raise StepError(f"Expected {what} to be {wanted!r}, but it is {seen!r}.")
        self.transcript.held(f"{what} is {wanted}" if wanted != "" else what)

    def expect_true(self, what: str, held: bool) -> None:
        if not held:
            raise StepError(f"This does not hold: {what}.")
        self.transcript.held(what)

    def answered(self, answer: Answer, http_status: int, /, *, brief: bool = False, **fields: Any) -> Answer:
        self.transcript.request("bot", answer.method, answer.url)
        if answer.sent:
            self.transcript.json("sent", answer.sent)
        self.transcript.answer(answer.status)
        if answer.body:
            self.transcript.json("answered", answer.body, only=fields if brief else ())
        if answer.status != http_status:
            raise StepError(
                f"Expected HTTP {http_status} from {answer.method} {answer.url}, but it is {answer.status}."
            )
        for name, wanted in fields.items():
            self.expect(name, answer.body.get(name), wanted)
        return answer

    def _report_page(self, method: str, url: str, response: requests.Response) -> None:
        self.transcript.request("consumer", method, without_query(url))
        location = response.headers.get("Location", "")
        self.transcript.answer(response.status_code, urljoin(url, location) if location else "")

    # The steps.

    def play(self) -> None:
        self.challenge()
        self.link_changes_nothing()
        self.sign_in_for_the_first_time()
        token = self.complete()
        self.call_without_the_token()
        self.brand_api_answers(token)
        self.wait_until_expired(token)
        self.sign_out(self.re_challenge(token))
        self.close()

    def challenge(self) -> None:
        self.transcript.chapter(
            "The bot asks for a challenge",
            "Ada has asked in the chat where her order is. The bot may not see them: it needs a link to send her.",
        )
        answer = self.answered(
            self.bot.challenge(self.conversation_id, purpose="to look up your order"),
            201, status="issued", same_person_check="completion_code",
        )  # fmt: skip
        self._remember_challenge(answer.body)
        again = self.answered(
            self.bot.challenge(self.conversation_id, purpose="to look up your order"),
            200,
            brief=True,
            status="issued",
        )
        self.expect_true("asking again hands back the same challenge", again.body["url"] == self.url)
        self.answered(self.bot.token(self.conversation_id), 409, code="challenged")

    def _remember_challenge(self, body: Mapping[str, Any]) -> None:
        self.challenge_id, self.url = str(body["challenge_id"]), str(body["url"])
        parts = urlsplit(self.url)
        self.expect("the link's origin", f"{parts.scheme}://{parts.netloc}", self.addresses.product)

    def link_changes_nothing(self) -> None:
        self.transcript.chapter(
            "The consumer opens the link",
            "Chat programs and scanners open links too, so opening one spends nothing: the page shows a button.",
        )
        self.link_page = self._shows_page(self.browser.open(self.url))
        self.expect_true("it says where the button leads", urlsplit(self.addresses.brand).netloc in self._words())
        self.challenge_is("issued")

    def sign_in_for_the_first_time(self) -> None:
        self.transcript.chapter(
            "The consumer signs in at the brand",
            "Acme's own pages ask for her password and her consent. Neither the bot nor we ever see the password.",
        )
        page = self._go_to_brand()
        self.expect("the page", urlsplit(page.url).path, "/accounts/login/")
        self.challenge_is("started")
        consent = self._shows_page(self.browser.press(page, SIGN_IN, login=CUSTOMER, password=self.password))
        self._consent(consent)

    def _go_to_brand(self) -> Page:
        page = self._shows_page(self.browser.press(self.link_page, CONTINUE))
        self.expect("the brand's host", urlsplit(page.url).netloc, urlsplit(self.addresses.brand).netloc)
        authorization = parse_qs(urlsplit(page.url).query)["next"][0]
        asked = {name: values[0] for name, values in parse_qs(urlsplit(authorization).query).items()}
        self.expect("response_type", asked.get("response_type"), "code")
        self.expect("code_challenge_method", asked.get("code_challenge_method"), "S256")
        wanted = {"state", "nonce", "code_challenge"}
        self.expect_true("state, nonce and code_challenge went along", asked.keys() >= wanted)
        return page

    def _consent(self, consent: Page) -> None:
        self.expect("the page", urlsplit(consent.url).path, "/identity/o/authorize")
        done = self._shows_page(self.browser.press(consent, ALLOW))
        # The brand counts from the time at which it issued the token, which is earlier.
        self.over_at = time.monotonic() + LONGEST_TOKEN_LIFE
        self.expect_true("she is back on our page", done.url == f"{self.url}/done")
        self.code = done.parsed.data.get("data-completion-code", "")
        self.expect_true("it shows a code of six digits", re.fullmatch("[0-9]{6}", self.code) is not None)

    def complete(self) -> str:
        self.transcript.chapter(
            "The consumer types the code into the chat",
            "Whoever signed in is the person in this chat: until the bot has posted the code, no token can be read.",
        )
        self.challenge_is("confirmation_needed")
        self.answered(self.bot.token(self.conversation_id), 409, code="confirmation_needed")
        self.answered(self.bot.complete(self.conversation_id, self.code), 200, status="authorized")
        self.challenge_is("completed")
        return self.read_token()

    def read_token(self) -> str:
        answer = self.answered(self.bot.token(self.conversation_id), 200, assurance="completion_code")
        self.expect("token_type", answer.body["token_type"], "Bearer")
        self.expect("scope", " ".join(sorted(answer.body["scope"].split())), "openid orders.read")
        seconds = answer.body["expires_in"]
        self.expect_true(f"it lives {seconds} s, at most {LONGEST_TOKEN_LIFE}", 0 < seconds <= LONGEST_TOKEN_LIFE)
        return str(answer.body["access_token"])

    def call_without_the_token(self) -> None:
        self.transcript.chapter(
            "The bot acts at the brand's API, and never holds the token",
            "Its key may call what Acme's admin has declared, and may not read tokens. Acme's answer is in `response`.",
        )
        self.answered(self.caller.token(self.conversation_id), 403, code="insufficient_scope")
        self._orders_by_call()
        refused = self.caller.call_operation(self.conversation_id, "orders.delete")
        self.answered(refused, 404, code="operation_unknown")

    def _orders_by_call(self) -> None:
        answer = self.answered(self.caller.call_operation(self.conversation_id, "orders.list"), 200)
        response = answer.body["response"]
        self.expect("Acme's status", response["status"], 200)
        self.expect("the customer", response["body"]["customer"], CUSTOMER)
        self.expect_true("her orders are there", len(response["body"]["orders"]) > 0)

    def brand_api_answers(self, token: str) -> None:
        self.transcript.chapter(
            "The other way: a bot that reads the token",
            "Another key may read it, and calls Acme's API itself, as the consumer.",
        )
        self._ask_for_orders(token)

    def _ask_for_orders(self, token: str) -> None:
        answer = self.answered(self._orders(token), 200, customer=CUSTOMER)
        self.expect_true("her orders are there", len(answer.body["orders"]) > 0)

    def _orders(self, token: str) -> Answer:
        return call("GET", f"{self.addresses.brand}/api/orders", token)

    def wait_until_expired(self, token: str) -> None:
        seconds = max(0.0, self.over_at - time.monotonic()) + 0.5
        self.transcript.chapter(
            "The token expires", f"No clock is moved: {seconds:.0f} seconds of waiting, until its life is really over."
        )
        time.sleep(seconds)
        refused = self.answered(self._orders(token), 401)
        told = refused.headers.get("WWW-Authenticate", "")
        self.expect_true('the brand says error="invalid_token"', 'error="invalid_token"' in told)
        self.answered(self.bot.token(self.conversation_id), 409, code="rechallenge_required", reason="expired")
        called = self.caller.call_operation(self.conversation_id, "orders.list")
        self.answered(called, 409, code="rechallenge_required", reason="expired")

    def re_challenge(self, old_token: str) -> str:
        self.transcript.chapter(
            "The consumer is challenged again",
            "There is no refresh token to fall back on. The bot asks once more, and she signs in once more.",
        )
        spent = self.url
        answer = self.answered(self.bot.authorize(self.conversation_id), 202, status="issued")
        self._remember_challenge(answer.body)
        self.expect_true("it is a new link", self.url != spent)
        self.link_page = self._shows_page(self.browser.open(self.url))
        page = self._go_to_brand()
        self.expect("the page", urlsplit(page.url).path, "/accounts/reauthenticate/")
        self._consent(self._shows_page(self.browser.press(page, STILL_ME, password=self.password)))
        token = self.complete()
        self.expect_true("it is a new token", token != old_token)
        self._ask_for_orders(token)
        return token

    def sign_out(self, token: str) -> None:
        self.transcript.chapter("The consumer signs out", "She types it into the chat; the bot ends the token.")
        self.answered(
            self.bot.end_token(self.conversation_id, "signed_out"),
            200,
            status="rechallenge_required",
            reason="signed_out",
        )
        self.answered(self.bot.token(self.conversation_id), 409, code="rechallenge_required", reason="signed_out")
        self._expect_revocation(token)

    def _expect_revocation(self, token: str) -> None:
        """Check that the worker revokes the token at the brand (RFC 7009) before it would expire."""
        while self._orders(token).is_ok and time.monotonic() < self.over_at - 0.5:
            time.sleep(0.1)
        self.transcript.note("The worker has told the brand, too:")
        self.answered(self._orders(token), 401, error="invalid_token")

    def close(self) -> None:
        self.transcript.chapter("The chat ends", "Everything about the conversation is erased, with a receipt.")
        receipt = self.answered(self.bot.close(self.conversation_id), 200, status="closed")
        again = self.answered(self.bot.close(self.conversation_id), 200, brief=True, status="closed")
        self.expect_true("the second receipt is the same", receipt.body == again.body)
        self.answered(self.bot.token(self.conversation_id), 410, code="conversation_closed")

    def challenge_is(self, status: str) -> None:
        self.answered(self.bot.read_challenge(self.challenge_id), 200, brief=True, status=status)

    def _shows_page(self, page: Page) -> Page:
        if page.status != HTTPStatus.OK:
            raise StepError(f"Expected a page at {page.url}, but it is HTTP {page.status}: {page.parsed.text[:300]}")
        return page

    def _words(self) -> str:
        return self.link_page.parsed.text
