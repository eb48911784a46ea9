"""What the bots of this folder say: they look up the orders of the sample brand's customer, who may have to sign in.

Copy it beside the example that you take, and let `Orders._orders` call an operation of your own brand. The bot never
holds a token: its key needs `challenge:create`, `challenge:read` and `api:call`, and no `token:read`.
"""

import re
from contextlib import suppress
from dataclasses import dataclass

from consumer_delegation import (
    ApiResponse,
    AsyncDelegation,
    CallResult,
    Challenge,
    CodeIncorrect,
    DelegationError,
    NotFound,
    NothingToConfirm,
    NoToken,
    Problem,
    Remedy,
)
from consumer_delegation.calls import ChallengeWishes

WHY = "to look up your order"
HINT = "Ask me: where is my order?"
IN_PRIVATE = "I have written to you in private."
NOT_ANSWERING = "Acme is not answering right now. Please try again later."
NOT_WAITING = "I am not waiting for a code. Ask me where your order is."
ONLY_IN_PRIVATE = "Please ask me in our private chat, where nobody else reads it."
SIGN_IN = "Please sign in at Acme. Then type the six digits of the last page into this chat."
GOODBYE = "Goodbye. I have forgotten everything about this chat."
FAULT = "Something is wrong on our side. If it stays so, please tell Acme."
IN_VAIN = "This does not work at the moment, and another try does not help. Please tell Acme."
# Nobody should wait for what time does not mend.
WORDS: dict[Remedy, str] = {
    "wait": "Something is wrong on our side. Please try again in a minute.",
    "sign_in": "Please sign in with the link that I have sent. Then ask me again.",
    "code": "Please type the six digits of the sign-in page into this chat.",
    "again": "Please ask me again.",
    "new_chat": "This chat is over. Please start a new one.",
    "brand": IN_VAIN,
}
# Six digits that are no part of a longer number, of a word, or of a mention such as <@U012345>.
_SIX_DIGITS = re.compile(r"(?<![\w@#+])(?<!\d[ \xa0.-])\d{3}[ \xa0.-]?\d{3}(?![\w@])(?![ \xa0.-]\d)")
_MENTION = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class Reply:
    """What to say. A chat with buttons says `SIGN_IN` instead of a text with a link, and makes the link a button.

    The button opens the system browser, never an embedded web view (RFC 8252 section 8.12).
    """

    text: str
    link: str = ""
    waits: bool = False  # the person has to sign in, or to type the code


def code_in(text: str | None) -> str:
    """Return the six digits in what somebody typed, in whichever script; empty if there are none."""
    found = _SIX_DIGITS.search(_MENTION.sub(" ", text or ""))
    return "".join(str(int(digit)) for digit in found[0] if digit.isdecimal()) if found else ""


class Orders:
    def __init__(self, delegation: AsyncDelegation) -> None:
        self.delegation = delegation

    async def reply(self, conversation_id: str, text: str | None) -> Reply:
        """Answer a message. The conversation has to be one person's: make its id with `conversation_id_of`."""
        question: str | None = text or ""
        try:
            if code := code_in(text):
                question = await self._confirm(conversation_id, code)
            if question is None:
                return Reply(NOT_WAITING)
            if "bye" in question.lower():
                return await self._close(conversation_id)
            return await self._orders(conversation_id, question) if "order" in question.lower() else Reply(HINT)
        except DelegationError as error:
            return Reply(in_words(error), waits=isinstance(error, CodeIncorrect) and bool(error.attempts_left))

    async def look_up(self, conversation_id: str, code: str | None = None) -> Reply:
        """Answer an agent's tool. A code that nobody waits for is ignored, because models make codes up."""
        try:
            if digits := code_in(code):
                await self._confirm(conversation_id, digits)
            return await self._orders(conversation_id, "orders")
        except DelegationError as error:
            return Reply(in_words(error), waits=isinstance(error, CodeIncorrect) and bool(error.attempts_left))

    async def _confirm(self, conversation_id: str, code: str) -> str | None:
        """Pass a code on. Return the question that led to the sign-in, or None if nobody waits for a code."""
        try:
            conversation = await self.delegation.conversation(conversation_id)
            if (waiting := conversation.waits_for_code) is None:
                return None
            # A brand with several servers has to be told whose code it is.
            server = waiting.authorization_server
            await self.delegation.complete(
                conversation_id, code, session=conversation.session, authorization_server=server
            )
        except (NotFound, NothingToConfirm):
            return None
        return waiting.context or "orders"

    async def _orders(self, conversation_id: str, question: str) -> Reply:
        wishes: ChallengeWishes = {"purpose": WHY, "context": question[:1000]}
        called: CallResult | Challenge
        try:
            called = await self.delegation.call(conversation_id, "orders.list", challenge=wishes)
        except NoToken as problem:
            if problem.code != "missing_scope" or problem.remedy != "sign_in":
                raise
            called = await self._ask_for_more(conversation_id, wishes, problem)
        if isinstance(called, Challenge):
            # There is no token yet, it has expired, or the brand has just refused it.
            link = called.url if called.waits_for_sign_in else None
            return Reply(called.message or "", link or "", waits=True)
        return Reply(orders_in_words(called.response))

    async def _ask_for_more(self, conversation_id: str, wishes: ChallengeWishes, problem: NoToken) -> Challenge:
        """Send a link for what the person left out at the last sign-in. The token is live, so no call does."""
        conversation = await self.delegation.conversation(conversation_id)
        wishes["session"] = conversation.session
        if server := conversation.server_of(problem.scope):
            wishes["authorization_server"] = server
        return await self.delegation.create_challenge(conversation_id, **wishes)

    async def _close(self, conversation_id: str) -> Reply:
        with suppress(NotFound):  # there was nothing to forget
            session = (await self.delegation.conversation(conversation_id)).session
            await self.delegation.close(conversation_id, session)
        return Reply(GOODBYE)


def orders_in_words(answer: ApiResponse) -> str:
    """`answer` is the brand's. Its status says nothing about our call."""
    if answer.status == 429 or answer.status >= 500:
        return NOT_ANSWERING
    if not answer.is_success or answer.body_encoding != "json":
        return IN_VAIN
    return "\n".join(f"{order['item']}: {order['status']}" for order in answer.body["orders"]) or "You have no orders."


def in_words(error: DelegationError) -> str:
    if isinstance(error, CodeIncorrect):
        return f"That is not the code. Tries left: {error.attempts_left}"
    if isinstance(error, Problem) and error.code.startswith("api_") and error.remedy == "wait":
        return NOT_ANSWERING
    return WORDS[error.remedy]
