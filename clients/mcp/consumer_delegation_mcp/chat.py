"""One conversation with the product: the calls that a tool makes, and what is said if one fails."""

from dataclasses import dataclass
from typing import Any

from consumer_delegation import (
    AsyncDelegation,
    CallResult,
    Challenge,
    CodeIncorrect,
    ConversationClosed,
    DelegationError,
    KeyRefused,
    NoAnswer,
    NotFound,
    NothingToConfirm,
    Operation,
    Problem,
    RequestRefused,
    Unavailable,
)
from consumer_delegation.calls import At, CallWishes, ChallengeWishes
from consumer_delegation_mcp.settings import Settings
from consumer_delegation_mcp.tools import CONFIRM

SIX_DIGITS = "The page shows six digits. This did not count as a try."
NOT_DONE = "Nothing was done. Try again later."
MAYBE_DONE = "It may have been done: look before you call again."


@dataclass(frozen=True)
class Confirmed:
    """Whether the digits were right: if not, what to tell the model, and the person, unless no try is left."""

    refusal: str = ""
    to_person: str = ""


@dataclass(frozen=True)
class Chat:
    """The conversation of one person: of an authenticated principal, or of this process."""

    delegation: AsyncDelegation
    settings: Settings
    conversation_id: str

    async def call(self, operation: Operation, arguments: dict[str, Any]) -> CallResult | Challenge:
        """Do the operation, or return the challenge that leads to it. Raises as `AsyncDelegation.call`."""
        wanted = ChallengeWishes(same_person_check=self.settings.same_person_check)
        if self.settings.purpose:
            wanted["purpose"] = self.settings.purpose
        if self.settings.locale:
            wanted["locale"] = self.settings.locale
        wishes = CallWishes(challenge=wanted)
        if "arguments" in arguments:
            wishes["arguments"] = arguments["arguments"]
        if "body" in arguments:
            wishes["body"] = arguments["body"]
        if operation.session_required and (session := await self.session()) is not None:
            wishes["session"] = session
        return await self.delegation.call(self.conversation_id, operation.name, **wishes)

    async def confirm(self, digits: str) -> Confirmed:
        """Confirm the sign-in with what the person typed."""
        session = await self.session()
        at = At() if session is None else At(session=session)
        try:
            await self.delegation.complete(self.conversation_id, digits, **at)
        except CodeIncorrect as problem:
            if tries := problem.attempts_left:
                wrong = f"Those are not the digits of the page. Tries left: {tries}."
                return Confirmed(f"{wrong} Ask the person again.", wrong)
            return Confirmed("Those were not the digits, and no try is left. Call the first tool again for a new link.")
        except RequestRefused as problem:
            if problem.code != "completion_code_malformed":
                raise
            return Confirmed(f"{SIX_DIGITS} Ask the person again.", SIX_DIGITS)
        except (NothingToConfirm, NotFound, ConversationClosed):
            return Confirmed("No sign-in waits for digits. Call the tool that you need: its result says what to do.")
        return Confirmed()

    async def session(self) -> int | None:
        """Return the open session's number; None before the first challenge and after the last close."""
        try:
            conversation = await self.delegation.conversation(self.conversation_id)
        except NotFound:
            return None
        return None if conversation.closed_at else conversation.session

    async def close(self) -> None:
        """End the chat: all that was granted in it is erased."""
        if (session := await self.session()) is not None:
            await self.delegation.close(self.conversation_id, session)


def in_words(error: DelegationError, otherwise: str = MAYBE_DONE) -> str:
    """Say what went wrong, and what helps. Never an address, a key or an argument's value.

    `otherwise` is said where the answer itself does not say whether something was done.
    """
    if isinstance(error, KeyRefused):
        return f"This server may not do that ({error.code}). Tell the person that its operator has to look at it."
    if isinstance(error, Unavailable) and error.code:
        return f"The service is away for the moment. {otherwise} ({error.code})"
    if isinstance(error, Problem):
        return f"{error.detail} ({error.code})" if error.code else f"The service has a fault. {otherwise}"
    if isinstance(error, NoAnswer) and not error.may_be_done:
        return f"The service cannot be reached. {NOT_DONE}"
    return f"No answer came that can be read. {otherwise}"


def for_the_person(challenge: Challenge) -> str:
    """Tell the model what to hand on, where the client cannot ask the person itself."""
    if challenge.waits_for_code:
        return (
            "The person has signed in. Ask them for the six digits on the sign-in page, and wait for their next"
            f" message. Pass the digits that they type to {CONFIRM}, then call this tool again."
        )
    return (
        "The person has to sign in first. Give them the following message exactly as it is, and wait for their next"
        f" message:\n\n{challenge.message}\n\nAfter signing in they see six digits. When they type them into this chat,"
        f" pass them to {CONFIRM}, then call this tool again."
    )
