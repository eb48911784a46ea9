"""One conversation with the product: the calls that a tool makes, and what is said if one fails."""

from dataclasses import dataclass
from typing import Any

from consumer_delegation import (
    AsyncDelegation,
    CallResult,
    Challenge,
    ChallengeDiffers,
    CodeIncorrect,
    Conversation,
    ConversationClosed,
    DelegationError,
    KeyRefused,
    NoAnswer,
    NotFound,
    NothingToConfirm,
    NoToken,
    Operation,
    Problem,
    RateLimited,
    Remedy,
    RequestRefused,
    Unavailable,
)
from consumer_delegation.calls import At, CallWishes, ChallengeWishes
from consumer_delegation_mcp.settings import Settings
from consumer_delegation_mcp.tools import CONFIRM

SIX_DIGITS = "The page shows six digits. This did not count as a try."
NOBODY_WAITS = "No sign-in waits for digits. Call the tool that you need: its result says what to do."
STEP_UP = "This tool needs a stronger or newer sign-in than the person's last one. Other tools still work.\n\n"
NOT_DONE = "Nothing was done. Try again later."
MAYBE_DONE = "It may have been done: look before you call again."
OPERATOR = "Tell the person that its operator has to look at it."
NEEDS_BRAND = (
    "The sign-in cannot succeed ({why}) until somebody at the brand has changed something. Tell the person so, and do"
    " not call this tool again before they ask for it."
)
# A problem's own words are for a bot's developer. Who calls tools can do nothing but this.
HELPS: dict[Remedy, str] = {
    "sign_in": "The person has to sign in. Call the tool again: its result says what to do.",
    "code": "A sign-in waits for its six digits. Call the tool again: its result says what to do.",
    "again": "This time it was not done. Call the tool again.",
    "new_chat": "This conversation was closed, and no tool works in it any more. Tell the person to start a new one.",
}
# Their details are good for a model, too: what is wrong with its arguments, or whom to tell.
DETAILED = frozenset(
    {
        "api_host_refused", "api_proof_refused", "api_response_too_large", "api_timeout", "api_unreachable",
        "arguments_invalid", "body_too_large", "invalid_request_body", "missing_scope", "operation_unknown",
        "step_up_unavailable", "stored_value_unreadable", "token_in_answer",
    }
)  # fmt: skip
WHY = {
    "assurance_not_met": "it was weaker or older than the brand's API demands: assurance_not_met",
    "other_conversation": "the link was used in another chat: other_conversation",
    "subject_mismatch": "it was another account than before in this chat: subject_mismatch",
    "too_many_codes": "the digits were wrong too often: too_many_codes",
}


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
        try:
            return await self.delegation.call(self.conversation_id, operation.name, **wishes)
        except ChallengeDiffers as problem:
            return await self._beside_another_link(operation, wishes, problem)
        except NoToken as problem:
            if problem.code != "missing_scope" or problem.next is None:
                raise
            return await self._with_all_scopes(wanted, problem)

    async def _beside_another_link(
        self, operation: Operation, wishes: CallWishes, problem: ChallengeDiffers
    ) -> CallResult | Challenge:
        """Replace a link that leads to less than the API demands now. Whoever has signed in there finishes that first.

        The model could neither withdraw nor replace it, and the person would wait until it expires.
        """
        if problem.challenge_id:
            found = await self.delegation.challenge(problem.challenge_id)
            if found.waits_for_code:
                return found
        wishes["challenge"] = {**wishes["challenge"], "replace": True}
        if (session := await self.session()) is not None:
            wishes["session"] = session
        return await self.delegation.call(self.conversation_id, operation.name, **wishes)

    async def _with_all_scopes(self, wanted: ChallengeWishes, problem: NoToken) -> Challenge:
        """Ask again for what the person did not allow: no call does that by itself, because bots may prefer not to."""
        if conversation := await self._open():
            wanted["session"] = conversation.session
            if server := conversation.server_of(problem.scope):
                wanted["authorization_server"] = server
        return await self.delegation.create_challenge(self.conversation_id, **wanted)

    async def confirm(self, digits: str) -> Confirmed:
        """Confirm the sign-in with what the person typed."""
        conversation = await self._open()
        if (at := waiting_in(conversation)) is None:
            return Confirmed(nobody_waits(conversation))
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
            return Confirmed(NOBODY_WAITS)
        return Confirmed()

    async def give_up(self, challenge: Challenge) -> str:
        """Withdraw a link that leads to nothing before the brand has changed something. Return what to say.

        The next call makes a new one, so the person can try again when they want to.
        """
        await self.delegation.withdraw(challenge.challenge_id)
        return NEEDS_BRAND.format(why=why(challenge.last_error))

    async def session(self) -> int | None:
        """Return the open session's number; None before the first challenge and after the last close."""
        conversation = await self._open()
        return conversation.session if conversation else None

    async def _open(self) -> Conversation | None:
        try:
            conversation = await self.delegation.conversation(self.conversation_id)
        except NotFound:
            return None
        return None if conversation.closed_at else conversation

    async def close(self) -> None:
        """End the chat: all that was granted in it is erased."""
        if (session := await self.session()) is not None:
            await self.delegation.close(self.conversation_id, session)


def waiting_in(conversation: Conversation | None) -> At | None:
    """Find the sign-in that waits for digits."""
    waiting = conversation.waits_for_code if conversation else None
    return At(session=waiting.session, authorization_server=waiting.authorization_server) if waiting else None


def nobody_waits(conversation: Conversation | None) -> str:
    """Say also why the last sign-in failed: the person may have another account, or a second factor.

    It may be open still, for another try.
    """
    servers = conversation.authorization_servers if conversation else []
    tried = [server.challenge or server.last_challenge for server in servers]
    failed = "; ".join(why(each.error or each.last_error) for each in tried if each and (each.error or each.last_error))
    return f"The last sign-in failed ({failed}). {NOBODY_WAITS}" if failed else NOBODY_WAITS


def why(error: str | None) -> str:
    """Say in words what the person can do something about. All else is a code, for whoever looks at it."""
    return WHY.get(error or "", error or "")


def in_words(error: DelegationError, otherwise: str = MAYBE_DONE) -> str:
    """Say what went wrong, and what helps. Never an address, a key or an argument's value.

    `otherwise` is said where the answer itself does not say whether something was done.
    """
    if isinstance(error, KeyRefused):
        return f"This server may not do that ({error.code}). {OPERATOR}"
    if isinstance(error, Unavailable) and error.was_sent is False:
        return f"The brand's API is busy. {NOT_DONE} ({error.code})"
    if isinstance(error, Unavailable) and error.code:
        return f"The service is away for the moment. {otherwise} ({error.code})"
    if isinstance(error, Problem):
        return _problem_in_words(error, otherwise) if error.code else f"The service has a fault. {otherwise}"
    if isinstance(error, NoAnswer) and not error.may_be_done:
        return f"The service cannot be reached. {NOT_DONE}"
    return f"No answer came that can be read. {otherwise}"


def _problem_in_words(problem: Problem, otherwise: str) -> str:
    if isinstance(problem, RateLimited):
        return f"Too many calls. {NOT_DONE[:-1]}, in {problem.retry_after or 60:.0f} seconds. ({problem.code})"
    if helps := HELPS.get(problem.remedy):
        return f"{helps} ({problem.code})"
    if problem.code in DETAILED:
        return f"{problem.detail} ({problem.code})"
    if problem.last_error:
        return f"{NEEDS_BRAND.format(why=why(problem.last_error))} ({problem.code})"
    if problem.remedy == "wait":
        return f"The service has a fault. {otherwise} ({problem.code})"
    return f"The service refuses what this server asks. {OPERATOR} ({problem.code})"


def for_the_person(challenge: Challenge) -> str:
    """Tell the model what to hand on, where the client cannot ask the person itself."""
    if challenge.waits_for_code:
        return (
            "The person has signed in. Ask them for the six digits on the sign-in page, and wait for their next"
            f" message. Pass the digits that they type to {CONFIRM}, then call this tool again."
        )
    return (STEP_UP if challenge.acr_values or challenge.max_age is not None else "") + (
        "The person has to sign in first. Give them the following message exactly as it is, and wait for their next"
        f" message:\n\n{challenge.message}\n\nAfter signing in they see six digits. When they type them into this chat,"
        f" pass them to {CONFIRM}, then call this tool again."
    )
