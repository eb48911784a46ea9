"""Reasons why a bot's call is refused. Each class is one thing that the bot can do about it."""

from enum import StrEnum

from conversations.flow.authorization_status import Authorization
from conversations.models import Challenge, Conversation
from oauth_client.step_up import AuthenticationDemand


class FlowError(Exception):
    """Base class of the errors below."""


class ConversationClosed(FlowError):
    """The conversation is closed. If the brand's ids are reused, a challenge begins the next session."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        self.can_begin_next = conversation.brand.reuses_conversation_ids


class SessionMismatch(FlowError):
    """The call names another session than the one that it would meet (S3).

    `session` is the newest session of the id, or None if no session has begun.
    """

    def __init__(self, session: int | None) -> None:
        super().__init__()
        self.session = session


class SessionRequired(FlowError):
    """The call ends something, the brand's ids are reused, and the call names no session (S4)."""


def refuse_other_session(conversation: Conversation, named: int | None) -> None:
    """Raise `SessionMismatch` if a call names another session than the conversation's (S3)."""
    if named not in {None, conversation.session}:
        raise SessionMismatch(conversation.session)


def refuse_unnamed_session(conversation: Conversation, named: int | None) -> None:
    """Raise `SessionRequired` if a call that ends something names no session, and ids are reused (S4)."""
    if named is None and conversation.brand.reuses_conversation_ids:
        raise SessionRequired


class ChallengeDiffers(FlowError):
    """A challenge that differs in what the bot names is open, and the bot did not ask to replace it."""

    def __init__(self, challenge: Challenge) -> None:
        super().__init__()
        self.challenge = challenge


class InvalidScope(FlowError):
    """The requested scope exceeds the configured one, or lacks a scope that the server requires."""


class SamePersonCheckRefused(FlowError):
    """The authorization server does not accept the same-person check that the bot named."""


class SamePersonCheckForbidden(FlowError):
    """The bot key may not use the same-person check, although the authorization server accepts it."""


class ExpectedSubjectRefused(FlowError):
    """An expected subject is required with the check `expected_subject`, and refused with any other."""


class ExpectedClaimsRefused(FlowError):
    """The authorization server sends no ID token with which expected claims could be compared."""


class ExpectedClaimInvalid(FlowError):
    """The value of an expected claim can never match: no international number, or no e-mail address."""

    def __init__(self, claim: str) -> None:
        super().__init__()
        self.claim = claim


class IdempotencyKeyReused(FlowError):
    """The key was used before with another body or for another conversation."""


class WrongAuthorizationStatus(FlowError):
    """The call is not possible with the conversation's current authorization status."""

    def __init__(self, authorization: Authorization) -> None:
        super().__init__(authorization.status.value)
        self.authorization = authorization


class CompletionCodeIncorrect(FlowError):
    """The code differs from the one on the consumer's page."""

    def __init__(self, attempts_left: int) -> None:
        super().__init__()
        self.attempts_left = attempts_left


class CompletionCodeMalformed(FlowError):
    """The posted text cannot be a completion code. It is not counted as an attempt."""


class HandleUnknown(FlowError):
    """No sign-in at this brand waits for this handle."""


class HandleOfOtherConversation(FlowError):
    """The handle belongs to another conversation. That challenge was ended and its token erased (A11)."""


class TooManyChallenges(FlowError):
    """The conversation had too many new challenges in a short time (G8). `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class InsufficientLifetime(FlowError):
    """The token expires sooner than the bot needs it. All times are in seconds.

    `lifetime` is what the token had when it was issued. If even that is too short, `is_permanent` is set: a new sign-in
    would bring another token that is too short.
    """

    def __init__(self, expires_in: int, lifetime: int, min_ttl: int) -> None:
        super().__init__()
        self.expires_in, self.lifetime = expires_in, lifetime
        # An equal lifetime is too short as well, because time passes between the sign-in and the read.
        self.is_permanent = lifetime <= min_ttl


class MissingScope(FlowError):
    """The token lacks a part of the scope that the bot needs. The three scopes are separated by spaces."""

    def __init__(self, *, requested: str, granted: str, missing: str) -> None:
        super().__init__()
        self.requested, self.granted, self.missing = requested, granted, missing


class CallOutcome(StrEnum):
    """Why a call of a brand's API brought no answer that can be passed on. The values are problem codes."""

    UNREACHABLE = "api_unreachable"
    TIMEOUT = "api_timeout"
    TOO_LARGE = "api_response_too_large"
    TOKEN_IN_ANSWER = "token_in_answer"
    PROOF_REFUSED = "api_proof_refused"
    HOST_REFUSED = "api_host_refused"


class ApiHostChanged(FlowError):
    """The API has moved to another host since the token was issued, and the token is not sent there (P2)."""


class TokenIsSenderConstrained(FlowError):
    """The token is bound to our key (DPoP). It is never handed out: the bot calls operations with it (L2)."""


class TokenReplaced(FlowError):
    """The API refused a token in whose place another one is live by now."""


class ScopeRefusedByApi(FlowError):
    """The API, or the operation, wants a scope that another sign-in cannot bring. `wanted` may be empty."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted = wanted


class StepUpRequired(FlowError):
    """The API demands a stronger or newer sign-in (RFC 9470). The token stays: it is good for other operations."""

    def __init__(self, demand: AuthenticationDemand) -> None:
        super().__init__()
        self.demand = demand


class StepUpUnavailable(FlowError):
    """The API demands a stronger sign-in that no challenge can bring.

    `is_unreadable`: what it demands has not the form of RFC 9470. Otherwise no ID token could say how somebody
    signed in.
    """

    def __init__(self, *, is_unreadable: bool) -> None:
        super().__init__()
        self.is_unreadable = is_unreadable


class ApiBusy(FlowError):
    """As many calls of the brand's APIs are running as we allow. Nothing was sent (P7)."""


class NoApiAnswer(FlowError):
    """The API gave no answer that can be passed on.

    `was_sent` is false only if no byte of the request was sent. Otherwise the API may have done what it was asked.
    """

    def __init__(self, outcome: CallOutcome, *, was_sent: bool = True) -> None:
        super().__init__(outcome.value)
        self.outcome, self.was_sent = outcome, was_sent
