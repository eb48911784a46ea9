"""What the set-up doctor can find: one row for each code, with what it means, whose side it is on and what to do.

`docs/measured/misconfigurations.md` shows which mistake leads to which code. A code is stable, like an error code.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple


class Verdict(StrEnum):
    """A problem is proven: a sign-in would fail, or a protection is missing.

    A note is not proven, or may be temporary.
    """

    GOOD = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Side(StrEnum):
    """Who has to change something."""

    NOBODY = ""
    HERE = "Here, in this server's settings"
    SERVER = "At your authorization server"
    EITHER = "Here or at your authorization server"
    OPERATOR = "The operator of this service"


class _Row(NamedTuple):
    verdict: Verdict
    field: str
    side: Side
    meaning: str
    remedy: str = ""


def _good(field: str, meaning: str) -> _Row:
    return _Row(Verdict.GOOD, field, Side.NOBODY, meaning)


_note, _problem = partial(_Row, Verdict.NOTE), partial(_Row, Verdict.PROBLEM)
_HERE, _SERVER, _EITHER, _OPERATOR = Side.HERE, Side.SERVER, Side.EITHER, Side.OPERATOR
_SIGN_IN: Final = "Sign in once yourself"
_LATER: Final = "Wait some minutes and check again."
_REDIRECT_URI: Final = "Register this redirect URI exactly: {redirect_uri}"

# In the order of a run. `{...}` is filled in by the step that finds it.
ROWS: Final[Mapping[str, _Row]] = {
    # No answer. A brand's admin reads `no_answer` for the first four (N9).
    "no_answer": _problem(
        "",
        _EITHER,
        "No answer. The address is wrong, or its host has no public address, refuses the connection, is too slow or "
        "does not speak HTTP over TLS.",
        "Compare the address with your server's. If it is right, see that your server can be reached from the internet "
        "on port 443, or ask the operator, who sees more, and can allow your brand a private network.",
    ),
    "address_blocked": _problem(
        "",
        _EITHER,
        "We do not call this address: it is not https on port 443, has no DNS entry or leads to a private network.",
        "Type an https address of a public host. If it is to be in a private network, allow that to the brand: "
        "manage.py private_networks.",
    ),
    "timed_out": _problem("", _SERVER, "The answer did not come in time. A sign-in would fail with the same.", _LATER),
    "unreachable": _problem(
        "", _EITHER, "No answer: {detail}.", "Compare the address, and check the network between it and us."
    ),
    "certificate_expired": _problem(
        "", _SERVER, "The TLS certificate has expired.", "Have it renewed. We connect to no server without."
    ),
    "certificate_unknown_ca": _problem(
        "",
        _SERVER,
        "The TLS certificate comes from a CA that is not known here, or the server does not send the certificates "
        "between its own and the CA's.",
        "Have the server send its whole chain of certificates. For a private CA, the operator sets OUTBOUND_CA_FILE.",
    ),
    "certificate_other_name": _problem(
        "", _EITHER, "The TLS certificate is for another name.", "Compare the address with the certificate."
    ),
    "certificate_invalid": _problem(
        "", _SERVER, "The TLS certificate is not valid.", "Have it replaced. We connect to no server without."
    ),
    "answer_too_large": _problem(
        "", _EITHER, "The answer has more than 64 KB.", "Compare the address: this is not what belongs there."
    ),
    "unfinished": _note("", Side.NOBODY, "There was no time left to finish this step.", _LATER),
    "secret_unreadable": _problem(
        "client_secret",
        _EITHER,
        "The stored secret or key cannot be decrypted.",
        "Type the secret again, or have the operator put the missing key back into the ring.",
    ),
    # Metadata.
    "issuer_not_set": _note(
        "issuer",
        _HERE,
        "There is no issuer, so nothing could be compared with published metadata.",
        "If your server publishes metadata, type its issuer.",
    ),
    "metadata_agrees": _good("issuer", "What is configured agrees with the published metadata."),
    "metadata_not_found": _note(
        "issuer", _HERE, "{detail} Nothing was compared.", "If your server publishes metadata, copy its issuer exactly."
    ),
    "issuer_is_metadata_address": _problem(
        "issuer",
        _HERE,
        "This is the address of the metadata, not the issuer. {effect}",
        "Take the issuer that stands in the document. Mostly it is what comes before /.well-known/.",
    ),
    "issuer_differs": _problem(
        "issuer", _HERE, "{detail} {effect}", "Copy the issuer from the server, to the last slash."
    ),
    "metadata_differs": _note(
        "", _HERE, "{detail}", "If yours is meant to differ, leave it. Otherwise take the server's."
    ),
    "pkce_not_supported": _problem(
        "issuer",
        _SERVER,
        "{detail}",
        "Have PKCE (RFC 7636) with S256 switched on. We connect to no server without: a code that leaks could be used.",
    ),
    "pkce_not_announced": _note(
        "issuer",
        _SERVER,
        "The metadata does not say whether the server supports PKCE (RFC 7636).",
        "See at the server that it does, with S256: one that ignores it does not protect a code that leaks.",
    ),
    "algorithm_not_announced": _problem(
        "id_token_signing_alg_values",
        _HERE,
        "{detail} ID tokens would be refused.",
        "Choose what the server signs with.",
    ),
    "iss_not_asked_for": _problem(
        "authorization_response_iss_parameter_supported",
        _HERE,
        "The server sends iss back (RFC 9207), and it is not demanded here. It protects against mixed-up servers.",
        "Switch it on.",
    ),
    "push_required": _problem(
        "pushed_authorization_request_endpoint",
        _HERE,
        "The server takes only pushed authorization requests (RFC 9126), and here none are pushed. Sign-ins will be "
        "refused.",
        "Untick the endpoint under what is not used, although it is announced; then press Discover, and save.",
    ),
    "iss_not_announced": _note(
        "authorization_response_iss_parameter_supported",
        _EITHER,
        "The server does not announce that it sends iss back (RFC 9207), and here it is demanded.",
        f"{_SIGN_IN}: if it ends with issuer_mismatch, switch it off here.",
    ),
    "dpop_not_announced": _note(
        "dpop_bound_access_tokens",
        _EITHER,
        "The server does not announce DPoP (RFC 9449), and here it is switched on.",
        f"{_SIGN_IN}: if the server does not bind its tokens, it ends with invalid_token_response. Then switch it off.",
    ),
    "dpop_not_used": _good(
        "dpop_bound_access_tokens",
        "The server supports DPoP (RFC 9449). It is switched off here, which is right unless the server demands it.",
    ),
    "announced_not_used": _note("", _HERE, "The server announces it, and it is not used: so it was chosen.", ""),
    # Keys.
    "keys_not_needed": _good("jwks_uri", "No keys are needed: the client secret verifies ID tokens."),
    "keys_found": _good("jwks_uri", "The keys that verify ID tokens are there."),
    "keys_unreadable": _problem(
        "jwks_uri", _EITHER, "There are no keys for ID tokens: {detail}.", "Compare the address."
    ),
    "keys_busy": _note("jwks_uri", _SERVER, "The server is busy: {detail}.", _LATER),
    "keys_missing": _problem(
        "id_token_signing_alg_values",
        _EITHER,
        "The key set has no key for {algorithms}.",
        "Choose the algorithm that the server signs with, or have it publish the key.",
    ),
    # Token endpoint.
    "client_accepted": _good(
        "client_id",
        "The server knows our client: it looked at a made-up code, and refuses a client with a wrong secret.",
    ),
    "client_not_proven": _note(
        "client_secret",
        Side.NOBODY,
        "This cannot be told before the first sign-in: the answers to our client and to one with a wrong secret do not "
        "tell the two apart.",
        f"{_SIGN_IN}: with a wrong secret it ends with invalid_client.",
    ),
    "client_refused": _problem(
        "client_secret",
        _EITHER,
        "The server does not accept our client: client id or secret is wrong, the client is disabled, may not "
        "use the authorization code grant, or was registered for another authentication method.",
        "Type client id and secret again, and compare the client's state, grants and authentication method.",
    ),
    "key_refused": _problem(
        "client_id",
        _EITHER,
        "The server does not accept our client: the client id is wrong, the client is disabled, or our key is not "
        "registered there.",
        "Compare the client id, and register the address of our public keys (JWKS URI) that this server's page shows.",
    ),
    "public_client_refused": _problem(
        "client_id",
        _EITHER,
        "The server does not accept our client: the client id is wrong, the client is disabled, or it is registered "
        "with a secret.",
        "Compare the client id and its authentication method at the server.",
    ),
    "client_method_differs": _problem(
        "token_endpoint_auth_method",
        _HERE,
        "The server does not take our client as configured, but does with {method}.",
        "Choose that.",
    ),
    "pkce_refused": _problem(
        "token_endpoint",
        _SERVER,
        "The server takes the code_verifier of PKCE (RFC 7636) for a wrong secret.",
        "Have PKCE switched on for our client. We connect to no server without: a code that leaks could be used.",
    ),
    "grant_not_allowed": _problem(
        "token_endpoint",
        _SERVER,
        "The server, or our client there, has no authorization code grant.",
        "Allow our client the grant authorization_code.",
    ),
    "redirect_uri_refused": _problem("redirect_uri", _SERVER, "Our redirect URI is not registered.", _REDIRECT_URI),
    "resource_refused": _problem(
        "resource",
        _EITHER,
        "The server does not know a resource that we ask for, or does not allow it to our client.",
        "Write each resource exactly as the server knows it, or allow it to our client.",
    ),
    "token_for_any_code": _problem(
        "token_endpoint", _SERVER, "It granted a token for a made-up code.", "Do not use this server."
    ),
    "token_endpoint_busy": _note(
        "token_endpoint",
        _SERVER,
        "It is busy, or has an error of its own with a code that it does not know.",
        f"{_LATER} {_SIGN_IN} if it stays so.",
    ),
    "token_endpoint_redirects": _problem(
        "token_endpoint",
        _EITHER,
        "It answers with a redirect, and we follow none: it would carry the secret to another address.",
        "Look at its address, with www and the last slash, and type the one that answers itself.",
    ),
    "token_endpoint_not_found": _problem(
        "token_endpoint",
        _HERE,
        "There is no token endpoint at this address.",
        "Look at its address, and at its last slash.",
    ),
    "token_endpoint_page": _problem(
        "token_endpoint", _HERE, "An HTML page came back, not a token endpoint's answer.", "Look at its address."
    ),
    "token_endpoint_error_page": _note(
        "token_endpoint",
        _EITHER,
        "An HTML page came back. It is no token endpoint, a firewall is in front of it, or it writes errors so.",
        f"Look at its address. {_SIGN_IN} if it is right.",
    ),
    "token_endpoint_unclear": _note(
        "token_endpoint",
        _EITHER,
        "The answer has no error code that we know. It is no token endpoint, something in front of it answers, or it "
        "words errors in its own way.",
        f"Compare its address with your server's documentation. {_SIGN_IN} if it is right.",
    ),
    "dpop_demanded": _problem(
        "dpop_bound_access_tokens",
        _EITHER,
        "The server demands DPoP (RFC 9449) of our client, and here it is switched off.",
        "If bots only make calls and never read tokens, switch it on here. Otherwise switch it off at your server for "
        "our client: at some servers it is on by default.",
    ),
    "dpop_proof_refused": _problem(
        "dpop_bound_access_tokens",
        _SERVER,
        "The server does not accept our proof (DPoP, RFC 9449). Sign-ins will be refused.",
        "Compare its clock with ours, see that it takes ES256, and that all its machines accept each other's nonces.",
    ),
    "token_content_type": _note(
        "token_endpoint",
        _SERVER,
        "Its error is not of the type application/json. A token of another type would be refused.",
        f"{_SIGN_IN}: if it ends with invalid_token_response, have the type corrected.",
    ),
    # Userinfo or introspection endpoint.
    "subject_endpoint_answers": _good("", "It refuses a made-up token, so it looks at tokens."),
    "subject_endpoint_not_found": _problem("", _EITHER, "No endpoint is there, or it redirects.", "Correct it."),
    "subject_for_any_token": _problem("", _EITHER, "It accepts a made-up token.", "Compare the address."),
    "introspection_refused": _problem(
        "", _SERVER, "It does not let our client ask about tokens.", "Allow it introspection (RFC 7662)."
    ),
    "subject_endpoint_not_proven": _note("", Side.NOBODY, "Its answer proves nothing.", f"{_SIGN_IN}."),
    "request_not_sent": _problem("", _HERE, "Our request cannot be sent: {detail}.", "Correct it here."),
    "clock_differs": _problem(
        "",
        _EITHER,
        "Its clock and ours are {seconds} seconds apart. {effect}",
        "Set the server's clock by NTP. If it is right, tell the operator.",
    ),
    # Authorization request.
    "push_refused": _problem(
        "pushed_authorization_request_endpoint", _EITHER, "It refused our request: {detail}.", "{remedy}"
    ),
    "push_busy": _note("pushed_authorization_request_endpoint", _SERVER, "It is busy: {detail}.", _LATER),
    "authorization_refused": _problem(
        "authorization_endpoint", _EITHER, "It refused our request with {error}. {cause}", "{remedy}"
    ),
    "client_or_redirect_uri_refused": _problem(
        "redirect_uri",
        _EITHER,
        "It refused our request on a page of its own{error}: so servers do with a client id or a redirect URI that is "
        "not registered.",
        f"Compare the client id. {_REDIRECT_URI}",
    ),
    "authorization_endpoint_not_found": _problem(
        "authorization_endpoint",
        _EITHER,
        "There is no page at this address, or none for our client.",
        "Look at its address, and compare the client id.",
    ),
    "authorization_endpoint_busy": _note(
        "authorization_endpoint", _SERVER, "It is busy, or has an error of its own.", _LATER
    ),
    "authorization_endpoint_refuses": _note(
        "authorization_endpoint",
        _EITHER,
        "It refused our request without a reason. A firewall may let only browsers in, or it is not a sign-in page.",
        f"Compare its address. {_SIGN_IN}: the page that you see says more.",
    ),
    "redirect_uri_registered": _good(
        "redirect_uri", "It goes on with our redirect URI, and not with one that is not registered: so ours is."
    ),
    "redirect_uri_not_proven": _note(
        "redirect_uri",
        Side.NOBODY,
        "This cannot be told before the first sign-in: the answers to our redirect URI and to one that is not "
        "registered do not tell the two apart.",
        f"{_SIGN_IN}. If you do not come back here: {_REDIRECT_URI}",
    ),
    "redirects_to_any_address": _problem(
        "redirect_uri",
        _SERVER,
        "The server redirects to an address that is not registered (RFC 9700 section 4.1). Whoever writes a link gets "
        "the codes.",
        "Have it compare redirect URIs exactly.",
    ),
    "code_without_sign_in": _note(
        "authorization_endpoint",
        _SERVER,
        "It sent a code at once, without asking anybody to sign in.",
        "See that your server signs consumers in.",
    ),
}
