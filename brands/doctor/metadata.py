"""Two steps of the doctor that send no credentials: the published metadata, and the keys that verify ID tokens."""

import re
from collections.abc import Iterator
from typing import Any, Final

from brands.doctor.authorization_endpoint import PAR
from brands.doctor.examination import Examination, Unanswered
from brands.doctor.findings import Finding, found
from brands.doctor.table import Verdict
from brands.models import AuthorizationServer
from brands.server_rules import DPOP, ENDPOINTS, FIELDS_FROM_METADATA, ISS_PARAMETER, complete_from_metadata
from oauth_client import AuthorizationServerError, DiscoveryFailed, ServerMetadata, discover
from oauth_client.discovery import OtherIssuer
from oauth_client.keys import signing_key_counts

# How the detail of `jwks_unavailable` ends if the server answered with such a status.
_BUSY: Final = re.compile(r"HTTP status (?:429|5\d\d)\Z")
_DIFFERENCES: Final = frozenset({"dpop_not_announced", "iss_not_announced", "metadata_differs"})


def metadata(examination: Examination) -> Iterator[Finding]:
    """Compare what is configured with what the server publishes."""
    server = examination.server
    if not server.issuer:
        yield found("issuer_not_set")
        return
    if "/.well-known/" in server.issuer:
        yield _wrong_issuer(examination, "issuer_is_metadata_address")
        return
    tried = f"GET the metadata of {server.issuer}"
    try:
        published = discover(server.issuer)
    except DiscoveryFailed as failure:
        if failure.unanswered:
            raise Unanswered(failure.unanswered, "issuer", tried, Verdict.NOTE) from None
        yield _no_metadata(examination, failure, tried)
        return
    findings = list(_differences(server, published))
    if not any(finding.verdict == Verdict.PROBLEM or finding.code in _DIFFERENCES for finding in findings):
        yield found("metadata_agrees", tried=tried, answer="metadata of this issuer")
    yield from findings


def _no_metadata(examination: Examination, failure: DiscoveryFailed, tried: str) -> Finding:
    said: dict[str, Any] = {"tried": tried, "detail": failure.message}
    if isinstance(failure, OtherIssuer):
        return _wrong_issuer(examination, "issuer_differs", **said)
    return found("metadata_not_found", **said)


def _wrong_issuer(examination: Examination, code: str, **said: Any) -> Finding:
    """Return the finding of a wrong issuer.

    It is a problem only if the issuer is compared with an ID token, or with `iss` in the response (RFC 9207).
    """
    configuration = examination.configuration
    fails = configuration.uses_openid or configuration.authorization_response_iss_parameter_supported
    effect = "Sign-ins will be refused." if fails else "No sign-in here depends on it."
    return found(code, Verdict.PROBLEM if fails else Verdict.NOTE, effect=effect, **said)


def _differences(server: AuthorizationServer, published: ServerMetadata) -> Iterator[Finding]:
    names = (*FIELDS_FROM_METADATA, "token_endpoint_auth_method", "scope", "ignored_metadata", DPOP)
    values = {name: getattr(server, name) for name in names}
    for name, words in complete_from_metadata(dict(values), published).items():
        is_one_value = name in ENDPOINTS or name == "token_endpoint_auth_method"
        detail = f"Here it is {values[name]}. {words}" if is_one_value else words
        if name == "issuer":
            yield found("pkce_not_supported", detail=words)
        elif name == "id_token_signing_alg_values" and not set(values[name]) & set(
            published.id_token_signing_alg_values_supported
        ):
            yield found("algorithm_not_announced", detail=words)
        else:
            yield found("metadata_differs", field=name, detail=detail)
    if values[ISS_PARAMETER] and not published.authorization_response_iss_parameter_supported:
        yield found("iss_not_announced")
    if not published.code_challenge_methods_supported:
        yield found("pkce_not_announced")
    is_push_missing = published.require_pushed_authorization_requests and not getattr(server, PAR)
    if is_push_missing:
        yield found("push_required")
    for name in server.ignored_metadata:
        if getattr(published, name) and not (is_push_missing and name == PAR):
            yield found("announced_not_used", field=name)
    yield from _about_dpop(published, is_on=values[DPOP])
    announced = published.authorization_response_iss_parameter_supported
    if announced and not values[ISS_PARAMETER] and ISS_PARAMETER not in server.ignored_metadata:
        yield found("iss_not_asked_for")


def _about_dpop(published: ServerMetadata, *, is_on: bool) -> Iterator[Finding]:
    if bool(published.dpop_signing_alg_values_supported) != is_on:
        yield found("dpop_not_announced" if is_on else "dpop_not_used")


def keys(examination: Examination) -> Iterator[Finding]:
    """Fetch the keys that verify ID tokens, if the server is asked for ID tokens."""
    configuration = examination.configuration
    if not configuration.uses_openid:
        return
    asymmetric = [name for name in configuration.id_token_signing_alg_values if not name.startswith("HS")]
    if not asymmetric:
        yield found("keys_not_needed")
        return
    tried = f"GET {configuration.jwks_uri}"
    try:
        fitting = signing_key_counts(configuration.jwks_uri, asymmetric)
    except AuthorizationServerError as error:
        if error.unanswered:
            raise Unanswered(error.unanswered, "jwks_uri", tried) from None
        code = "keys_busy" if _BUSY.search(error.detail) else "keys_unreadable"
        yield found(code, tried=tried, detail=error.detail)
        return
    code = "keys_found" if any(fitting.values()) else "keys_missing"
    yield found(code, tried=tried, algorithms=", ".join(asymmetric))
