"""Call a brand's API with a conversation's token. The bot names a declared operation, and never gets the token."""

import logging
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import NamedTuple, NoReturn
from uuid import UUID

import msgspec
from django.utils import timezone

from brands.models import AuthorizationServer, NetworkUse, Operation
from brands.models.private_networks import networks_for_use
from brands.operation_requests import HostNotNamed, at_named_host
from conversations.flow.authorization_status import AuthorizationStatus, authorization_of
from conversations.flow.call_counts import CallKind, count_call
from conversations.flow.errors import (
    ApiBusy,
    ApiHostChanged,
    CallOutcome,
    ConversationClosed,
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
from conversations.models import AccessToken, Conversation
from infrastructure import logs, metrics
from infrastructure.crypto import Secret
from oauth_client.addresses import PrivateNetwork, allowing
from oauth_client.dpop import ProofKey
from oauth_client.resource_server import ResourceRequest, ResourceResponse, TokenInAnswer, call_resource
from oauth_client.transport import EndpointTimeout, OutboundError, ResponseTooLarge

audit_logger = logging.getLogger("consumer_delegation.audit")
logger = logging.getLogger("consumer_delegation.api_calls")


class Caller(NamedTuple):
    """Who calls, and what for: the purpose is a code of the bot's own, as for token reads."""

    bot_key_pk: int
    actor: str
    purpose: str


class CallRow(msgspec.Struct, array_like=True, frozen=True):
    """What a call needs of an operation, its API, and the token that is presented: columns, and no model instance."""

    operation: str
    scope: str
    is_safe_to_repeat: bool
    base_url: str
    host_member: str
    host_since: datetime
    brand_pk: int
    brand_slug: str
    brand_uuid: UUID
    # The column as JSON: a call into a public network decodes nothing.
    private_networks: str
    conversation_uuid: UUID
    token_uuid: UUID
    token_scope: str
    issued_at: datetime

    @classmethod
    def of(cls, operation: Operation, access_token: AccessToken) -> "CallRow":
        api, brand = operation.api, operation.brand
        return cls(
            operation.name, operation.scope, operation.is_safe_to_repeat,
            api.base_url, api.host_member, api.host_since, brand.pk, brand.slug, brand.uuid,
            msgspec.json.encode(brand.private_networks).decode(),
            access_token.conversation.uuid, access_token.uuid, access_token.scope, access_token.issued_at,
        )  # fmt: skip

    @property
    def is_older_than_host(self) -> bool:
        """Whether the API moved to its host after the token was issued, or in the same microsecond (P2)."""
        return self.issued_at <= self.host_since

    @property
    def networks(self) -> tuple[PrivateNetwork, ...]:
        """The private networks in which the brand's API may be called (N14). A column that cannot be read has none."""
        if self.private_networks == "[]":
            return ()
        try:
            column = msgspec.json.decode(self.private_networks)
        except msgspec.DecodeError:  # written by SQL: a number that no float holds
            return ()
        return networks_for_use(column, NetworkUse.SERVERS)

    @property
    def has_scope(self) -> bool:
        """Whether the token has been granted all that the operation needs."""
        return set(self.scope.split()) <= set(self.token_scope.split())


class Presented(NamedTuple):
    """The decrypted columns of a token that are sent, or say where to."""

    access_token: Secret
    proof_key: ProofKey | None
    response_members: Secret | None


def call_api(
    operation: Operation, request: ResourceRequest, access_token: AccessToken, caller: Caller
) -> ResourceResponse:
    """Send the request with the token, and return the API's answer.

    The token's truth comes from its use: if the API says that it is invalid, it ends as `rejected`. Raises
    `ApiHostChanged`, `MissingScope`, `ScopeRefusedByApi`, `ApiBusy`, `NoApiAnswer`, `WrongAuthorizationStatus`,
    `ConversationClosed`, `TokenReplaced`, `StepUpRequired`, `StepUpUnavailable` and `DecryptionError`.
    """
    row, server = CallRow.of(operation, access_token), operation.api.authorization_server
    if row.is_older_than_host:
        raise ApiHostChanged
    if not row.has_scope:
        _refuse_scope(server, access_token, row.scope)
    members = access_token.reveal_response_members() if row.host_member else None
    presented = Presented(access_token.reveal_access_token(), access_token.reveal_proof_key(), members)
    response = send_call(row, request, presented, caller)
    if is_refusal(response):
        refuse(response, server, access_token, caller.actor)
    return response


def send_call(row: CallRow, request: ResourceRequest, presented: Presented, caller: Caller) -> ResourceResponse:
    """Send the request with the token, log and count the call. Return the API's answer, also if it is a refusal.

    The caller has asked `is_older_than_host` and `has_scope`. Raises `ApiBusy` and `NoApiAnswer`.
    """
    began, outcome = monotonic(), "failed"
    try:
        addressed = _addressed(row, request, presented.response_members)
        with call_slot(row.brand_pk):
            response = _sent(row, addressed, presented)
        outcome = f"{response.status // 100}xx"
    except ServerBusy:
        outcome = "busy"
        raise ApiBusy from None
    except NoApiAnswer as failure:
        outcome = failure.outcome.value
        raise
    finally:
        _note(row, caller, outcome, round((monotonic() - began) * 1000))
    return response


def is_refusal(response: ResourceResponse) -> bool:
    """Whether the API refuses the token, its scope or the sign-in behind it: then `refuse` has to be called."""
    return response.refuses_token or response.wants_step_up or response.wants_more_scope


def refuse(response: ResourceResponse, server: AuthorizationServer, access_token: AccessToken, actor: str) -> NoReturn:
    """Do what a refusal means for the token that was presented. Always raises what the bot has to do now."""
    if response.refuses_token:
        _end(server, access_token, actor)
    if response.wants_step_up:
        refuse_weak_sign_in(access_token, server, response.demand, timezone.now())
    _require_still_live(access_token, server, timezone.now())
    _refuse_scope(server, access_token, response.scope)


def _addressed(row: CallRow, request: ResourceRequest, members: Secret | None) -> ResourceRequest:
    """Check what the token's response said of the host again, at each use: the row is older than this code (P2)."""
    if not row.host_member:
        return request
    try:
        return at_named_host(request, row, members)
    except HostNotNamed as refused:
        about = {"brand": row.brand_slug, "operation": row.operation, "reason": refused.reason}
        logger.warning("a token names no host for a brand's API", extra=about)
        raise NoApiAnswer(CallOutcome.HOST_REFUSED, was_sent=False) from None


def _sent(row: CallRow, request: ResourceRequest, presented: Presented) -> ResourceResponse:
    try:
        with allowing(row.networks):
            response = call_resource(
                request,
                presented.access_token,
                is_safe_to_repeat=row.is_safe_to_repeat,
                proof_key=presented.proof_key,
            )
    except TokenInAnswer:
        raise NoApiAnswer(CallOutcome.TOKEN_IN_ANSWER) from None
    except OutboundError as error:
        # One code for an address that is blocked and for one that refuses the connection: a brand's admin must not
        # learn from us what is inside our network (N9). The operator's log has the reason.
        about = {"brand": row.brand_slug, "operation": row.operation, "reason": type(error).__name__}
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


def _note(row: CallRow, caller: Caller, outcome: str, milliseconds: int) -> None:
    """Log and count a call: who called what, and how it went. Never an argument, a body or a header (P11)."""
    logs.info(
        audit_logger,
        "api.call",
        {
            "actor": caller.actor,
            "brand_uuid": str(row.brand_uuid),
            "conversation_uuid": str(row.conversation_uuid),
            "access_token_uuid": str(row.token_uuid),
            "operation": row.operation,
            "outcome": outcome,
            "milliseconds": milliseconds,
            "call_purpose": caller.purpose,
        },
    )
    metrics.count_api_call(row.brand_uuid, milliseconds / 1000, outcome)
    count_call(CallKind(caller.bot_key_pk, row.operation, outcome, caller.purpose), milliseconds, timezone.now())


def _end(server: AuthorizationServer, access_token: AccessToken, actor: str) -> NoReturn:
    """End the token that the API refused, and no later one (P9). Always raises what the bot has to do now."""
    conversation, now, reason = access_token.conversation, timezone.now(), AccessToken.EndReason.REJECTED
    live = end_live_token(conversation, server, reason, actor=actor, now=now, presented=access_token)
    if live != access_token:
        raise TokenReplaced
    raise WrongAuthorizationStatus(authorization_of(conversation, server, now))


def _require_still_live(access_token: AccessToken, server: AuthorizationServer, now: datetime) -> None:
    """Raise what has become of a token while the API answered: its scope is no reason for a new sign-in any more.

    Raises `ConversationClosed`, `WrongAuthorizationStatus`, `TokenReplaced`. Nothing is locked: nothing is changed.
    """
    conversation = Conversation.objects.get(pk=access_token.conversation_id)
    found = authorization_of(conversation, server, now)
    if found.status == AuthorizationStatus.CLOSED:
        raise ConversationClosed(conversation)
    if found.access_token is None:
        raise WrongAuthorizationStatus(found)
    if found.access_token != access_token:
        raise TokenReplaced


def _refuse_scope(server: AuthorizationServer, access_token: AccessToken, wanted: str) -> NoReturn:
    """Say which scope is wanted: always raises. Another sign-in helps only if it is missing and can be asked for."""
    with suppress(InvalidScope):
        refuse_missing_scope(access_token, server, wanted)
    raise ScopeRefusedByApi(wanted)
