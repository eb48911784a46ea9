"""Begin a sign-in, and handle the callback: from the authorization response to a stored token."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Final

from django.conf import settings
from django.db import models
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.authorization_requests import (
    NewAuthorizationRequest,
    Returned,
    authorization_request_of_callback,
    begin_authorization_request,
    claim,
    holds_cookie,
    newest_authorization_request_of_browser,
    nonce_matches,
    release,
)
from conversations.flow.outcomes import CommitUnknown, is_result_stored, record_denial, record_failure, store_result
from conversations.flow.revocations import IssuedToken, log_unknown_result, revoke_at_once
from conversations.flow.slots import ServerBusy, slot
from conversations.models import AuthorizationRequest, Challenge
from infrastructure import metrics, rate_limits
from infrastructure.compiled import CompiledQuery, Parameter
from infrastructure.crypto import DecryptionError, Secret
from infrastructure.database_errors import sqlstate
from infrastructure.postgresql.base import patience
from oauth_client import (
    AuthorizationResponse,
    AuthorizationServerError,
    ClientCredentials,
    ErrorCode,
    MalformedAuthorizationResponse,
    ServerConfiguration,
    TokenResponse,
    authorization_url,
    check_issuer,
    exchange_code,
    identify,
    issuer_matches,
    parse_authorization_response,
    pushed_authorization_url,
)
from oauth_client.authorization import Query
from oauth_client.dpop import ProofKey

MAX_EXCHANGES_PER_SERVER: Final = 4

_SERVER: Final = CompiledQuery(
    lambda: (
        AuthorizationServer.objects.active()
        .filter(brand__is_active=True, callback_id=Parameter("callback_id", models.CharField()))
        .select_related("brand")
        .order_by()
    )
)
# Limits log lines for each server, not callbacks. Anyone who knows a callback's path could fill the log otherwise.
_MALFORMED_LOGGED: Final = rate_limits.Limit("malformed-callbacks-logged", 10, 60)
# For two calls of one web request. The exchange takes up to 10 seconds; a revocation gets the rest. Between the two,
# asking who signed in takes up to 5 (`identify`).
EXCHANGE_AND_REVOCATION_SECONDS: Final = 15.0
LOCK_NOT_AVAILABLE: Final = "55P03"
_UNEXPECTED: Final = "a sign-in failed unexpectedly"

logger = logging.getLogger("consumer_delegation.sign_in")


# What keeps a request from being sent or answered as it should. `code_and_detail` explains it.
NOT_CARRIED_OUT: Final = (AuthorizationServerError, ServerBusy, DecryptionError)


@contextmanager
def exchange_slot(server_pk: int) -> Iterator[None]:
    """Hold one slot of the server and one of the process during the block. Raises `ServerBusy`."""
    # At most all of the places that the process has for brands' servers.
    with slot("exchange", server_pk, most_of_owner=MAX_EXCHANGES_PER_SERVER, most_of_kind=settings.THREADS):
        yield


@dataclass(frozen=True)
class SignInRedirect:
    """Where to send the browser, and its cookie. The URL is None if pushing the request failed."""

    authorization_request: AuthorizationRequest
    cookie: Secret
    authorization_url: str | None = field(repr=False)


def begin_sign_in(challenge: Challenge, now: datetime) -> SignInRedirect | None:
    """Begin an authorization request. If the server has a PAR endpoint, push the request (RFC 9126, B21).

    The push runs after the transaction that inserts the row, because a server may be slow. If the push fails, the
    authorization request ends as after a failed callback, and the consumer can try again. Returns None if the challenge
    no longer accepts a sign-in.
    """
    begun = begin_authorization_request(challenge, now)
    if begun is None:
        return None
    server = begun.authorization_request.challenge.authorization_server
    try:
        configuration = begun.authorization_request.stored_configuration()
        url = address_to_sign_in(server, configuration, begun.parameters, begun.proof_key)
    except NOT_CARRIED_OUT as error:
        return _push_failed(begun, *code_and_detail(error))
    return SignInRedirect(begun.authorization_request, begun.cookie, url)


def address_to_sign_in(
    server: AuthorizationServer,
    configuration: ServerConfiguration,
    parameters: dict[str, str],
    proof_key: ProofKey | None,
) -> str:
    """Build the authorization request's URL. Push the request first if there is a PAR endpoint (RFC 9126).

    `parameters` are state, nonce and code_challenge. Raises one of `NOT_CARRIED_OUT`.
    """
    if not configuration.pushed_authorization_request_endpoint:
        return authorization_url(configuration, proof_key, **parameters)
    with exchange_slot(server.pk), server.in_private_networks():
        return pushed_authorization_url(configuration, server.reveal_credentials(), proof_key, **parameters)


def code_and_detail(error: Exception) -> tuple[ErrorCode, str]:
    """Return the code and the detail of one of `NOT_CARRIED_OUT`."""
    if isinstance(error, AuthorizationServerError):
        return error.error, error.detail
    if isinstance(error, ServerBusy):
        return ErrorCode.TEMPORARILY_UNAVAILABLE, "too many calls to the server are running"
    return ErrorCode.STORED_SECRET_UNREADABLE, ""


def _push_failed(begun: NewAuthorizationRequest, error: ErrorCode, detail: str) -> SignInRedirect:
    # Claim the request first, because pages show an error only for a claimed request. No callback can arrive, because
    # no browser got the state.
    claim(begun.authorization_request, timezone.now())
    record_failure(begun.authorization_request, error, detail, timezone.now())
    return SignInRedirect(begun.authorization_request, begun.cookie, None)


class CallbackPage(StrEnum):
    """The page that the browser is redirected to after a callback."""

    UNKNOWN_LINK = "unknown_link"
    MALFORMED = "malformed"
    OTHER_BROWSER = "other_browser"
    SERVER_BUSY = "server_busy"
    RESULT = "result"


@dataclass(frozen=True)
class CallbackResult:
    """The result of a callback. `authorization_request` is None only if the link is unknown.

    After a malformed response it is the newest request that this browser began at the server.
    """

    page: CallbackPage
    authorization_request: AuthorizationRequest | None = None


# For a callback id that belongs to no active server.
UNKNOWN_SERVER: Final = CallbackResult(CallbackPage.UNKNOWN_LINK)


def server_of_callback(callback_id: str) -> AuthorizationServer | None:
    """Find the active server that has this redirect URI (C1)."""
    return _SERVER.first(callback_id=callback_id)


def _request_and_server(
    callback_id: str, query: Query
) -> tuple[AuthorizationRequest | None, AuthorizationServer | None]:
    """Find both by one query. If the state leads to no authorization request, look for the server alone."""
    states = query.getlist("state") if "state" in query else []
    found = authorization_request_of_callback(callback_id, states[0]) if len(states) == 1 else None
    if found is None:
        return None, server_of_callback(callback_id)
    return found, found.challenge.authorization_server


def handle_callback(callback_id: str, query: Query, cookies: Mapping[str, str]) -> CallbackResult:
    """Handle the authorization response (RFC 6749 section 4.1.2) at a server's redirect URI.

    A repeated callback changes nothing and shows the same result (B11). A callback from another browser is not
    exchanged; that browser is sent to start again (B5). If the server is busy, nothing is used up, and the same URL
    works later. A response that belongs to no authorization request is logged and changes nothing; the browser is
    offered another try (B13).
    """
    authorization_request, server = _request_and_server(callback_id, query)
    if server is None:
        return UNKNOWN_SERVER
    try:
        response = parse_authorization_response(query, server.denial_codes.split())
    except MalformedAuthorizationResponse as malformed:
        return _malformed_result(server, str(malformed), cookies)
    if authorization_request is None:
        return _malformed_result(server, "the state belongs to no authorization request at this server", cookies)
    if not holds_cookie(authorization_request, cookies):
        return CallbackResult(CallbackPage.OTHER_BROWSER, authorization_request)
    is_claimed = authorization_request.claimed_at is not None
    if is_claimed or not authorization_request.challenge.accepts_sign_in(timezone.now()):
        return CallbackResult(CallbackPage.RESULT, authorization_request)
    try:
        _claim_and_exchange(authorization_request, server, response, cookies[authorization_request.cookie_name])
    except ServerBusy:
        return CallbackResult(CallbackPage.SERVER_BUSY, authorization_request)
    return CallbackResult(CallbackPage.RESULT, authorization_request)


def handle_misaddressed_callback(server: AuthorizationServer, cookies: Mapping[str, str]) -> CallbackResult:
    """Handle a callback at a URL that differs from the redirect URI. Its parameters are not read."""
    return _malformed_result(server, "the URL is not the redirect URI: something was added or changed", cookies)


def _malformed_result(server: AuthorizationServer, reason: str, cookies: Mapping[str, str]) -> CallbackResult:
    """Log a malformed response, a few lines a minute for each server, because anyone can send such responses."""
    try:
        rate_limits.count_in_process(_MALFORMED_LOGGED, str(server.pk))
    except rate_limits.RateLimited:
        pass
    else:
        about = {"brand": server.brand.slug, "authorization_server": server.key, "reason": reason}
        logger.warning("a callback was not a valid authorization response", extra=about)
    authorization_request = newest_authorization_request_of_browser(server, cookies)
    return CallbackResult(
        CallbackPage.MALFORMED if authorization_request else CallbackPage.UNKNOWN_LINK, authorization_request
    )


def _claim_and_exchange(
    authorization_request: AuthorizationRequest,
    server: AuthorizationServer,
    response: AuthorizationResponse,
    cookie: str,
) -> None:
    issuer_error = _issuer_error(authorization_request, response)
    if not claim(authorization_request, timezone.now()):
        return
    try:
        # Only the callback that claimed takes a slot. Repeated callbacks must not fill the slots.
        # `patience` waits longer for locks, because an issued token must not be lost to a lock time-out.
        with patience(), server.in_private_networks(), exchange_slot(server.pk) if response.code else nullcontext():
            _exchange_and_store(authorization_request, server, response, cookie, issuer_error)
    except ServerBusy:
        release(authorization_request)
        raise


def _exchange_and_store(
    authorization_request: AuthorizationRequest,
    server: AuthorizationServer,
    response: AuthorizationResponse,
    cookie: str,
    issuer_error: AuthorizationServerError | None,
) -> None:
    configuration = authorization_request.stored_configuration()
    returned = Returned.CODE if response.code and not response.error else Returned.ERROR
    issued: IssuedToken | None = None
    began = monotonic()
    try:
        if issuer_error:
            raise issuer_error
        if response.error == ErrorCode.ACCESS_DENIED:
            record_denial(authorization_request, response.error_description, timezone.now())
            return
        proof_key = authorization_request.reveal_proof_key()
        reveal_code_verifier = authorization_request.reveal_code_verifier
        tokens, credentials = exchange(server, configuration, response, reveal_code_verifier, proof_key)
        seconds_left = EXCHANGE_AND_REVOCATION_SECONDS - (monotonic() - began)
        issued = IssuedToken(tokens.access_token, tokens.expires_at, credentials, seconds_left)
        tokens = tokens.narrowed(configuration, response.scope)
        tokens.check_required_scope(configuration)
        is_our_nonce = partial(nonce_matches, authorization_request)
        account = identify(configuration, tokens, credentials, is_our_nonce, proof_key)
        store_result(authorization_request, cookie, tokens, account, timezone.now())
    except (AuthorizationServerError, DecryptionError) as error:
        _end_as_failed(authorization_request, returned, *code_and_detail(error), issued)
    except CommitUnknown:
        logger.exception(_UNEXPECTED, extra={"challenge": str(authorization_request.challenge.uuid)})
        _resolve_unknown_commit(authorization_request, issued)
    except Exception as error:  # the request must end in any case, and code and state must leave the address bar
        logger.exception(_UNEXPECTED, extra={"challenge": str(authorization_request.challenge.uuid)})
        if issued is not None and sqlstate(error) == LOCK_NOT_AVAILABLE:
            # Recording the failure would wait just as long for the conversation's lock.
            revoke_at_once(authorization_request, issued)
            raise
        _end_as_failed(authorization_request, returned, ErrorCode.INTERNAL_ERROR, "", issued)


def _end_as_failed(
    authorization_request: AuthorizationRequest,
    returned: Returned,
    error: ErrorCode,
    detail: str,
    issued: IssuedToken | None,
) -> None:
    """End the authorization request. If the database refuses, revoke an issued token at once (A8).

    The token was certainly not stored, because the storing transaction never reached its COMMIT.
    """
    try:
        access_token = issued.access_token if issued else None
        record_failure(authorization_request, error, detail, timezone.now(), access_token, returned=returned)
    except Exception:
        if issued is not None:
            revoke_at_once(authorization_request, issued)
        raise


def _resolve_unknown_commit(authorization_request: AuthorizationRequest, issued: IssuedToken | None) -> None:
    """Find out if an unconfirmed COMMIT stored the result. A stored token is kept, and never revoked."""
    try:
        is_stored = is_result_stored(authorization_request)
    except Exception:
        if issued is not None:
            log_unknown_result(authorization_request, issued)
        raise
    if not is_stored:
        _end_as_failed(authorization_request, Returned.CODE, ErrorCode.INTERNAL_ERROR, "", issued)


def _issuer_error(
    authorization_request: AuthorizationRequest, response: AuthorizationResponse
) -> AuthorizationServerError | None:
    """Return the error if the response is from another issuer. An error response without `iss` is logged (C3)."""
    configuration = authorization_request.stored_configuration()
    try:
        check_issuer(configuration, response)
    except AuthorizationServerError as error:
        return error
    if not issuer_matches(configuration, response):
        logger.warning("an error response has no iss", extra={"challenge": str(authorization_request.challenge.uuid)})
    return None


def exchange(
    server: AuthorizationServer,
    configuration: ServerConfiguration,
    response: AuthorizationResponse,
    reveal_code_verifier: Callable[[], Secret],
    proof_key: ProofKey | None,
) -> tuple[TokenResponse, ClientCredentials]:
    """Exchange the code of a response whose issuer was checked. Also return the credentials that were used.

    `configuration` is the copy that the authorization request was sent with. Raises `DecryptionError` and
    `AuthorizationServerError`, also if the response has an error or the configuration has changed.
    """
    if response.error or response.code is None:
        raise AuthorizationServerError(
            response.error or ErrorCode.AUTHORIZATION_REQUEST_REFUSED, response.error_description
        )
    if configuration != server.configuration(configuration.scope, configuration.demand):
        # The code was issued for the old endpoints. It is sent to neither the old nor the new ones (C4).
        raise AuthorizationServerError(ErrorCode.CONFIGURATION_CHANGED)
    if configuration.dpop_bound_access_tokens and proof_key is None:
        raise DecryptionError  # erased by SQL: the code is not sent without a proof (L3)
    credentials = server.reveal_credentials()
    code_verifier = reveal_code_verifier()
    with _measured(server):
        tokens = exchange_code(
            configuration,
            code=response.code,
            code_verifier=code_verifier,
            credentials=credentials,
            proof_key=proof_key,
        )
    return tokens, credentials


@contextmanager
def _measured(server: AuthorizationServer) -> Iterator[None]:
    """Count a token request, how long it takes, and how it fails."""
    began, error = monotonic(), "unexpected"
    try:
        yield
        error = ""
    except AuthorizationServerError as failure:
        error = failure.error
        raise
    finally:
        metrics.count_exchange(server.brand.uuid, monotonic() - began, error)
