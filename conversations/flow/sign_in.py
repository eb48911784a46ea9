"""A sign-in: the button that begins it, and the callback, from the brand's answer to a stored token."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from threading import Lock
from time import monotonic
from typing import Final

from django.conf import settings
from django.db import models
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.attempts import (
    BegunAttempt,
    Returned,
    attempt_of_state,
    begin_attempt,
    claim,
    holds_cookie,
    newest_held_attempt,
    nonce_matches,
    release,
)
from conversations.flow.outcomes import CommitUnknown, has_come_to_a_result, record_denial, record_failure, store_result
from conversations.flow.revocations import IssuedToken, note_unknown, revoke_at_once
from conversations.models import AuthorizationRequest, Challenge
from infrastructure import rate_limits
from infrastructure.compiled import CompiledQuery, Parameter
from infrastructure.crypto import DecryptionError, Secret
from infrastructure.database_errors import sqlstate
from infrastructure.postgresql.base import patience
from oauth_client import (
    AuthorizationResponse,
    AuthorizationServerError,
    ClientCredentials,
    ErrorCode,
    IDTokenClaims,
    MalformedAuthorizationResponse,
    ServerConfiguration,
    TokenResponse,
    authorization_url,
    check_issuer,
    exchange_code,
    issuer_matches,
    parse_authorization_response,
    pushed_authorization_url,
    verify_id_token,
)
from oauth_client.authorization import Query

MAX_EXCHANGES_PER_SERVER: Final = 4

_lock = Lock()
_running: Counter[int] = Counter()


class ServerBusy(Exception):
    """The authorization server, or all of them together, already has as many exchanges as we allow."""


@contextmanager
def exchange_slot(server_pk: int) -> Iterator[None]:
    """Hold one of the server's slots, and one of the process's, for the length of the block. Raises `ServerBusy`."""
    with _lock:
        # Half of the threads stay free for everything that does not wait for a brand.
        if _running[server_pk] >= MAX_EXCHANGES_PER_SERVER or _running.total() >= max(1, settings.THREADS // 2):
            raise ServerBusy
        _running[server_pk] += 1
    try:
        yield
    finally:
        with _lock:
            _running[server_pk] -= 1


@dataclass(frozen=True)
class BegunSignIn:
    """Where to send the browser, None where the brand would not have it, and the cookie that it must bring back."""

    attempt: AuthorizationRequest
    cookie: Secret
    authorization_url: str | None = field(repr=False)


def begin_sign_in(challenge: Challenge, now: datetime) -> BegunSignIn | None:
    """Begin an attempt; where the brand takes them, push its request there first (RFC 9126, B21).

    The push runs after the transaction that inserts the attempt: a brand is slow on its worst day. When it fails, the
    attempt has ended as after a callback, and the consumer is offered another. Returns None where the challenge no
    longer accepts a sign-in.
    """
    begun = begin_attempt(challenge, now)
    if begun is None:
        return None
    try:
        url = _authorization_url(begun)
    except AuthorizationServerError as error:
        return _failed(begun, error.error, error.detail)
    except ServerBusy:
        return _failed(begun, ErrorCode.TEMPORARILY_UNAVAILABLE, "as many calls run as are allowed")
    except DecryptionError:
        return _failed(begun, ErrorCode.STORED_SECRET_UNREADABLE, "")
    return BegunSignIn(begun.attempt, begun.cookie, url)


def _authorization_url(begun: BegunAttempt) -> str:
    configuration = begun.attempt.stored_configuration()
    if not configuration.pushed_authorization_request_endpoint:
        return authorization_url(configuration, **begun.parameters)
    server = begun.attempt.challenge.authorization_server
    with exchange_slot(server.pk):
        return pushed_authorization_url(configuration, server.reveal_credentials(), **begun.parameters)


def _failed(begun: BegunAttempt, error: ErrorCode, detail: str) -> BegunSignIn:
    # Claimed first: pages tell how a claimed attempt ended. No callback can come, since no browser learned its state.
    claim(begun.attempt, timezone.now())
    record_failure(begun.attempt, error, detail, timezone.now())
    return BegunSignIn(begun.attempt, begun.cookie, None)


_SERVER: Final = CompiledQuery(
    lambda: (
        AuthorizationServer.objects.active()
        .filter(brand__is_active=True, callback_id=Parameter("callback_id", models.CharField()))
        .select_related("brand")
        .order_by()
    )
)

# Lines of the log for each server, and no calls: whoever knows a callback's path could otherwise fill it.
_MALFORMED_LOGGED: Final = rate_limits.Limit("malformed-callbacks-logged", 10, 60)
# The exchange has 10 of them at the most; a revocation by the same request has what is left.
EXCHANGE_AND_REVOCATION_SECONDS: Final = 15.0
LOCK_NOT_AVAILABLE: Final = "55P03"
_UNEXPECTED: Final = "a sign-in failed unexpectedly"

logger = logging.getLogger("consumer_delegation.sign_in")


class Arrival(StrEnum):
    """Which page the browser is sent on to."""

    UNKNOWN_LINK = "unknown_link"
    MALFORMED = "malformed"
    OTHER_BROWSER = "other_browser"
    SERVER_BUSY = "server_busy"
    RESULT = "result"


@dataclass(frozen=True)
class Received:
    """What to answer a callback with; `attempt` is there unless the link is unknown.

    Of a malformed answer it is the newest that this browser began at the server.
    """

    arrival: Arrival
    attempt: AuthorizationRequest | None = None


def server_of_callback(callback_id: str) -> AuthorizationServer | None:
    """Return the active server whose own redirect URI this is (C1)."""
    return _SERVER.first(callback_id=callback_id)


def receive(server: AuthorizationServer, query: Query, cookies: Mapping[str, str]) -> Received:
    """Take the authorization response (RFC 6749 section 4.1.2) at a server's own callback path.

    A repeated callback changes nothing and is sent to the same result (B11). Another browser's is sent to start again,
    and its code is not exchanged (B5). While the brand is at its limit nothing is spent: the same address works later.
    What is no answer to an attempt of ours is logged, changes nothing, and is offered another try (B13).
    """
    try:
        response = parse_authorization_response(query, server.denial_codes.split())
    except MalformedAuthorizationResponse as malformed:
        return _malformed(server, str(malformed), cookies)
    attempt = attempt_of_state(server, response.state)
    if attempt is None:
        return _malformed(server, "state is of no attempt at this server", cookies)
    if not holds_cookie(attempt, cookies):
        return Received(Arrival.OTHER_BROWSER, attempt)
    if not attempt.challenge.accepts_sign_in(timezone.now()) or attempt.claimed_at is not None:
        return Received(Arrival.RESULT, attempt)
    try:
        _take(attempt, server, response, cookies[attempt.cookie_name])
    except ServerBusy:
        return Received(Arrival.SERVER_BUSY, attempt)
    return Received(Arrival.RESULT, attempt)


def receive_elsewhere(server: AuthorizationServer, cookies: Mapping[str, str]) -> Received:
    """Take what came to another address than the server's redirect URI, though it names it: nothing of it is read."""
    return _malformed(server, "the address is not the redirect URI: something was added to it or changed", cookies)


def _malformed(server: AuthorizationServer, reason: str, cookies: Mapping[str, str]) -> Received:
    """Anybody can send such answers to a callback's path: the log has a few lines a minute of each server."""
    try:
        rate_limits.count_in_process(_MALFORMED_LOGGED, str(server.pk))
    except rate_limits.RateLimited:
        pass
    else:
        about = {"brand": server.brand.slug, "authorization_server": server.key, "reason": reason}
        logger.warning("a callback was no authorization response", extra=about)
    attempt = newest_held_attempt(server, cookies)
    return Received(Arrival.MALFORMED if attempt else Arrival.UNKNOWN_LINK, attempt)


def _take(
    attempt: AuthorizationRequest, server: AuthorizationServer, response: AuthorizationResponse, cookie: str
) -> None:
    issuer_error = _issuer_error(attempt, response)
    if not claim(attempt, timezone.now()):
        return
    try:
        # Asked for by the one that claimed: its repeats must not fill the slots and be told that the brand is busy.
        # With patience: what the brand has issued once is not to be lost to a lock.
        with patience(), exchange_slot(server.pk) if response.code else nullcontext():
            _come_to_a_result(attempt, server, response, cookie, issuer_error)
    except ServerBusy:
        release(attempt)
        raise


def _come_to_a_result(
    attempt: AuthorizationRequest,
    server: AuthorizationServer,
    response: AuthorizationResponse,
    cookie: str,
    issuer_error: AuthorizationServerError | None,
) -> None:
    configuration = attempt.stored_configuration()
    returned = Returned.CODE if response.code and not response.error else Returned.ERROR
    issued: IssuedToken | None = None
    began = monotonic()
    try:
        if issuer_error:
            raise issuer_error
        if response.error == ErrorCode.ACCESS_DENIED:
            record_denial(attempt, response.error_description, timezone.now())
            return
        tokens, credentials = _exchange(attempt, server, configuration, response)
        seconds_left = EXCHANGE_AND_REVOCATION_SECONDS - (monotonic() - began)
        issued = IssuedToken(tokens.access_token, tokens.expires_at, credentials, seconds_left)
        tokens = tokens.narrowed(configuration, response.scope)
        tokens.check_required_scope(configuration)
        claims = _verified_claims(attempt, configuration, tokens, credentials)
        store_result(attempt, cookie, tokens, claims, timezone.now())
    except AuthorizationServerError as error:
        _fail(attempt, returned, error.error, error.detail, issued)
    except DecryptionError:
        _fail(attempt, returned, ErrorCode.STORED_SECRET_UNREADABLE, "", issued)
    except CommitUnknown:
        logger.exception(_UNEXPECTED, extra={"challenge": str(attempt.challenge.uuid)})
        _settle(attempt, issued)
    except Exception as error:  # a fault of ours; code and state have to leave the address bar, the attempt has to end
        logger.exception(_UNEXPECTED, extra={"challenge": str(attempt.challenge.uuid)})
        if issued is not None and sqlstate(error) == LOCK_NOT_AVAILABLE:
            # Whoever holds the conversation would keep the failure from being recorded for as long again.
            revoke_at_once(attempt, issued)
            raise
        _fail(attempt, returned, ErrorCode.INTERNAL_ERROR, "", issued)


def _fail(
    attempt: AuthorizationRequest, returned: Returned, error: ErrorCode, detail: str, issued: IssuedToken | None
) -> None:
    """End the attempt. Where the database does not take that, a token that was issued is revoked here and now (A8).

    Nothing of it was stored for certain: the storing transaction was never asked to commit.
    """
    try:
        access_token = issued.access_token if issued else None
        record_failure(attempt, error, detail, timezone.now(), access_token, returned=returned)
    except Exception:
        if issued is not None:
            revoke_at_once(attempt, issued)
        raise


def _settle(attempt: AuthorizationRequest, issued: IssuedToken | None) -> None:
    """Find out what became of a COMMIT that was not confirmed. What was stored is a success; it is never revoked."""
    try:
        is_stored = has_come_to_a_result(attempt)
    except Exception:
        if issued is not None:
            note_unknown(attempt, issued)
        raise
    if not is_stored:
        _fail(attempt, Returned.CODE, ErrorCode.INTERNAL_ERROR, "", issued)


def _issuer_error(attempt: AuthorizationRequest, response: AuthorizationResponse) -> AuthorizationServerError | None:
    """Return why a response is not this server's; that an error came without any `iss` is only noted (C3)."""
    configuration = attempt.stored_configuration()
    try:
        check_issuer(configuration, response)
    except AuthorizationServerError as error:
        return error
    if not issuer_matches(configuration, response):
        logger.warning("an error came without the server's iss", extra={"challenge": str(attempt.challenge.uuid)})
    return None


def _exchange(
    attempt: AuthorizationRequest,
    server: AuthorizationServer,
    configuration: ServerConfiguration,
    response: AuthorizationResponse,
) -> tuple[TokenResponse, ClientCredentials]:
    if response.error or response.code is None:
        raise AuthorizationServerError(
            response.error or ErrorCode.AUTHORIZATION_REQUEST_REFUSED, response.error_description
        )
    if configuration != server.configuration(configuration.scope):
        # The code was issued for endpoints that are no longer these: it is sent to neither (C4).
        raise AuthorizationServerError(ErrorCode.CONFIGURATION_CHANGED)
    credentials = server.reveal_credentials()
    tokens = exchange_code(
        configuration,
        code=response.code,
        code_verifier=attempt.reveal_code_verifier(),
        credentials=credentials,
    )
    return tokens, credentials


def _verified_claims(
    attempt: AuthorizationRequest,
    configuration: ServerConfiguration,
    tokens: TokenResponse,
    credentials: ClientCredentials,
) -> IDTokenClaims | None:
    if not configuration.uses_openid:
        return None
    return verify_id_token(
        configuration,
        tokens.id_token,
        nonce_matches=lambda nonce: nonce_matches(attempt, nonce),
        access_token=tokens.access_token,
        client_secret=credentials.client_secret,
    )
