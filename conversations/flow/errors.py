"""Why a bot's call cannot be done: one class for each thing that the caller can do about it."""

from conversations.flow.authorization_status import Authorization
from conversations.models import Challenge


class FlowError(Exception):
    """Base of all of them."""


class ConversationClosed(FlowError):
    """The conversation was closed and never reopens."""


class ChallengeDiffers(FlowError):
    """Another challenge is open, with another check or scope, and the bot did not ask to replace it."""

    def __init__(self, challenge: Challenge) -> None:
        super().__init__()
        self.challenge = challenge


class InvalidScope(FlowError):
    """The scope asked for is not a subset of the configured one, or lacks what the server requires."""


class SamePersonCheckRefused(FlowError):
    """The authorization server does not accept the check that the bot named."""


class ExpectedSubjectRefused(FlowError):
    """An expected subject goes with the check `expected_subject`, and with no other."""


class IdempotencyKeyReused(FlowError):
    """The key was sent before with another body, or for another conversation."""


class NotInThisStatus(FlowError):
    """What was asked needs another authorization status than the one the conversation has."""

    def __init__(self, authorization: Authorization) -> None:
        super().__init__(authorization.status.value)
        self.authorization = authorization


class CompletionCodeIncorrect(FlowError):
    """The code is not the one on the consumer's page."""

    def __init__(self, attempts_left: int) -> None:
        super().__init__()
        self.attempts_left = attempts_left


class CompletionCodeMalformed(FlowError):
    """What was posted cannot be a completion code; it is not counted as a try."""


class HandleUnknown(FlowError):
    """No sign-in of this brand waits for this handle."""


class HandleOfOtherConversation(FlowError):
    """The handle belongs to another conversation, whose challenge was ended and whose token was wiped (A11)."""


class TooManyChallenges(FlowError):
    """The conversation has had as many new challenges as it may have for now (G8)."""

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class InsufficientLifetime(FlowError):
    """The token lives, but not for as long as the bot needs it; `lifetime` is what it had from the beginning.

    Where even that was not enough, another sign-in would bring another token that is too short.
    """

    def __init__(self, expires_in: int, lifetime: int, min_ttl: int) -> None:
        super().__init__()
        self.expires_in, self.lifetime = expires_in, lifetime
        # Equal is too short as well: time passes between the sign-in and the read.
        self.is_for_good = lifetime <= min_ttl


class MissingScope(FlowError):
    """The token lives, but does not hold all of the scope that the bot needs; each of the three is space-separated."""

    def __init__(self, *, requested: str, granted: str, missing: str) -> None:
        super().__init__()
        self.requested, self.granted, self.missing = requested, granted, missing
