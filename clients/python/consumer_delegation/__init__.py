"""Client of Consumer Delegation: get a consumer's permission in the middle of a chat."""

from consumer_delegation.answers import (
    AccessToken,
    ApiResponse,
    AuthorizationStatus,
    CallResult,
    Challenge,
    ChallengeStatus,
    ClosedConversation,
    Confirmation,
    Conversation,
    EndedToken,
    LastChallenge,
    Operation,
    OperationList,
    Standing,
    TokenFacts,
)
from consumer_delegation.clients import AsyncDelegation, Delegation
from consumer_delegation.ids import conversation_id_of
from consumer_delegation.problems import (
    ChallengeDiffers,
    CodeIncorrect,
    ConversationClosed,
    DelegationError,
    KeyRefused,
    NextCall,
    NoAnswer,
    NotFound,
    NothingToConfirm,
    NoToken,
    Problem,
    RateLimited,
    Remedy,
    RequestRefused,
    ServiceFailed,
    SessionMismatch,
    StepUpRequired,
    Unavailable,
    UnreadableAnswer,
)
from consumer_delegation.webhooks import Event, WebhookRefused, verify_webhook

__all__ = [
    "AccessToken", "ApiResponse", "AsyncDelegation", "AuthorizationStatus", "CallResult", "Challenge",
    "ChallengeDiffers", "ChallengeStatus", "ClosedConversation", "CodeIncorrect", "Confirmation", "Conversation",
    "ConversationClosed", "Delegation", "DelegationError", "EndedToken", "Event", "KeyRefused", "LastChallenge",
    "NextCall", "NoAnswer", "NoToken", "NotFound", "NothingToConfirm", "Operation", "OperationList", "Problem",
    "RateLimited", "Remedy", "RequestRefused", "ServiceFailed", "SessionMismatch", "Standing", "StepUpRequired",
    "TokenFacts", "Unavailable", "UnreadableAnswer", "WebhookRefused", "conversation_id_of", "verify_webhook",
]  # fmt: skip
