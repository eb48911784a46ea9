"""Ask the person through the client: open the link, type the digits. The model sees neither.

On revision 2025-11-25 the server sends requests of its own while a call runs. On 2026-07-28 it cannot: a result says
what it needs, and the client repeats the call with the answers and a sealed state.
"""

import json
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from consumer_delegation import CallResult, Challenge, Operation
from consumer_delegation_mcp import tools
from consumer_delegation_mcp.chat import Chat, for_the_person, why

Context = ServerRequestContext[Any, Any]
Answer = types.CallToolResult | types.InputRequiredResult

SIGN_IN, DIGITS = "sign_in", "digits"
# Clients give one request 60 seconds, and the person's own time in a dialogue counts.
LONGEST_CALL = 45.0
# What a person needs to copy the digits. With less left the next call asks for them.
TIME_FOR_DIGITS = 20.0
# One round of 2026-07-28. Clients end a call after ten rounds.
LONGEST_ROUND = 20.0
MOST_ROUNDS = 8
DIGITS_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {DIGITS: {"type": "string", "title": "Six digits", "maxLength": tools.LONGEST_DIGITS}},
    "required": [DIGITS],
}
ASK_FOR_DIGITS = "Type the six digits of the page on which you have signed in."
DECLINED = "The person did not want to sign in. Do not ask again unless they want it."
NO_DIGITS = "The person did not type the digits. Call this tool again when they want to."
SIGNED_IN = "The person has signed in. Call this tool again at once: they are asked for the digits then."
STILL_WAITING = "The person has not finished signing in. Tell them that you wait, and call this tool again."
TRY_FAILED = (
    "The person's last try to sign in failed ({why}). The page offers another one: tell them, and call this tool again"
    " when they want to go on."
)
ENDED = "That sign-in has ended ({status}). Ask the person whether they want another try; then call this tool again."


@dataclass(frozen=True)
class Ability:
    """What the client can ask its person."""

    link: bool
    form: bool

    @classmethod
    def of(cls, ctx: Context) -> Self:
        """Read what the client has declared. An empty declaration means forms, as before there were links."""
        capabilities = ctx.session.client_capabilities
        declared = capabilities.elicitation if capabilities else None
        if declared is None:
            return cls(link=False, form=False)
        link = declared.url is not None
        return cls(link=link, form=declared.form is not None or not link)


def words(challenge: Challenge) -> str:
    """Return our message without the link, which the client shows itself."""
    message = (challenge.message or "").replace(challenge.url or "\0", "").strip()
    return message.rstrip(":").rstrip() + "."


async def answer(ctx: Context, chat: Chat, operation: Operation, params: types.CallToolRequestParams) -> Answer:
    """Do the operation; if the person has to sign in first, ask them in the way that the client can."""
    ability, arguments = Ability.of(ctx), params.arguments or {}
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return await _Rounds(chat, operation, arguments, ability).next(params)
    called = await chat.call(operation, arguments)
    if isinstance(called, CallResult):
        return tools.answer_of(called.response)
    return await _Dialogue(ctx, chat, operation, arguments, ability).lead(called)


@dataclass(frozen=True)
class _Dialogue:
    """Revision 2025-11-25: one call, in which the server asks."""

    ctx: Context
    chat: Chat
    operation: Operation
    arguments: dict[str, Any]
    ability: Ability

    async def lead(self, challenge: Challenge) -> types.CallToolResult:
        until = monotonic() + LONGEST_CALL
        if challenge.waits_for_sign_in:
            signed_in = await self._sign_in(challenge, until)
            if isinstance(signed_in, types.CallToolResult):
                return signed_in
            challenge = signed_in
        if challenge.waits_for_code and not self.ability.form:
            return tools.result(for_the_person(challenge))
        if challenge.waits_for_code and until - monotonic() < TIME_FOR_DIGITS:
            return tools.result(SIGNED_IN)
        if challenge.waits_for_code and (refusal := await self._digits()):
            return tools.result(refusal)
        return await finished(self.chat, self.operation, self.arguments, challenge)

    async def _sign_in(self, challenge: Challenge, until: float) -> Challenge | types.CallToolResult:
        """Return the challenge after the sign-in, or what to tell the model otherwise."""
        if challenge.needs_brand:
            return tools.result(await self.chat.give_up(challenge))
        if not self.ability.link:
            return tools.result(for_the_person(challenge))
        link = await self.ctx.session.elicit_url(
            words(challenge), challenge.url or "", challenge.challenge_id, self.ctx.request_id
        )
        if link.action != "accept":
            return await declined(self.chat, challenge.challenge_id, link)
        challenge = await self.chat.delegation.wait(challenge, max(until - monotonic(), 1))
        if challenge.needs_brand:
            return tools.result(await self.chat.give_up(challenge))
        if challenge.waits_for_sign_in:
            return tools.result(still_waiting(challenge))
        await self.ctx.session.send_elicit_complete(challenge.challenge_id, self.ctx.request_id)
        return challenge

    async def _digits(self) -> str:
        """Ask until the digits are right. Return what to tell the model otherwise."""
        asked = ASK_FOR_DIGITS
        for _ in range(MOST_ROUNDS):
            form = await self.ctx.session.elicit_form(asked, DIGITS_FORM, self.ctx.request_id)
            if form.action != "accept":
                return NO_DIGITS
            confirmation = await self.chat.confirm(typed(form))
            if not confirmation.to_person:
                return confirmation.refusal
            asked = f"{confirmation.to_person} {ASK_FOR_DIGITS}"
        return NO_DIGITS


async def declined(chat: Chat, challenge_id: str, link: types.ElicitResult) -> types.CallToolResult:
    """Withdraw the link of somebody who said no. Whoever only closed the dialogue can still use it."""
    if link.action == "decline":
        await chat.delegation.withdraw(challenge_id)
    return tools.result(DECLINED)


def still_waiting(challenge: Challenge) -> str:
    """Say also why the last try failed. The page offers another one, which the person may not have seen."""
    if not challenge.last_error:
        return STILL_WAITING
    return TRY_FAILED.format(why=why(challenge.last_error))


def how_it_ended(challenge: Challenge) -> str:
    """Say also why it failed: somebody who took another account, or no second factor, can do better the next time."""
    error = challenge.error or challenge.last_error
    return f"{challenge.status}: {why(error)}" if error else challenge.status


async def finished(
    chat: Chat, operation: Operation, arguments: dict[str, Any], challenge: Challenge
) -> types.CallToolResult:
    """Do the operation after the sign-in, or say that it has ended. A new link is for a call of its own."""
    newest = await chat.delegation.challenge(challenge.challenge_id)
    if newest.status != "completed":
        return tools.result(ENDED.format(status=how_it_ended(newest)))
    called = await chat.call(operation, arguments)
    return tools.answer_of(called.response) if isinstance(called, CallResult) else tools.result(for_the_person(called))


@dataclass(frozen=True)
class _State:
    """What the client sends back with the next round, sealed. Neither a link nor a token is in it."""

    challenge_id: str
    asked: str
    round: int

    def __str__(self) -> str:
        return json.dumps([self.challenge_id, self.asked, self.round])


@dataclass(frozen=True)
class _Rounds:
    """Revision 2026-07-28: each round is a request of its own, and may meet another instance of this server."""

    chat: Chat
    operation: Operation
    arguments: dict[str, Any]
    ability: Ability

    async def next(self, params: types.CallToolRequestParams) -> Answer:
        if params.request_state is None:
            return await self._first()
        state = _State(*json.loads(params.request_state))
        given = (params.input_responses or {}).get(state.asked)
        if isinstance(given, types.ElicitResult) and given.action != "accept":
            if state.asked == DIGITS:
                return tools.result(NO_DIGITS)
            return await declined(self.chat, state.challenge_id, given)
        challenge = await self.chat.delegation.challenge(state.challenge_id)
        if state.asked == DIGITS and challenge.waits_for_code and isinstance(given, types.ElicitResult):
            return await self._confirmed(challenge, state, typed(given))
        challenge = await self.chat.delegation.wait(challenge, LONGEST_ROUND)
        if challenge.needs_brand:
            return tools.result(await self.chat.give_up(challenge))
        if challenge.waits_for_sign_in:
            if state.round >= MOST_ROUNDS:
                return tools.result(still_waiting(challenge))
            return types.InputRequiredResult(request_state=str(_State(state.challenge_id, SIGN_IN, state.round + 1)))
        return await self._after_sign_in(challenge, state.round, ASK_FOR_DIGITS)

    async def _first(self) -> Answer:
        called = await self.chat.call(self.operation, self.arguments)
        if isinstance(called, CallResult):
            return tools.answer_of(called.response)
        if called.needs_brand:
            return tools.result(await self.chat.give_up(called))
        if not called.waits_for_sign_in:
            return await self._after_sign_in(called, 0, ASK_FOR_DIGITS)
        if not self.ability.link:
            return tools.result(for_the_person(called))
        link = types.ElicitRequestURLParams(message=words(called), url=called.url or "")
        return _asking(SIGN_IN, link, _State(called.challenge_id, SIGN_IN, 1))

    async def _after_sign_in(self, challenge: Challenge, rounds: int, message: str) -> Answer:
        if not challenge.waits_for_code:
            return await finished(self.chat, self.operation, self.arguments, challenge)
        if not self.ability.form:
            return tools.result(for_the_person(challenge))
        if rounds >= MOST_ROUNDS:
            return tools.result(SIGNED_IN)
        form = types.ElicitRequestFormParams(message=message, requested_schema=DIGITS_FORM)
        return _asking(DIGITS, form, _State(challenge.challenge_id, DIGITS, rounds + 1))

    async def _confirmed(self, challenge: Challenge, state: _State, digits: str) -> Answer:
        confirmation = await self.chat.confirm(digits)
        if confirmation.to_person:
            return await self._after_sign_in(challenge, state.round, f"{confirmation.to_person} {ASK_FOR_DIGITS}")
        if confirmation.refusal:
            return tools.result(confirmation.refusal)
        return await finished(self.chat, self.operation, self.arguments, challenge)


def typed(form: types.ElicitResult) -> str:
    """Return what the person typed; anything but a short text is a wrong code."""
    value = (form.content or {}).get(DIGITS)
    return value[: tools.LONGEST_DIGITS] if isinstance(value, str) and value.strip() else "-"


def _asking(name: str, params: types.ElicitRequestParams, state: _State) -> types.InputRequiredResult:
    return types.InputRequiredResult(
        input_requests={name: types.ElicitRequest(params=params)}, request_state=str(state)
    )
