"""The set-up doctor: tries an authorization server out as a sign-in would, and names what is wrong and what mends it.

For the operator at the command line alone. The admin's button says no more than yes or no, since a brand's admin must
not learn from us what answers inside our network (N9).
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
from django.utils import timezone

from brands.models import AuthorizationServer
from brands.server_rules import DISCOVERED, ISS_PARAMETER, complete_from_metadata
from infrastructure.crypto import DecryptionError, Secret, random_token, s256_code_challenge
from oauth_client import (
    AuthorizationServerError,
    ClientCredentials,
    DiscoveryFailed,
    ErrorCode,
    ServerConfiguration,
    authorization_url,
    discover,
    exchange_code,
    pushed_authorization_url,
    transport,
)
from oauth_client.answers import refusal_in
from oauth_client.endpoints import TOKEN_ENDPOINT, post
from oauth_client.keys import signing_key_count

# Every failure is told after exactly so long: an address that is blocked, a port that is closed and a host that drops
# packets look alike, also on a stopwatch. Padding alone could not do that, since a time-out has no upper bound that a
# slow resolver keeps; so nobody waits for the call itself, and what comes later than this counts as no answer. A
# success is told at once: that something answers is what the button is for.
SECONDS_UNTIL_NO: Final = 5.0
# Calls that nobody waits for any more end by the transport's own deadline. While both threads are taken the answer is
# no, in the same time.
_callers: Final = ThreadPoolExecutor(max_workers=2, thread_name_prefix="connection-test")


def server_answers(server: AuthorizationServer) -> bool:
    """Fetch the JWKS, or the token endpoint where there is none; tell whether any HTTP answer came, nothing more."""
    no_at = time.monotonic() + SECONDS_UNTIL_NO
    call: Future[bool] = _callers.submit(_answers, server.jwks_uri or server.token_endpoint)
    try:
        answered = call.result(timeout=SECONDS_UNTIL_NO)
    except TimeoutError:
        call.cancel()
        return False
    if not answered:
        time.sleep(max(0.0, no_at - time.monotonic()))
    return answered


def _answers(url: str) -> bool:
    try:
        transport.get(url)
    except transport.OutboundError:
        return False
    return True


# ID tokens are refused beyond this (OpenID Connect Core section 3.1.3.7); a minute of it is worth a word.
_TOLERATED_SKEW: Final = timedelta(seconds=60)
_FORM: Final = {
    "token_endpoint_auth_method": "client_secret_basic",
    "basic_encoding": "form",
    "send_client_id_with_basic": False,
}
_RAW: Final = _FORM | {"basic_encoding": "raw"}
_POST: Final = _FORM | {"token_endpoint_auth_method": "client_secret_post"}
_BESIDE: Final = {"send_client_id_with_basic": True}
_WAYS: Final[dict[str, dict[str, Any]]] = {
    "client_secret_basic with the encoding form": _FORM,
    "client_secret_basic with the encoding raw": _RAW,
    "client_secret_post": _POST,
    "client_secret_basic with the encoding form and client_id beside it": _FORM | _BESIDE,
    "client_secret_basic with the encoding raw and client_id beside it": _RAW | _BESIDE,
}
_REFUSES_PKCE: Final = (
    "The server takes the code_verifier of PKCE (RFC 7636) for a wrong secret. Have it switch PKCE on for our client; "
    "without PKCE we connect to no server, since a code that leaks could be brought to another sign-in."
)
_UNKNOWN_CLIENT: Final = (
    "The server does not know our client: client id or secret is wrong, or was registered for another method."
)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CLIENT_ERRORS: Final = range(400, 500)


class Verdict(StrEnum):
    """How a finding reads at the command line."""

    GOOD = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was tried: what it was about, how it went, and for a problem what mends it."""

    verdict: Verdict
    about: str
    words: str


def examine(server: AuthorizationServer) -> Iterator[Finding]:
    """Try everything that can be tried without a consumer. Blocks for up to a minute; nothing is stored.

    The server sees one authorization request without a browser, one with a redirect URI that is not registered, and
    one token request with a made-up code, which a server that is well set up refuses as `invalid_grant`.
    """
    yield from _metadata(server)
    try:
        credentials = server.reveal_credentials()
    except DecryptionError:
        yield _problem("client secret", "It cannot be decrypted: type it again, or put its key back into the ring.")
        return
    configuration = server.configuration(server.scope)
    if configuration.uses_openid:
        yield _keys(configuration)
    yield _token_endpoint(configuration, credentials)
    yield from _authorization_endpoint(configuration, credentials)


def _metadata(server: AuthorizationServer) -> Iterator[Finding]:
    if not server.issuer:
        yield _note("issuer", "None is configured, so endpoints cannot be compared with published metadata.")
        return
    try:
        metadata = discover(server.issuer)
    except DiscoveryFailed as failure:
        yield _note("issuer", f"{failure.message} Endpoints were not compared.")
        return
    names = (*DISCOVERED, "token_endpoint_auth_method", "scope", "ignored_metadata")
    values = {name: getattr(server, name) for name in names}
    problems = complete_from_metadata(dict(values), metadata)
    for name, words in problems.items():
        yield _problem(name, words)
    for name in server.ignored_metadata:
        if getattr(metadata, name):
            yield _note(name, "The server announces it, and it is not used: so it was chosen.")
    announced = metadata.authorization_response_iss_parameter_supported
    if announced and not values[ISS_PARAMETER] and ISS_PARAMETER not in server.ignored_metadata:
        yield _problem(ISS_PARAMETER, "The server sends iss back and you do not ask for it: switch it on (RFC 9207).")
    if not problems:
        yield _good("issuer", "What is configured agrees with the published metadata.")


def _keys(configuration: ServerConfiguration) -> Finding:
    algorithms = configuration.id_token_signing_alg_values
    asymmetric = [name for name in algorithms if not name.startswith("HS")]
    if not asymmetric:
        return _good("jwks_uri", "None is needed: ID tokens are verified with the client secret.")
    try:
        fitting = {name: signing_key_count(configuration.jwks_uri, name) for name in asymmetric}
    except AuthorizationServerError as error:
        return _problem("jwks_uri", f"No keys for ID tokens: {error.detail}.")
    if not any(fitting.values()):
        return _problem("id_token_signing_alg_values", f"The key set has no key for {', '.join(asymmetric)}.")
    return _good("jwks_uri", "The keys that sign ID tokens are there.")


def _token_endpoint(configuration: ServerConfiguration, credentials: ClientCredentials) -> Finding:
    """A server checks the client before the code: only the right client hears that a made-up code is no good."""
    error = _answer_to_made_up_code(configuration, credentials)
    if error is None:
        return _problem("token_endpoint", "It granted a token for a made-up code. Do not use this server.")
    match error.error:
        case ErrorCode.INVALID_GRANT:
            return _good("token_endpoint", "It knows us: a made-up code was refused, and our client was not.")
        case ErrorCode.INVALID_CLIENT | ErrorCode.UNAUTHORIZED_CLIENT:
            words = _what_would_work(configuration, credentials) or _UNKNOWN_CLIENT
            return _problem("client authentication", words)
        case ErrorCode.REDIRECT_URI_MISMATCH:
            return _problem("redirect_uri", f"Register this redirect URI exactly: {configuration.redirect_uri}")
        case ErrorCode.INVALID_TARGET:
            return _problem("resource", f"{error.meaning.cause} {error.meaning.remedy}")
        case ErrorCode.INVALID_REQUEST if words := _what_would_work(configuration, credentials):
            return _problem("client authentication", words)
        case ErrorCode.TOKEN_ENDPOINT_BLOCKED:
            words = "Its address is not one that we call: private, without https, or of a name that leads there."
        case ErrorCode.TOKEN_ENDPOINT_TIMEOUT:
            words = "It did not answer in time: a sign-in would end with the same."
        case ErrorCode.TOKEN_ENDPOINT_UNREACHABLE:
            words = f"No answer: {error.detail}. For a private CA, set OUTBOUND_CA_FILE."
        case _:
            words = f"It does not answer as a token endpoint does: {error.detail}. Look at its address."
    return _problem("token_endpoint", words)


def _answer_to_made_up_code(
    configuration: ServerConfiguration, credentials: ClientCredentials
) -> AuthorizationServerError | None:
    code, code_verifier = Secret(random_token()), Secret(random_token(48))
    try:
        exchange_code(configuration, code=code, code_verifier=code_verifier, credentials=credentials)
    except AuthorizationServerError as error:
        return error
    return None


def _what_would_work(configuration: ServerConfiguration, credentials: ClientCredentials) -> str:
    """Try the same secret in the other ways that servers take it; the words are those of the admin's form."""
    for words, changes in _WAYS.items() if credentials.client_secret else ():
        error = _answer_to_made_up_code(msgspec.structs.replace(configuration, **changes), credentials)
        if error is not None and error.error == ErrorCode.INVALID_GRANT:
            return f"The server does not take our client as configured, but does with {words}: choose that."
    if credentials.client_secret and _refuses_pkce(configuration, credentials):
        return _REFUSES_PKCE
    return ""


def _refuses_pkce(configuration: ServerConfiguration, credentials: ClientCredentials) -> bool:
    """Tell whether the made-up code would be looked at if no `code_verifier` came with it, as at LinkedIn."""
    parameters = [
        ("grant_type", "authorization_code"),
        ("code", random_token()),
        ("redirect_uri", configuration.redirect_uri),
    ]
    for way in (configuration, msgspec.structs.replace(configuration, **_POST)):
        try:
            response = post(TOKEN_ENDPOINT, way, parameters, credentials)
        except AuthorizationServerError:
            return False
        if refusal_in(TOKEN_ENDPOINT, response).error == ErrorCode.INVALID_GRANT:
            return True
    return False


def _authorization_endpoint(configuration: ServerConfiguration, credentials: ClientCredentials) -> Iterator[Finding]:
    try:
        response = _ask_to_authorize(configuration, credentials)
    except AuthorizationServerError as error:
        yield _problem("pushed_authorization_request_endpoint", _refused_push(error))
        return
    except transport.OutboundError as error:
        yield _problem("authorization_endpoint", f"No answer: {error}.")
        return
    yield from _clock(response.headers.get("Date", ""))
    returned = _returned_error(response, configuration.redirect_uri)
    if returned:
        yield _problem("authorization_endpoint", f"It refused our request with {returned}.")
    elif response.status_code in _CLIENT_ERRORS:
        words = f"It answered {response.status_code}: register this redirect URI exactly: {configuration.redirect_uri}"
        yield _problem("redirect_uri", words)
    elif response.status_code >= _CLIENT_ERRORS.stop:
        yield _problem("authorization_endpoint", f"It answered {response.status_code}.")
    else:
        yield _good("authorization_endpoint", "It takes our request and redirect URI, and goes on to sign in.")
        yield from _unregistered_redirect_uri(configuration, credentials)


def _refused_push(error: AuthorizationServerError) -> str:
    words = f"It refused our request: {error.detail or error}."
    # Some servers announce the endpoint, and let not every client push.
    if error.error in {ErrorCode.UNAUTHORIZED_CLIENT, ErrorCode.AUTHORIZATION_REQUEST_REFUSED}:
        words += " If this client may not push, tick it under what is not used, although the server announces it."
    return words


def _unregistered_redirect_uri(configuration: ServerConfiguration, credentials: ClientCredentials) -> Iterator[Finding]:
    """A server that sends codes to addresses nobody registered gives them to whoever writes a link (RFC 9700 4.1)."""
    stranger = msgspec.structs.replace(configuration, redirect_uri=f"{configuration.redirect_uri}/not-registered")
    try:
        response = _ask_to_authorize(stranger, credentials)
    except (AuthorizationServerError, transport.OutboundError):
        return
    if response.headers.get("Location", "").startswith(stranger.redirect_uri):
        yield _problem("redirect_uri", "The server redirects to an address that is not registered: have that mended.")


def _ask_to_authorize(configuration: ServerConfiguration, credentials: ClientCredentials) -> transport.Response:
    request = {
        "state": random_token(),
        "nonce": random_token(),
        "code_challenge": s256_code_challenge(random_token(48)),
    }
    if configuration.pushed_authorization_request_endpoint:
        return transport.get(pushed_authorization_url(configuration, credentials, **request), accept="text/html")
    return transport.get(authorization_url(configuration, **request), accept="text/html")


def _returned_error(response: transport.Response, redirect_uri: str) -> str:
    """Return the error that the server sends back to us already, where it is a registered one (RFC 6749 4.1.2.1)."""
    location = response.headers.get("Location", "")
    if response.status_code not in _REDIRECTS or not location.startswith(redirect_uri):
        return ""
    error = parse_qs(urlsplit(location).query).get("error", [""])[0]
    return error if error in set(ErrorCode) else "an error"


def _clock(date: str) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return
    # RFC 9110 section 5.6.7 has GMT; a date without a zone is taken for it.
    skew = abs(timezone.now() - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)))
    if skew > _TOLERATED_SKEW:
        yield _problem(
            "clock", f"Its clock and ours are {int(skew.total_seconds())} seconds apart: ID tokens will fail."
        )


def _good(about: str, words: str) -> Finding:
    return Finding(Verdict.GOOD, about, words)


def _note(about: str, words: str) -> Finding:
    return Finding(Verdict.NOTE, about, words)


def _problem(about: str, words: str) -> Finding:
    return Finding(Verdict.PROBLEM, about, words)
