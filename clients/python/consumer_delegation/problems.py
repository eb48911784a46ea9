"""What can go wrong, one class for each thing that a bot does about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

Remedy = Literal["wait", "sign_in", "code", "again", "new_chat", "brand"]
# Each code of the contract has a place. What waits for the consumer or for time is named; all else waits for somebody
# who changes a key, a request or a setting, and another try before that is in vain.
_CODES: dict[Remedy, str] = {
    "wait": "rate_limited unavailable internal_error api_busy api_unreachable api_timeout",
    "sign_in": (
        "conversation_unknown unchallenged challenged challenge_differs rechallenge_required insufficient_lifetime"
        " missing_scope step_up_required other_conversation"
    ),
    "code": "confirmation_needed completion_code_incorrect completion_code_malformed",
    "again": "authorized session_mismatch handle_unknown challenge_unknown",
    "new_chat": "conversation_closed",
    "brand": (
        "invalid_bot_key insufficient_scope same_person_check_forbidden same_person_check_refused"
        " step_up_unavailable api_host_refused api_proof_refused api_response_too_large token_in_answer"
        " token_is_sender_constrained stored_value_unreadable operation_unknown arguments_invalid malformed_json"
        " invalid_conversation_id bad_request not_found method_not_allowed length_required body_too_large"
        " unsupported_media_type invalid_request_body unknown_parameter repeated_parameter invalid_wait"
        " invalid_idempotency_key idempotency_key_reused purpose_required invalid_purpose invalid_min_ttl"
        " invalid_after invalid_session session_required invalid_reason invalid_scope"
        " authorization_server_required authorization_server_unknown expected_subject_refused"
        " expected_claims_refused expected_claim_invalid"
    ),
}
_REMEDIES = {code: remedy for remedy, codes in _CODES.items() for code in codes.split()}
_BY_NEXT: dict[str, Remedy] = {"createChallenge": "sign_in", "readChallenge": "sign_in", "complete": "code"}


class DelegationError(Exception):
    """Everything that this client raises, apart from `ValueError` for wrong arguments."""

    @property
    def remedy(self) -> Remedy:
        """What a bot can tell its consumer, so that nobody waits in vain.

        `wait`: ask again in a while. `sign_in`: the link helps. `code`: type the six digits. `again`: the same question
        again. `new_chat`: this one is over. `brand`: nothing of these, until the brand or the bot's developer has
        changed something.
        """
        return "brand"


class NoAnswer(DelegationError):
    """The service could not be reached, or its answer was lost: `may_be_done` tells which."""

    def __init__(self, reason: str, *, may_be_done: bool) -> None:
        super().__init__(reason)
        self.may_be_done = may_be_done

    @property
    def remedy(self) -> Remedy:
        """The network's faults pass."""
        return "wait"


class UnreadableAnswer(DelegationError):
    """An answer that does not come from this API, such as a page of a proxy."""


@dataclass(frozen=True)
class NextCall:
    """The call that helps. `path` begins at the host."""

    operation: str
    method: str
    path: str


class Problem(DelegationError):
    """A problem document (RFC 9457). Branch on the class, or on `code`; codes may be added.

    `next` is None if no call helps: the request, the key or the configuration has to change, or the fault is ours.
    `was_sent` says of a call whether the brand's API may have done it; `pointer` leads to a wrong argument.
    """

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.code = str(body.get("code", ""))
        self.detail = str(body.get("detail", ""))
        self.next = _next_call(body.get("next"))
        self.reason: str | None = body.get("reason")
        self.last_error: str | None = body.get("last_error")
        self.session: int | None = body.get("session")
        self.challenge_id: str | None = body.get("challenge_id")
        self.last_challenge: Mapping[str, Any] | None = body.get("last_challenge")
        self.attempts_left: int | None = body.get("attempts_left")
        self.expires_in: int | None = body.get("expires_in")
        self.requested_scope: str | None = body.get("requested_scope")
        self.scope: str | None = body.get("scope")
        self.missing_scope: str | None = body.get("missing_scope")
        self.acr_values: str | None = body.get("acr_values")
        self.max_age: int | None = body.get("max_age")
        self.claim: str | None = body.get("claim")
        self.pointer: str | None = body.get("pointer")
        self.was_sent: bool | None = body.get("was_sent")
        self.request_id: str | None = body.get("request_id")
        self.retry_after = retry_after
        super().__init__(f"{status} {self.code}: {self.detail}" if self.code else f"HTTP {status}")

    @property
    def remedy(self) -> Remedy:
        """As `next` says, where the code leaves it open or is of a later version."""
        known = _REMEDIES.get(self.code)
        by_next = _BY_NEXT.get(self.next.operation) if self.next else None
        if known in {"sign_in", "code"}:
            return by_next or "brand"
        if known:
            return known
        return by_next or ("wait" if self.status == 429 or self.status >= 500 else "brand")


class KeyRefused(Problem):
    """401 or 403: the bot key is wrong, or may not do this."""


class NotFound(Problem):
    """404: no such conversation or challenge of this brand."""


class NoToken(Problem):
    """409: no token fits. `code` is the status, or what the token lacks; `next` is the call that helps.

    `token_is_sender_constrained`: the brand's tokens cannot be read at all, only called with.
    """


class StepUpRequired(NoToken):
    """409: the brand's API demands a stronger or newer sign-in for this call. The next challenge asks for it by itself.

    The token stays. `acr_values` and `max_age` are what the API demands (RFC 9470), for your own words to the consumer.
    """


class NothingToConfirm(Problem):
    """409: a code that nobody waits for, or a handle of another conversation."""


class ChallengeDiffers(Problem):
    """409: an open challenge asks for something else. Ask for the same, or set `replace`."""


class SessionMismatch(Problem):
    """409: the call was for another session, and nothing was done. It is late: drop it."""


class ConversationClosed(Problem):
    """410: this chat is over. If `next` names a call, it begins the next session."""


class CodeIncorrect(Problem):
    """422: not the code of the page. `attempts_left` says how many tries are left."""


class RequestRefused(Problem):
    """Another 4xx: the request has to change, and `detail` says how."""


class RateLimited(Problem):
    """429: too often. `retry_after` says how many seconds to wait."""


class ServiceFailed(Problem):
    """5xx: a fault of the service, or of something before it."""


class Unavailable(ServiceFailed):
    """503: for the moment. The call may have been done; `retry_after` says how many seconds to wait."""


_BY_CODE: dict[str, type[Problem]] = {
    "challenge_differs": ChallengeDiffers,
    "completion_code_incorrect": CodeIncorrect,
    "conversation_closed": ConversationClosed,
    "session_mismatch": SessionMismatch,
    "step_up_required": StepUpRequired,
}
_BY_STATUS: dict[int, type[Problem]] = {
    401: KeyRefused,
    403: KeyRefused,
    404: NotFound,
    409: NoToken,
    410: ConversationClosed,
    429: RateLimited,
    503: Unavailable,
}


def problem_of(answer: httpx.Response, conflict: type[Problem] = NoToken) -> Problem:
    """Read a problem. `conflict` is what a 409 means for this call. A page of a proxy has an empty `code`."""
    body = json_of(answer) or {}
    kind = _BY_CODE.get(str(body.get("code"))) or _BY_STATUS.get(answer.status_code)
    if kind is None:
        kind = ServiceFailed if answer.is_server_error else RequestRefused
    return (conflict if kind is NoToken else kind)(answer.status_code, body, retry_after(answer))


def json_of(answer: httpx.Response) -> dict[str, Any] | None:
    """Return the JSON object of an answer, or None."""
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def retry_after(answer: httpx.Response) -> float | None:
    """Return the seconds of `Retry-After` (RFC 9110 section 10.2.3), a number or a date; None without a usable one."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
        return max((moment - datetime.now(tz=UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):  # no date, or one without a time zone
        return None


def _next_call(value: object) -> NextCall | None:
    if not isinstance(value, dict):
        return None
    return NextCall(str(value.get("operation")), str(value.get("method")), str(value.get("path")))
