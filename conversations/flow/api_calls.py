"""Call a brand's API with a conversation's token. The bot names a declared operation, and never gets the token."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import NoReturn

from django.utils import timezone

from brands.models import BotKey, NetworkUse, Operation
from brands.operation_requests import HostNotNamed, at_named_host
from conversations.flow.authorization_status import authorization_of
from conversations.flow.call_counts import CallKind, count_call
from conversations.flow.errors import (
    ApiBusy,
    ApiHostChanged,
    CallOutcome,
    InvalidScope,
    NoApiAnswer,
    ScopeRefusedByApi,
    TokenReplaced,
    WrongAuthorizationStatus,
)
from conversations.flow.readable_tokens import refuse_missing_scope
from conversations.flow.slots import ServerBusy, call_slot
from conversations.flow.step_up import refuse_weak_sign_in
from conversations.flow.termination import end_live_token
from conversations.models import AccessToken
from infrastructure.crypto import Secret
from oauth_client.addresses import allowing
from oauth_client.dpop import ProofKey
from oauth_client.resource_server import ResourceRequest, ResourceResponse, TokenInAnswer, call_resource
from oauth_client.transport import EndpointTimeout, OutboundError, ResponseTooLarge

audit_logger = logging.getLogger("consumer_delegation.audit")
logger = logging.getLogger("consumer_delegation.api_calls")


@dataclass(frozen=True)
class Caller:
    """Who calls, and what for: the purpose is a code of the bot's own, as for token reads."""

    bot_key: BotKey
    actor: str
    purpose: str


def call_api(
    operation: Operation, request: ResourceRequest, access_token: AccessToken, caller: Caller
) -> ResourceResponse:
    """Send the request with the token, and return the API's answer.

    The token's truth comes from its use: if the API says that it is invalid, it ends as `rejected`. Raises
    `ApiHostChanged`, `MissingScope`, `ScopeRefusedByApi`, `ApiBusy`, `NoApiAnswer`, `WrongAuthorizationStatus`,
    `ConversationClosed`, `TokenReplaced`, `StepUpRequired`, `StepUpUnavailable` and `DecryptionError`.
    """
    # Both moments are of rows, so that this needs no query. One in the same microsecond is refused, too (P2).
    if access_token.issued_at <= operation.api.host_since:
        raise ApiHostChanged
    if not set(operation.scope.split()) <= set(access_token.scope.split()):
        _refuse_scope(operation, access_token, operation.scope)
    value, proof_key = access_token.reveal_access_token(), access_token.reveal_proof_key()
    began, outcome = monotonic(), "failed"
    try:
        addressed = _addressed(operation, request, access_token)
        with call_slot(operation.brand_id):
            response = _sent(operation, addressed, value, proof_key)
        outcome = f"{response.status // 100}xx"
    except ServerBusy:
        outcome = "busy"
        raise ApiBusy from None
    except NoApiAnswer as failure:
        outcome = failure.outcome.value
        raise
    finally:
        _note(operation, access_token, caller, outcome, round((monotonic() - began) * 1000))
    if response.refuses_token:
        _end(operation, access_token, caller.actor)
    if response.wants_step_up:
        refuse_weak_sign_in(access_token, operation.api.authorization_server, response.demand, timezone.now())
    if response.wants_more_scope:
        _refuse_scope(operation, access_token, response.scope)
    return response


def _addressed(operation: Operation, request: ResourceRequest, access_token: AccessToken) -> ResourceRequest:
    """Check what the token's response said of the host again, at each use: the row is older than this code (P2)."""
    if not operation.api.host_member:
        return request
    try:
        return at_named_host(request, operation.api, access_token.reveal_response_members())
    except HostNotNamed as refused:
        about = {"brand": operation.brand.slug, "operation": operation.name, "reason": refused.reason}
        logger.warning("a token names no host for a brand's API", extra=about)
        raise NoApiAnswer(CallOutcome.HOST_REFUSED, was_sent=False) from None


def _sent(
    operation: Operation, request: ResourceRequest, access_token: Secret, proof_key: ProofKey | None
) -> ResourceResponse:
    try:
        with allowing(operation.brand.networks_for(NetworkUse.SERVERS)):
            response = call_resource(
                request, access_token, is_safe_to_repeat=operation.is_safe_to_repeat, proof_key=proof_key
            )
    except TokenInAnswer:
        raise NoApiAnswer(CallOutcome.TOKEN_IN_ANSWER) from None
    except OutboundError as error:
        # One code for an address that is blocked and for one that refuses the connection: a brand's admin must not
        # learn from us what is inside our network (N9). The operator's log has the reason.
        about = {"brand": operation.brand.slug, "operation": operation.name, "reason": type(error).__name__}
        logger.warning("a brand's API gave no answer: %s", error, extra=about)
        if isinstance(error, ResponseTooLarge):
            outcome = CallOutcome.TOO_LARGE
        else:
            outcome = CallOutcome.TIMEOUT if isinstance(error, EndpointTimeout) else CallOutcome.UNREACHABLE
        raise NoApiAnswer(outcome, was_sent=error.was_sent) from None
    if response.refuses_proof:
        # Our clock, or the API's: a new token would be refused in the same way, so this one stays (L5).
        raise NoApiAnswer(CallOutcome.PROOF_REFUSED)
    return response


def _note(operation: Operation, access_token: AccessToken, caller: Caller, outcome: str, milliseconds: int) -> None:
    """Log and count a call: who called what, and how it went. Never an argument, a body or a header (P11)."""
    conversation = access_token.conversation
    audit_logger.info(
        "api.call",
        extra={
            "actor": caller.actor,
            "brand_uuid": str(operation.brand.uuid),
            "conversation_uuid": str(conversation.uuid),
            "access_token_uuid": str(access_token.uuid),
            "operation": operation.name,
            "outcome": outcome,
            "milliseconds": milliseconds,
            "call_purpose": caller.purpose,
        },
    )
    count_call(CallKind(caller.bot_key.pk, operation.name, outcome, caller.purpose), milliseconds, timezone.now())


def _end(operation: Operation, access_token: AccessToken, actor: str) -> NoReturn:
    """End the token that the API refused, and no later one (P9). Always raises what the bot has to do now."""
    conversation, server = access_token.conversation, operation.api.authorization_server
    now, reason = timezone.now(), AccessToken.EndReason.REJECTED
    live = end_live_token(conversation, server, reason, actor=actor, now=now, presented=access_token)
    if live != access_token:
        raise TokenReplaced
    raise WrongAuthorizationStatus(authorization_of(conversation, server, now))


def _refuse_scope(operation: Operation, access_token: AccessToken, wanted: str) -> NoReturn:
    """Say which scope is wanted: always raises. Another sign-in helps only if it is missing and can be asked for."""
    with suppress(InvalidScope):
        refuse_missing_scope(access_token, operation.api.authorization_server, wanted)
    raise ScopeRefusedByApi(wanted)
