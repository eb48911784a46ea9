"""What the API answers. Members that this version does not know are left out, so that answers may grow."""

from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, TypeVar

from consumer_delegation.problems import UnreadableAnswer

ChallengeStatus = Literal[
    "issued", "started", "confirmation_needed", "completed", "denied", "cancelled", "expired", "superseded",
    "withdrawn", "failed",
]  # fmt: skip
AuthorizationStatus = Literal[
    "closed", "authorized", "confirmation_needed", "challenged", "rechallenge_required", "unchallenged"
]
Text = str | dict[str, str]
# Of `last_error`: another try is in vain until somebody at the brand, or the operator, has changed something.
_OF_THE_BRAND = frozenset(
    {
        "assurance_not_met", "claim_unusable", "invalid_client", "invalid_dpop_proof",
        "invalid_id_token", "invalid_par_response", "invalid_request", "invalid_scope",
        "invalid_subject_response", "invalid_target", "invalid_token_response",
        "redirect_uri_mismatch", "sign_in_refused", "stored_secret_unreadable",
        "subject_request_refused", "unauthorized_client", "unsupported_grant_type",
        "unsupported_response_type",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A sign-in that the consumer is asked for. Send `message`, or `url` as a button that opens the system browser.

    Only a challenge that was just issued or authorized has `url` and `message`. Log neither.
    """

    challenge_id: str
    conversation_id: str
    session: int
    authorization_server: str
    status: ChallengeStatus
    error: str | None
    last_error: str | None
    same_person_check: str
    scope: str
    acr_values: str | None
    max_age: int | None
    purpose: Text | None = field(repr=False)
    locale: str | None
    context: str | None = field(repr=False)
    issued_at: datetime
    started_at: datetime | None
    confirmation_needed_at: datetime | None
    completed_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime
    expires_in: int
    url: str | None = field(default=None, repr=False)
    message: str | None = field(default=None, repr=False)
    etag: str = field(default="", repr=False)

    @property
    def waits_for_sign_in(self) -> bool:
        return self.status in {"issued", "started"}

    @property
    def waits_for_code(self) -> bool:
        return self.status == "confirmation_needed"

    @property
    def needs_brand(self) -> bool:
        """Whether a sign-in failed so that another try is in vain: tell the consumer and the brand, and do not wait."""
        return self.waits_for_sign_in and self.last_error in _OF_THE_BRAND


@dataclass(frozen=True, kw_only=True)
class TokenFacts:
    """What is known of a token, without the token.

    `token_type` is `Bearer`, or `DPoP` if it is bound to a key that stays with the service: only calls can use it.
    """

    token_type: str
    requested_scope: str
    scope: str
    missing_scope: str
    assurance: str
    matched_claims: list[str]
    acr: str | None
    amr: list[str]
    auth_time: datetime | None
    subject_pinned: bool
    issued_at: datetime
    expires_at: datetime
    expires_in: int
    lifetime_assumed: bool


@dataclass(frozen=True, kw_only=True)
class AccessToken(TokenFacts):
    """A live token. Send it to the brand's API as the bearer token, and do not store it."""

    access_token: str = field(repr=False)
    session: int
    token_response_members: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class ApiResponse:
    """What the brand's API answered to a call. Treat it as input."""

    status: int
    headers: dict[str, str] = field(repr=False)
    body_encoding: str
    body: Any = field(repr=False)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """The brand's API has answered; `response.status` says how."""

    conversation_id: str
    session: int
    operation: str
    response: ApiResponse


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation of the brand's API. `input_schema` is that of `arguments` and `body`."""

    name: str
    description: Text | None
    input_schema: dict[str, Any] = field(repr=False)
    read_only: bool
    session_required: bool


@dataclass(frozen=True, kw_only=True)
class OperationList:
    """One page of what the brand's admin has declared."""

    operations: list[Operation]
    next_after: str | None


@dataclass(frozen=True, kw_only=True)
class LastChallenge:
    """How the newest challenge ended."""

    challenge_id: str
    status: ChallengeStatus
    error: str | None
    last_error: str | None
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A conversation's status at one authorization server."""

    authorization_server: str
    status: AuthorizationStatus
    reason: str | None
    challenge: Challenge | None
    access_token: TokenFacts | None
    last_challenge: LastChallenge | None


@dataclass(frozen=True, kw_only=True)
class Confirmation(Standing):
    """The sign-in is confirmed: the token can be read."""

    session: int


@dataclass(frozen=True, kw_only=True)
class EndedToken(Standing):
    """The receipt of a token that the bot has ended."""

    conversation_id: str
    session: int
    ended_at: datetime
    end_reason: str


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation and its status at each authorization server."""

    conversation_id: str
    session: int
    closed_at: datetime | None
    authorization_servers: list[Standing]

    @property
    def waits_for_code(self) -> Challenge | None:
        """The sign-in that waits for the six digits. Of several servers', the one whose page was seen last."""
        found = [server.challenge for server in self.authorization_servers]
        waiting = [challenge for challenge in found if challenge and challenge.waits_for_code]
        return max(waiting, key=lambda each: each.confirmation_needed_at or each.issued_at, default=None)

    def server_of(self, scope: str | None) -> str | None:
        """The server whose token has this scope, such as that of the problem `missing_scope`."""
        servers = self.authorization_servers
        tokens = {each.access_token.scope: each.authorization_server for each in servers if each.access_token}
        return tokens.get(scope or "")


@dataclass(frozen=True, kw_only=True)
class ClosedConversation:
    """The receipt of a conversation that was closed, or of its session."""

    conversation_id: str
    session: int
    status: Literal["closed"]
    closed_at: datetime
    access_tokens_erased: int
    challenges_withdrawn: int


Shape = TypeVar("Shape")
_OBJECTS: dict[str, type[Any]] = {
    "challenge": Challenge,
    "access_token": TokenFacts,
    "last_challenge": LastChallenge,
    "response": ApiResponse,
}


def read(shape: type[Shape], body: dict[str, Any] | None, **more: Any) -> Shape:
    """Make an answer of a JSON object. Raises `UnreadableAnswer` if a member is missing, or a moment is none."""
    if body is None:
        raise UnreadableAnswer("the answer is no JSON object")
    declared: tuple[Any, ...] = fields(shape)  # type: ignore[arg-type]  # each shape is a dataclass
    known = {member.name for member in declared}
    try:
        given = {name: _value(name, value) for name, value in body.items() if name in known}
    except (TypeError, ValueError) as error:
        raise UnreadableAnswer("a member of the answer cannot be read") from error
    needed = {member.name for member in declared if member.default is member.default_factory is MISSING}
    if missing := needed - given.keys() - more.keys():
        raise UnreadableAnswer(f"the answer lacks {', '.join(sorted(missing))}")
    return shape(**{**given, **more})


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name.endswith("_at") or name == "auth_time":
        return datetime.fromisoformat(value)
    if name == "authorization_servers":
        return [read(Standing, standing) for standing in value]
    if name == "operations":
        return [read(Operation, operation) for operation in value]
    if name in _OBJECTS and isinstance(value, dict):
        return read(_OBJECTS[name], value)
    return value
