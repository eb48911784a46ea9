"""A conversation's timeline for its admins: what happened, when and by whom, how it failed and what to do about it.

Never a token, a subject, a code or the bot's context (J9). Text of the brand's server comes from columns that hold it
cut and cleaned (H8).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Model
from django.urls import reverse

from brands.audited_changes import BrandEvent, names_of
from brands.models import AuthorizationServer
from brands.operation_requests import WHY_NO_HOST
from brands.server_rules import host_of
from conversations.failures_in_words import GOOD, NOTE, PROBLEM, WAITING, duration_in_words, failure_lines
from conversations.flow.authorization_requests import DROPPED
from conversations.flow.events import ConversationEvent
from conversations.models import (
    AccessToken,
    AuditEvent,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
    Revocation,
    WebhookDelivery,
)
from oauth_client import ErrorCode

# Only the newest rows of each kind are read, so that the page stays short.
MOST_CHALLENGES: Final = 50
MOST_ROWS: Final = 200
MOST_ENTRIES: Final = 300

_STATUS: Final = {
    ChallengeStatus.ISSUED: (GOOD, "Challenge issued"),
    ChallengeStatus.STARTED: (GOOD, "The consumer pressed the button"),
    ChallengeStatus.CONFIRMATION_NEEDED: (GOOD, "Signed in, same-person check open"),
    ChallengeStatus.COMPLETED: (GOOD, "Challenge completed"),
    ChallengeStatus.DENIED: (NOTE, "Challenge denied"),
    ChallengeStatus.CANCELLED: (NOTE, "Challenge cancelled by the consumer"),
    ChallengeStatus.EXPIRED: (NOTE, "Challenge expired"),
    ChallengeStatus.SUPERSEDED: (NOTE, "Challenge replaced by another"),
    ChallengeStatus.WITHDRAWN: (NOTE, "Challenge withdrawn"),
    ChallengeStatus.FAILED: (PROBLEM, "Challenge failed"),
}
_MOMENTS: Final = {
    ChallengeStatus.STARTED: "started_at",
    ChallengeStatus.CONFIRMATION_NEEDED: "confirmation_needed_at",
    ChallengeStatus.COMPLETED: "completed_at",
}
# Not faults: the consumer refused, a newer request took the place of this one, or the challenge ended meanwhile.
_NO_FAULT: Final = (ErrorCode.ACCESS_DENIED, DROPPED, "challenge_ended")
_TOKEN_ENDED: Final = "ended"
_UNREGISTERED: Final = "If the server shows an error page instead of coming back, register this redirect URI there: {}"


@dataclass(frozen=True)
class Link:
    """A link to another admin page."""

    text: str
    url: str


@dataclass(frozen=True)
class Entry:
    """One thing that happened. `step` is the object and the outcome by which its audit event is found."""

    at: datetime
    mark: str
    title: str
    lines: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    step: tuple[UUID, str] | None = None
    by: str = ""


@dataclass(frozen=True)
class Timeline:
    """The entries, newest first. `is_cut`: there are more than the page shows."""

    entries: list[Entry]
    is_cut: bool


@dataclass
class _Rows:
    """The stored rows of a conversation, the newest of each kind."""

    challenges: list[Challenge]
    requests: list[AuthorizationRequest]
    deliveries: list[WebhookDelivery]
    revocations: list[Revocation]
    events: list[AuditEvent]
    is_cut: bool = False
    by_challenge: dict[int, list[AuthorizationRequest]] = field(default_factory=dict)


def timeline_of(conversation: Conversation, now: datetime) -> Timeline:
    """Return what happened in a conversation, with at most eight queries."""
    rows = _rows_of(conversation)
    entries = [
        *(entry for challenge in rows.challenges for entry in _of_challenge(challenge, rows, now)),
        *map(_of_delivery, rows.deliveries),
        *map(_of_revocation, rows.revocations),
    ]
    # The conversation's row is a moment younger than the time of its first challenge.
    begun_at = min([conversation.created_at, *(entry.at for entry in entries)])
    entries = _with_actors([*_of_conversation(conversation, begun_at), *entries], rows)
    newest_first = sorted(enumerate(entries), key=lambda numbered: (numbered[1].at, numbered[0]), reverse=True)
    shown = [entry for _, entry in newest_first[:MOST_ENTRIES]]
    return Timeline(shown, rows.is_cut or len(entries) > len(shown))


def link_to(text: str, row: Model) -> Link:
    """Link the change page of a row."""
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return Link(text, reverse(name, args=[row.pk]))


def _rows_of(conversation: Conversation) -> _Rows:
    challenges = list(
        conversation.challenges.select_related("authorization_server", "access_token").order_by("-id")[:MOST_CHALLENGES]
    )
    requests = AuthorizationRequest.objects.filter(challenge__in=[challenge.pk for challenge in challenges])
    rows = _Rows(
        challenges,
        list(requests.order_by("-id")[:MOST_ROWS]),
        list(conversation.webhook_deliveries.select_related("endpoint").defer("payload_ciphertext")[:MOST_ROWS]),
        list(conversation.revocations.defer("ciphertext").order_by("-id")[:MOST_ROWS]),
        list(AuditEvent.objects.filter(conversation_uuid=conversation.uuid)[:MOST_ROWS]),
    )
    several = (rows.requests, rows.deliveries, rows.revocations, rows.events)
    rows.is_cut = len(challenges) == MOST_CHALLENGES or any(len(found) == MOST_ROWS for found in several)
    of_pk = {challenge.pk: challenge for challenge in challenges}
    for request in rows.requests:
        request.challenge = of_pk[request.challenge_id]
        rows.by_challenge.setdefault(request.challenge_id, []).append(request)
    return rows


def _of_conversation(conversation: Conversation, begun_at: datetime) -> Iterator[Entry]:
    has_sessions = conversation.brand.reuses_conversation_ids or conversation.session > 1
    what = f"Session {conversation.session}" if has_sessions else "Conversation"
    links = (_sessions_link(conversation),) if has_sessions else ()
    yield Entry(begun_at, GOOD, f"{what} begun", (), links)
    if conversation.closed_at:
        step = (conversation.uuid, ConversationEvent.CONVERSATION_CLOSED.value)
        yield Entry(conversation.closed_at, NOTE, f"{what} closed and erased", (), links, step=step)


def _sessions_link(conversation: Conversation) -> Link:
    listed = reverse("admin:conversations_conversation_changelist")
    return Link("all sessions of this id", f"{listed}?{urlencode({'q': conversation.external_id})}")


def _of_challenge(challenge: Challenge, rows: _Rows, now: datetime) -> Iterator[Entry]:
    links = (link_to("challenge", challenge), _server_link(challenge.authorization_server))
    asked: tuple[str, ...] = (
        f"Scope asked for: {challenge.scope or 'none'}. Same-person check: {challenge.same_person_check}.",
    )
    asked += tuple(_demand_lines(challenge.acr_values, challenge.max_age))
    yield _status_entry(
        challenge, ChallengeStatus.ISSUED, challenge.issued_at, (*asked, *_until(challenge, now)), links
    )
    for status, name in _MOMENTS.items():
        if at := getattr(challenge, name):
            yield _status_entry(challenge, status, at, (), links)
    requests = rows.by_challenge.get(challenge.pk, [])
    for request in reversed(requests):
        yield from _of_request(request, now)
    if challenge.last_error and all(request.error != challenge.last_error for request in requests):
        # Old requests are deleted when there are many, but the challenge stores the last error.
        at = challenge.ended_at or challenge.started_at or challenge.issued_at
        lines = failure_lines(challenge.last_error, challenge.last_error_detail)
        yield Entry(at, PROBLEM, f"The last sign-in failed: {challenge.last_error}", tuple(lines), links)
    status = challenge.status_at(now)
    at = challenge.ended_at or (challenge.expires_at if status == ChallengeStatus.EXPIRED else None)
    if at:
        yield _status_entry(challenge, status, at, _end_lines(challenge), links)
    if access_token := getattr(challenge, "access_token", None):
        yield from _of_access_token(access_token, challenge, now)


def _status_entry(
    challenge: Challenge, status: ChallengeStatus, at: datetime, lines: Iterable[str], links: tuple[Link, ...]
) -> Entry:
    mark, title = _STATUS[status]
    if status == ChallengeStatus.FAILED:
        title = f"{title}: {challenge.error}"
    return Entry(at, mark, title, tuple(lines), links, step=(challenge.uuid, status.value))


def _demand_lines(acr_values: str, max_age: int | None) -> Iterator[str]:
    if acr_values:
        yield f"The API demands that the sign-in is one of: {acr_values}."
    if max_age is not None:
        yield f"The API demands that the sign-in is at most {max_age} seconds old."


def _until(challenge: Challenge, now: datetime) -> Iterator[str]:
    if challenge.accepts_sign_in(now):
        yield f"The link works until {_moment(challenge.expires_at)}."


def _end_lines(challenge: Challenge) -> Iterator[str]:
    if challenge.status == ChallengeStatus.FAILED:
        yield from failure_lines(challenge.error)
    if challenge.completion_attempts:
        yield f"Wrong or right codes typed: {challenge.completion_attempts}."


def _of_request(request: AuthorizationRequest, now: datetime) -> Iterator[Entry]:
    configuration, server = request.stored_configuration(), request.challenge.authorization_server
    links = (_server_link(server), link_to("challenge", request.challenge))
    is_pushed = bool(configuration.pushed_authorization_request_endpoint)
    how = f"Request pushed, then sent to {server.key}" if is_pushed else f"The browser left for {server.key}"
    asked = f"Scope asked for: {configuration.scope or 'none'}."
    if request.claimed_at is None and request.finished_at is None:
        mark = WAITING if request.challenge.accepts_sign_in(now) else NOTE
        lines = (asked, _UNREGISTERED.format(configuration.redirect_uri))
        yield Entry(request.created_at, mark, f"{how}; nothing came back", lines, links)
        return
    yield Entry(request.created_at, GOOD, how, (asked,), links)
    if request.claimed_at and (request.succeeded or not is_pushed):
        title = f"The browser came back after {duration_in_words(request.claimed_at - request.created_at)}"
        step = (request.challenge.uuid, f"returned {request.claimed_at.isoformat()}")
        yield Entry(request.claimed_at, GOOD, title, (), links, step=step)
    yield from _end_of_request(request, links, now)


def _end_of_request(request: AuthorizationRequest, links: tuple[Link, ...], now: datetime) -> Iterator[Entry]:
    if request.finished_at is None:
        at = request.claimed_at or request.created_at
        if request.in_progress(now):
            yield Entry(at, WAITING, "The code is being exchanged", (), links)
        else:
            lines = ("Our process was stopped before it had a result. Another try works.",)
            yield Entry(at, PROBLEM, "The sign-in has no result", lines, links)
    elif request.error:
        step = (request.challenge.uuid, f"{request.error} {request.finished_at.isoformat()}")
        said = failure_lines(request.error, request.error_detail, request)
        is_fault = request.error not in _NO_FAULT
        title = f"The sign-in {'failed' if is_fault else 'ended'}: {request.error}"
        yield Entry(request.finished_at, PROBLEM if is_fault else NOTE, title, tuple(said), links, step=step)


def _of_access_token(access_token: AccessToken, challenge: Challenge, now: datetime) -> Iterator[Entry]:
    links = (link_to("access token", access_token), link_to("challenge", challenge))
    lines = tuple(_token_lines(access_token, challenge))
    mark = NOTE if _not_granted(access_token, challenge) or access_token.lifetime_assumed else GOOD
    yield Entry(access_token.issued_at, mark, "Access token received", lines, links)
    uuid = access_token.uuid
    if access_token.confirmed_at:
        step = (uuid, ConversationEvent.TOKEN_ISSUED.value)
        title = f"The bot can read the token (check: {access_token.assurance})"
        yield Entry(access_token.confirmed_at, GOOD, title, (), links, step=step)
    if reason := access_token.end_reason_at(now):
        at = access_token.ended_at or access_token.expires_at
        yield Entry(at, NOTE, f"Access token ended: {reason}", (), links, step=(uuid, _TOKEN_ENDED))


def _not_granted(access_token: AccessToken, challenge: Challenge) -> str:
    granted = access_token.scope.split()
    return " ".join(name for name in challenge.scope.split() if name not in granted)


def _token_lines(access_token: AccessToken, challenge: Challenge) -> Iterator[str]:
    granted, asked = access_token.scope, challenge.scope
    if set(granted.split()) == set(asked.split()):
        yield f"Scope granted: {granted or 'none'}."
    else:
        yield f"Scope granted: {granted or 'none'}. Asked for: {asked or 'none'}."
    if missing := _not_granted(access_token, challenge):
        yield f"Asked for and not granted: {missing}."
    assumed = " (the server named no lifetime: the default of its settings)" if access_token.lifetime_assumed else ""
    yield f"Valid until {_moment(access_token.expires_at)}{assumed}."
    if access_token.acr or access_token.amr:
        yield f"How they signed in (acr; amr): {access_token.acr or 'not said'}; {access_token.amr or 'not said'}."
    if access_token.response_members_left_out:
        yield f"Declared members that the bot does not get: {access_token.response_members_left_out}."


def _of_delivery(delivery: WebhookDelivery) -> Entry:
    host = host_of(delivery.endpoint.url) or "the endpoint"
    links = (link_to("delivery", delivery), link_to("webhook endpoint", delivery.endpoint))
    answer = f" Last answer: {delivery.last_outcome}." if delivery.last_outcome else ""
    tries = f"Tries: {delivery.attempts}.{answer}"
    if delivery.delivered_at:
        mark, how = GOOD, f"Delivered at {_moment(delivery.delivered_at)}. {tries}"
    elif delivery.dead_at:
        mark, how = PROBLEM, f"Given up at {_moment(delivery.dead_at)}. {tries} It can be replayed in the deliveries."
    else:
        mark, how = WAITING, f"On its way; next try at {_moment(delivery.next_attempt_at)}. {tries}"
    return Entry(delivery.created_at, mark, f"Webhook {delivery.event} to {host}", (how,), links)


def _of_revocation(revocation: Revocation) -> Entry:
    lines = (f"Tries: {revocation.attempts}. Given up at {_moment(revocation.give_up_at)}.",)
    return Entry(revocation.created_at, WAITING, "A revocation waits for the server", lines)


def _with_actors(entries: list[Entry], rows: _Rows) -> list[Entry]:
    """Add the actor of each entry, from the audit event of the same step, and the events that have no entry yet."""
    names = names_of(event.actor for event in rows.events)
    by_step: dict[tuple[UUID, str] | None, AuditEvent] = {}
    for event in rows.events:
        by_step.setdefault(_step_of(event), event)
    told = {entry.step for entry in entries if entry.step}
    known = [_told_by(entry, by_step.get(entry.step), names) if entry.step else entry for entry in entries]
    others = [event for event in rows.events if _step_of(event) not in told]
    of_challenge = {challenge.uuid: challenge for challenge in rows.challenges}
    return [*known, *(_of_event(event, names, of_challenge) for event in others)]


def _told_by(entry: Entry, event: AuditEvent | None, names: dict[str, str]) -> Entry:
    if event is None:
        return entry
    return replace(entry, by=names[event.actor], links=(*entry.links, link_to("audit event", event)))


def _step_of(event: AuditEvent) -> tuple[UUID, str] | None:
    match event.kind:
        case ConversationEvent.CHALLENGE_CHANGED if event.challenge_uuid:
            return event.challenge_uuid, event.outcome.partition(":")[0]
        case ConversationEvent.AUTHORIZATION_REQUEST_FAILED | ConversationEvent.TOKEN_DISCARDED if event.challenge_uuid:
            return event.challenge_uuid, f"{event.outcome} {event.at.isoformat()}"
        case ConversationEvent.TOKEN_ISSUED if event.access_token_uuid:
            return event.access_token_uuid, event.kind
        case ConversationEvent.TOKEN_ENDED if event.access_token_uuid:
            return event.access_token_uuid, _TOKEN_ENDED
        case ConversationEvent.CONVERSATION_CLOSED if event.conversation_uuid:
            return event.conversation_uuid, event.kind
        case _ if event.challenge_uuid:
            return event.challenge_uuid, f"{event.kind.rpartition('.')[2]} {event.at.isoformat()}"
    return None


def _of_event(event: AuditEvent, names: dict[str, str], of_challenge: dict[UUID, Challenge]) -> Entry:
    links = [link_to("audit event", event)]
    if event.challenge_uuid in of_challenge:
        links.insert(0, link_to("challenge", of_challenge[event.challenge_uuid]))
    mark, title, lines = _event_words(event)
    return Entry(event.at, mark, title, tuple(lines), tuple(links), by=names[event.actor])


def _event_words(event: AuditEvent) -> tuple[str, str, list[str]]:
    if event.kind == ConversationEvent.TOKEN_REVOCATION:
        if event.outcome == "revoked":
            return GOOD, "The server has revoked the token", []
        return PROBLEM, f"The revocation failed: {event.outcome}", failure_lines(event.outcome)
    if event.kind == ConversationEvent.AUTHORIZATION_REQUEST_FAILED:
        return PROBLEM, f"The sign-in failed: {event.outcome}", failure_lines(event.outcome)
    if event.kind == BrandEvent.API_HOST_REFUSED:
        return PROBLEM, "An API cannot be called with this token", [WHY_NO_HOST[event.outcome].format("The member")]
    title = f"Audit: {event.kind} {event.outcome}".strip()
    return NOTE, title, []


def _server_link(server: AuthorizationServer) -> Link:
    return link_to(f"server {server.key}", server)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
