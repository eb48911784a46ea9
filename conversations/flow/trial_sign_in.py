"""Try a sign-in: a brand's admin goes through the flow without a link, a bot or a conversation.

It sends the same requests as a consumer's sign-in, to the same redirect URI. The access token is never stored: it is
revoked at once, or dropped if the server has no revocation endpoint. The trial belongs to one session and one browser.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from django.utils import timezone

from brands.audited_changes import BrandEvent, record_change
from brands.models import AuthorizationServer
from conversations.flow.sign_in import (
    EXCHANGE_AND_REVOCATION_SECONDS,
    NOT_CARRIED_OUT,
    address_to_sign_in,
    code_and_detail,
    exchange,
    exchange_slot,
)
from conversations.models import EXCHANGE_GIVEN_UP_AFTER, TRIAL_LIFETIME, TrialSignIn
from infrastructure.crypto import Secret, key_ring, random_token, s256_code_challenge
from oauth_client import (
    AuthorizationResponse,
    AuthorizationServerError,
    ClientCredentials,
    ErrorCode,
    MalformedAuthorizationResponse,
    TokenResponse,
    check_issuer,
    identify,
    parse_authorization_response,
    revoke_token,
)
from oauth_client.authorization import Query
from oauth_client.dpop import new_proof_key
from oauth_client.errors import sanitised
from oauth_client.transport import within

COOKIE: Final = "__Host-trial"
# The values of `report["revocation"]` beside the codes of a failed revocation.
REVOKED, NO_REVOCATION_ENDPOINT = "revoked", "no_endpoint"
_SESSION, _STATE, _COOKIE, _NONCE = "trial-session", "trial-state", "trial-cookie", "trial-nonce"
_DETAIL_LENGTH: Final = 500
_MOST_NAMES: Final = 60
_LONGEST_NAME: Final = 80

logger = logging.getLogger("consumer_delegation.sign_in")


@dataclass(frozen=True)
class BegunTrial:
    """A new trial, the cookie for its browser, and where to send that browser; None if the request was refused."""

    trial: TrialSignIn
    cookie: Secret
    authorization_url: str | None = field(repr=False)


def begin_trial(server: AuthorizationServer, user: Any, session_key: str, now: datetime) -> BegunTrial:
    """Store a trial and build its authorization request; push it first if the server has a PAR endpoint (RFC 9126).

    The trial has ended with an error if the request could not be pushed.
    """
    state, cookie, nonce, code_verifier = random_token(), random_token(), random_token(), random_token(48)
    configuration, ring = server.configuration(server.scope), key_ring()
    trial = TrialSignIn(
        uuid=uuid4(), authorization_server=server, user=user, configuration=configuration.to_json(), created_at=now
    )
    trial.session_digest = _session_digest(trial, session_key)
    trial.state_digest = ring.digest(_STATE, state)
    trial.cookie_digest = ring.digest(_COOKIE, trial.uuid.bytes, cookie)
    trial.nonce_digest = ring.digest(_NONCE, trial.uuid.bytes, nonce)
    trial.set_code_verifier(Secret(code_verifier))
    trial.set_proof_key(proof_key := new_proof_key(configuration))
    trial.report = {"scope_asked": server.scope.split()}
    trial.save(force_insert=True)
    parameters = {"state": state, "nonce": nonce, "code_challenge": s256_code_challenge(code_verifier)}
    try:
        url = address_to_sign_in(server, configuration, parameters, proof_key)
    except NOT_CARRIED_OUT as error:
        _finish(trial, *code_and_detail(error))
        return BegunTrial(trial, Secret(cookie), None)
    return BegunTrial(trial, Secret(cookie), url)


def trial_of_callback(callback_id: str, query: Query, cookies: Mapping[str, str]) -> TrialSignIn | None:
    """Find the trial that this browser began and this callback belongs to; without a trial's cookie, ask no database.

    A consumer's callback, also in the browser of an admin who has tried a sign-in, is none. Nor is a trial of somebody
    who may not begin one any more (J15).
    """
    cookie, states = cookies.get(COOKIE), query.getlist("state") if "state" in query else []
    if not cookie or len(states) != 1:
        return None
    rows = TrialSignIn.objects.filter(
        state_digest__in=key_ring().digests(_STATE, states[0]),
        authorization_server__callback_id=callback_id,
        created_at__gt=timezone.now() - TRIAL_LIFETIME,
    )
    trial = rows.select_related("authorization_server__brand", "user").first()
    if trial is None or not key_ring().recognises(trial.cookie_digest, _COOKIE, trial.uuid.bytes, cookie):
        return None
    return trial if _may_try(trial.user, trial.authorization_server) else None


def receive_trial(trial: TrialSignIn, query: Query) -> None:
    """Take the authorization response of a trial. A repeated response changes nothing (B10, B11)."""
    now = timezone.now()
    claimed = TrialSignIn.objects.filter(pk=trial.pk, returned_at=None, finished_at=None).update(returned_at=now)
    if not claimed:
        return
    issued: _Issued | None = None
    began = monotonic()
    try:
        response = parse_authorization_response(query, trial.authorization_server.denial_codes.split())
        with exchange_slot(trial.authorization_server_id), trial.authorization_server.in_private_networks():
            issued = _exchange(trial, response)
            _verify(trial, issued, response.scope)
    except MalformedAuthorizationResponse as malformed:
        error: tuple[str, str] = (ErrorCode.INVALID_REQUEST, str(malformed))
    except NOT_CARRIED_OUT as failure:
        error = code_and_detail(failure)
    except Exception:  # our own error: the page has to say so, and the token must not stay valid
        logger.exception("a trial sign-in failed unexpectedly", extra={"trial": str(trial.uuid)})
        error = (ErrorCode.INTERNAL_ERROR, "")
    else:
        error = ("", "")
    if issued is not None:
        trial.report["revocation"] = _revoke(trial, issued, EXCHANGE_AND_REVOCATION_SECONDS - (monotonic() - began))
    _finish(trial, *error)


def trials_of(server: AuthorizationServer, user: Any, session_key: str) -> list[TrialSignIn]:
    """Return the newest trials of this admin, in this session, at this server."""
    rows = list(TrialSignIn.objects.filter(authorization_server=server, user=user)[:10])
    for trial in rows:
        trial.authorization_server = server  # so that no trial's page reads it again
    return [trial for trial in rows if _is_of_session(trial, session_key)]


def is_lost(trial: TrialSignIn, now: datetime) -> bool:
    """Whether no result can come any more: a process ended during the exchange, or nothing came back in time."""
    if trial.finished_at is not None:
        return False
    began = trial.returned_at or trial.created_at
    return now - began > (EXCHANGE_GIVEN_UP_AFTER if trial.returned_at else TRIAL_LIFETIME)


def old_trials(now: datetime, kept_for: timedelta) -> Any:
    return TrialSignIn.objects.filter(created_at__lte=now - kept_for)


@dataclass(frozen=True)
class _Issued:
    tokens: TokenResponse
    credentials: ClientCredentials


def _exchange(trial: TrialSignIn, response: AuthorizationResponse) -> _Issued:
    configuration = trial.stored_configuration()
    check_issuer(configuration, response)
    asked_at, began = timezone.now(), monotonic()
    server, proof_key = trial.authorization_server, trial.reveal_proof_key()
    tokens, credentials = exchange(server, configuration, response, trial.reveal_code_verifier, proof_key)
    trial.report |= {
        "exchange_milliseconds": round((monotonic() - began) * 1000),
        "lifetime_seconds": round((tokens.expires_at - asked_at).total_seconds()),
        "lifetime_assumed": tokens.lifetime_assumed,
        "scope_assumed": tokens.scope_assumed,
        "members_left_out": _names(tokens.members.left_out),
    }
    return _Issued(tokens, credentials)


def _verify(trial: TrialSignIn, issued: _Issued, redirected_scope: str | None) -> None:
    configuration = trial.stored_configuration()
    tokens = issued.tokens.narrowed(configuration, redirected_scope)
    trial.report["scope_granted"] = tokens.scope.split()
    tokens.check_required_scope(configuration)
    is_our_nonce = partial(_nonce_matches, trial)
    account = identify(configuration, tokens, issued.credentials, is_our_nonce, trial.reveal_proof_key())
    trial.report["is_account_known"] = account.identifier is not None
    if account.claims is None:
        return
    # Names only: a value may identify the person who signed in (J9).
    trial.report["claims"] = _names(account.claims.claims)
    # Asked of all claims: the names that are kept may not be all.
    trial.report["has_subject"] = trial.authorization_server.subject_claim in account.claims.claims


def _names(names: Any) -> list[str]:
    """Clean and cut names, which the server chose (H8). PostgreSQL's JSON cannot hold NUL."""
    return sorted(sanitised(str(name))[:_LONGEST_NAME] for name in names)[:_MOST_NAMES]


def _nonce_matches(trial: TrialSignIn, nonce: str) -> bool:
    return key_ring().recognises(trial.nonce_digest, _NONCE, trial.uuid.bytes, nonce)


def _revoke(trial: TrialSignIn, issued: _Issued, seconds: float) -> str:
    configuration = trial.stored_configuration()
    if not configuration.revocation_endpoint:
        return NO_REVOCATION_ENDPOINT
    try:
        with within(max(seconds, 0.0)), trial.authorization_server.in_private_networks():
            revoke_token(configuration, issued.tokens.access_token, issued.credentials)
    except AuthorizationServerError as error:
        return str(error.error)
    return REVOKED


def _finish(trial: TrialSignIn, error: str, detail: str) -> None:
    """Store the report, and erase what only the exchange needed (K7)."""
    trial.error, trial.error_detail, trial.finished_at = error, detail[:_DETAIL_LENGTH], timezone.now()
    trial.nonce_digest = trial.code_verifier_ciphertext = trial.dpop_key_ciphertext = None
    erased = ("nonce_digest", "code_verifier_ciphertext", "dpop_key_ciphertext")
    trial.save(update_fields=["error", "error_detail", "finished_at", "report", *erased])
    record_change(trial.authorization_server, BrandEvent.SIGN_IN_TRIED, trial.user, outcome=error or "ok")


def _may_try(user: Any, server: AuthorizationServer) -> bool:
    own = AuthorizationServer.objects.administered_by(user)
    return bool(user.is_active and user.is_staff and own.filter(pk=server.pk).exists())


def _session_digest(trial: TrialSignIn, session_key: str) -> bytes:
    return key_ring().digest(_SESSION, trial.uuid.bytes, session_key)


def _is_of_session(trial: TrialSignIn, session_key: str) -> bool:
    return key_ring().recognises(trial.session_digest, _SESSION, trial.uuid.bytes, session_key)
