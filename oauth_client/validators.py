"""Validate the fields of an authorization server. Each validator raises `ValidationError`.

Forms and `apply_config` validate before storing. The transport calls `validate_endpoint` again before every call,
because a row may have been written with other settings or by SQL.
"""

import re
import unicodedata
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

from oauth_client.addresses import callable_ports
from oauth_client.urls import CHARACTER, DNS_NAME, MAX_HOST_LENGTH, read_url, refuse_unless

MAX_EXTRA_PARAMETERS: Final = 20
MAX_EXTRA_PARAMETERS_LENGTH: Final = 2048
MAX_SCOPE_LENGTH: Final = 4000
MAX_RESOURCES: Final = 10
MAX_RESOURCE_LENGTH: Final = 1000

# Authorization request parameters that we set, that have their own field, or that belong to the token request.
# response_mode is one of them, because with form_post browsers do not send our Lax cookie (B4).
RESERVED_PARAMETERS: Final = frozenset(
    {
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_verifier",
        "dpop_jkt",
        "max_age",
        "nonce",
        "prompt",
        "redirect_uri",
        "resource",
        "response_mode",
        "response_type",
        "scope",
        "state",
    }
)
# Reserved parameters that admins set in the field of the same name.
_FIELDS_OF_THEIR_OWN: Final = frozenset({"max_age", "prompt", "resource", "scope"})
# code_challenge and its method; request and request_uri, which would replace our whole request (RFC 9101).
RESERVED_PREFIXES: Final = ("code_challenge", "request")

ID_TOKEN_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
    "EdDSA",
    "HS256",
)

# Token response members that we interpret ourselves (RFC 6749 section 5, RFC 9207).
PROTOCOL_MEMBERS: Final = frozenset(
    {"error", "error_description", "error_uri", "expires_at", "expires_in", "iss", "scope", "state"}
)
MAX_RESPONSE_MEMBERS: Final = 20
# A member whose name contains one of these, in any spelling, may hold a secret.
_SECRET_FRAGMENTS: Final = (
    *("token", "secret", "password", "passwd", "passphrase", "passcode", "code", "assertion", "credential", "cookie"),
    *("session", "key", "jwt", "bearer", "refresh", "nonce", "verifier"),
)
_SECRET_NAMES: Final = frozenset({"at", "auth", "authorization", "otp", "pin", "pwd", "rt"})
_RESPONSE_MEMBER: Final = re.compile(r"[A-Za-z0-9_.:/@-]{1,64}")

# Metadata members that an admin may choose to ignore, which leaves that feature off.
IGNORABLE_METADATA: Final = (
    "jwks_uri",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
    "userinfo_endpoint",
    "introspection_endpoint",
    "authorization_response_iss_parameter_supported",
)

# A member's name, or a JSON Pointer (RFC 6901), whose `~` escapes a slash.
_SUBJECT_MEMBER: Final = re.compile(r"[A-Za-z0-9_.:@-][A-Za-z0-9_.:/@-]{0,127}|(?:/[A-Za-z0-9_.:@~-]{1,64}){1,5}")
# They describe the token or the client (RFC 7662 section 2.2), or people share, change or choose them (OpenID Connect
# Core sections 5.1 and 5.7).
_NOT_OF_ONE_ACCOUNT: Final = frozenset({
    *("active", "aud", "azp", "client_id", "exp", "iat", "iss", "jti", "nbf", "scope", "token_type"),
    *("birthdate", "email", "email_verified", "family_name", "gender", "given_name", "locale", "middle_name"),
    *("name", "nickname", "phone_number", "phone_number_verified", "picture", "preferred_username", "profile"),
    *("updated_at", "website", "zoneinfo"),
})  # fmt: skip

# RFC 3986 section 4.3.
_ABSOLUTE_URI: Final = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*:(?:{CHARACTER}|[?\[\]])+")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_DENIAL_CODES: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}(?: [A-Za-z0-9._:-]{1,64}){0,19}")
_TOKEN_TYPE: Final = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
# Sources, in the order below: RFC 9449, draft-ietf-oauth-v2-http-mac, RFC 9201, RFC 8693 section 2.2.1.
NOT_BEARER: Final = frozenset({"dpop", "mac", "pop", "n_a"})
_AUDIENCE: Final = re.compile(r"[\x21-\x7e]{1,255}")
# Shopify uses the list parameter `grant_options[]`.
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}(?:\[\])?")
_PARAMETER_VALUE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,1000}")


def validate_endpoint(value: str) -> None:
    """Require https, a DNS name, and port 443 or one of the private networks of this context (N1, N14).

    `ALLOW_LOCAL_ENDPOINTS` also allows loopback, any port and http.
    """
    url = read_url(value)
    if settings.ALLOW_LOCAL_ENDPOINTS and url.is_loopback:
        refuse_unless(url.scheme in {"https", "http"}, "The URL must begin with https://.", "endpoint_scheme")
        return
    refuse_unless(url.scheme == "https", "The URL must begin with https://.", "endpoint_scheme")
    refuse_unless(not url.is_ip_address, "Write the host as a name, not as an IP address.", "endpoint_ip_address")
    refuse_unless(not url.is_loopback, "This host is our own machine.", "endpoint_local")
    refuse_unless(
        len(url.host) <= MAX_HOST_LENGTH and DNS_NAME.fullmatch(url.host) is not None,
        "The host is not a complete DNS name, such as login.example.com.",
        "endpoint_host",
    )
    message = "Only port 443 is allowed. The operator can allow your brand other ports inside a private network."
    refuse_unless(url.port is None or url.port in callable_ports(), message, "endpoint_port")


def validate_authorization_endpoint(value: str) -> None:
    """Do `validate_endpoint`, and refuse reserved parameters in the endpoint's query (RFC 6749 section 3.1) (B20)."""
    validate_endpoint(value)
    for name, _ in parse_qsl(urlsplit(value).query, keep_blank_values=True):
        refuse_unless(
            not is_reserved_parameter(name),
            f"The URL must not set {name}: {_where_to_set(name)}.",
            "reserved_parameter",
        )


def validate_issuer(value: str) -> None:
    """Do `validate_endpoint`, and refuse a query (RFC 8414 section 2). A trailing slash is part of the issuer."""
    validate_endpoint(value)
    refuse_unless("?" not in value, "An issuer has no query.", "issuer_query")


def validate_base_url(value: str) -> None:
    """Do `validate_endpoint`, and refuse what a path cannot be added to: a query, `//`, `.` and `..`."""
    validate_endpoint(value)
    refuse_unless("?" not in value, "A base URL has no query.", "base_url_query")
    path = urlsplit(value).path.removeprefix("/").removesuffix("/")
    # Servers decode percent-encoded dots and slashes at different moments, and some drop what follows a semicolon.
    decoded = re.sub("%2e", ".", path, flags=re.IGNORECASE)
    is_plain = not path or all(segment.partition(";")[0].strip(".") for segment in decoded.split("/"))
    message = "The path must not have an empty segment, . or .. in it, or an encoded slash."
    refuse_unless(is_plain and not re.search("%(?:2f|5c)", path, re.IGNORECASE), message, "base_url_path")


def validate_extra_authorization_parameters(value: object) -> None:
    """Require a dictionary of text values without reserved parameter names (B20)."""
    if not isinstance(value, dict):
        raise ValidationError("Give names and values, for example audience: orders.", code="invalid_extra_parameters")
    refuse_unless(
        len(value) <= MAX_EXTRA_PARAMETERS,
        f"At most {MAX_EXTRA_PARAMETERS} extra parameters are allowed.",
        "invalid_extra_parameters",
    )
    for name, text in value.items():
        _validate_parameter(name, text)
    # Browsers and servers accept URLs of about 8 KB; Django does not redirect to a longer one.
    refuse_unless(
        len(urlencode(value)) <= MAX_EXTRA_PARAMETERS_LENGTH,
        "The extra parameters are too long.",
        "invalid_extra_parameters",
    )


def validate_resources(value: object) -> None:
    """Require a list of absolute URIs without a fragment (RFC 8707 section 2)."""
    if not isinstance(value, list) or len(value) > MAX_RESOURCES:
        raise ValidationError(f"Give a list of at most {MAX_RESOURCES} URIs.", code="invalid_resource")
    for resource in value:
        refuse_unless(
            _is_absolute_uri(resource),
            "Write each resource as an absolute URI without a fragment (#), such as https://api.example.com/orders, "
            f"of at most {MAX_RESOURCE_LENGTH} characters.",
            "invalid_resource",
        )
    refuse_unless(len(set(value)) == len(value), "Name each resource once.", "invalid_resource")


def is_reserved_parameter(name: str) -> bool:
    """Whether this parameter is one that admins may not set.

    Case and a final `[]` do not matter: some servers ignore case, or read `state[]` as `state`.
    """
    lowered = name.lower().removesuffix("[]")
    return lowered in RESERVED_PARAMETERS or lowered.startswith(RESERVED_PREFIXES)


def validate_denial_codes(value: str) -> None:
    """Require one to twenty error codes of an authorization response, separated by single spaces (B14)."""
    message = (
        "Separate codes by one space, e.g. access_denied user_cancelled. "
        "At most 20 codes, each of at most 64 characters."
    )
    refuse_unless(bool(_DENIAL_CODES.fullmatch(value)), message, "invalid_denial_codes")


def validate_scope(value: str) -> None:
    """Require scopes separated by one space (RFC 6749 section 3.3). Empty is allowed."""
    refuse_unless(
        not value or _SCOPE.fullmatch(value) is not None,
        'Separate scopes by one space; only visible ASCII characters other than " and \\ are allowed.',
        "invalid_scope",
    )


def validate_token_type(value: str) -> None:
    """Require visible ASCII on one line, and refuse types that are known not to be bearer tokens (E7)."""
    refuse_unless(
        _TOKEN_TYPE.fullmatch(value) is not None,
        "Write the token type as the server does, in visible ASCII.",
        "invalid_token_type",
    )
    refuse_unless(
        value.lower() not in NOT_BEARER,
        "Tokens of this type are not bearer tokens: bots could not use them.",
        "invalid_token_type",
    )


def validate_audiences(value: object) -> None:
    if not isinstance(value, list) or len(value) > MAX_RESOURCES or len(set(map(str, value))) != len(value):
        raise ValidationError(f"Give a list of at most {MAX_RESOURCES} names, each once.", code="invalid_audience")
    for name in value:
        refuse_unless(
            isinstance(name, str) and _AUDIENCE.fullmatch(name) is not None,
            "Write each name in at most 255 visible ASCII characters, as in the ID token's aud.",
            "invalid_audience",
        )


def validate_id_token_algorithms(value: object) -> None:
    """Require a list of known signature algorithms, never `none` (E16, RFC 8725 section 3.2)."""
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise ValidationError("Give a list of algorithms, such as RS256.", code="invalid_algorithms")
    if any(name.lower() == "none" for name in value):
        raise ValidationError("none means no signature: anybody could write such a token.", code="algorithm_none")
    refuse_unless(
        set(value) <= set(ID_TOKEN_ALGORITHMS),
        f"Use only these algorithms: {', '.join(ID_TOKEN_ALGORITHMS)}.",
        "unknown_algorithm",
    )
    refuse_unless(len(set(value)) == len(value), "Name each algorithm once.", "invalid_algorithms")


def validate_ignored_metadata(value: object) -> None:
    is_valid = isinstance(value, list) and all(name in IGNORABLE_METADATA for name in value)
    refuse_unless(is_valid, f"Use only these names: {', '.join(IGNORABLE_METADATA)}.", "invalid_ignored_metadata")


def validate_subject_member(value: str) -> None:
    """Require a member's name or a JSON Pointer (RFC 6901). Refuse one that does not tell accounts apart (A17)."""
    refuse_unless(
        _SUBJECT_MEMBER.fullmatch(value) is not None,
        "Write the member's name, such as id, or a JSON Pointer for a member inside an object, such as /data/id.",
        "invalid_subject_member",
    )
    name = value.rpartition("/")[2]
    refuse_unless(
        name not in _NOT_OF_ONE_ACCOUNT,
        f"{name} may be the same for two accounts, or change. Name the account's own id, such as sub or id.",
        "not_of_one_account",
    )


def validate_token_response_members(value: object) -> None:
    """Require names of members that do not look like secrets, and that we do not interpret ourselves (E15)."""
    names = value if isinstance(value, list) else [None]
    well_formed = all(isinstance(name, str) and _RESPONSE_MEMBER.fullmatch(name) for name in names)
    refuse_unless(
        well_formed and len(set(names)) == len(names) <= MAX_RESPONSE_MEMBERS,
        f"Name each member once, at most {MAX_RESPONSE_MEMBERS}: letters, digits and _ . : / @ -",
        "invalid_response_members",
    )
    for name in names:
        refuse_unless(name not in PROTOCOL_MEMBERS, f"{name} is reserved.", "reserved_response_member")
        refuse_unless(
            not is_secret_name(str(name)),
            f"{name} could hold a secret, so it is never passed on.",
            "secret_response_member",
        )


def is_secret_name(name: str) -> bool:
    """Whether a member of this name may hold a secret: `refresh_token`, `refreshToken`, `re-fresh.to_ken`."""
    # Read compatibility forms, such as full-width letters, as plain ones.
    folded = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(character for character in folded if character.isalnum())
    return letters in _SECRET_NAMES or any(fragment in letters for fragment in _SECRET_FRAGMENTS)


def _validate_parameter(name: object, text: object) -> None:
    if not isinstance(name, str) or not _PARAMETER_NAME.fullmatch(name):
        message = "Parameter names are made of letters, digits and . _ -, with [] at the end for a list."
        raise ValidationError(message, code="invalid_extra_parameters")
    refuse_unless(
        not is_reserved_parameter(name), f"{name} is not allowed here: {_where_to_set(name)}.", "reserved_parameter"
    )
    if not isinstance(text, str) or not _PARAMETER_VALUE.fullmatch(text):
        raise ValidationError(
            f"The value of {name} must be a text of 1 to 1000 characters without control characters.",
            code="invalid_extra_parameters",
        )


def _where_to_set(name: str) -> str:
    return "use the field of that name" if name.lower() in _FIELDS_OF_THEIR_OWN else "it is set automatically"


def _is_absolute_uri(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_RESOURCE_LENGTH or not _ABSOLUTE_URI.fullmatch(value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme not in {"http", "https"} or (bool(parts.hostname) and "@" not in parts.netloc)
    except ValueError:
        return False
