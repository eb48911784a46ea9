"""What may stand in the fields of an authorization server. Pure functions; each raises `ValidationError`.

The forms and `apply_config` ask before a value is stored; the transport asks `validate_endpoint` once more before every
call, so that a row written under other settings, or by SQL, opens nothing.
"""

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address, ip_address
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

MAX_URL_LENGTH: Final = 2048
MAX_EXTRA_PARAMETERS: Final = 20
MAX_EXTRA_PARAMETERS_LENGTH: Final = 2048
MAX_SCOPE_LENGTH: Final = 4000
MAX_RESOURCES: Final = 10
MAX_RESOURCE_LENGTH: Final = 1000

MAX_HOST_LENGTH: Final = 253

# Parameters of the authorization request that we set ourselves, that have a field of their own, or that are of another
# request. response_mode: browsers send our Lax cookie with no form_post (B4).
RESERVED_PARAMETERS: Final = frozenset(
    {
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_verifier",
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
# Those of them that an admin sets all the same: at the field of this name.
_FIELDS_OF_THEIR_OWN: Final = frozenset({"max_age", "prompt", "resource", "scope"})
# code_challenge and its method; request and request_uri, which carry a whole request past us (RFC 9101).
RESERVED_PREFIXES: Final = ("code_challenge", "request")

ID_TOKEN_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
    "EdDSA",
    "HS256",
)

# Members of a token response that have a meaning of their own for us (RFC 6749 section 5, RFC 9207).
PROTOCOL_MEMBERS: Final = frozenset(
    {"error", "error_description", "error_uri", "expires_at", "expires_in", "iss", "scope", "state"}
)
MAX_RESPONSE_MEMBERS: Final = 20
# A name that has one of these in it, in whatever spelling, could be a secret's.
_SECRET_FRAGMENTS: Final = (
    *("token", "secret", "password", "passwd", "passphrase", "passcode", "code", "assertion", "credential", "cookie"),
    *("session", "key", "jwt", "bearer", "refresh", "nonce", "verifier"),
)
_SECRET_NAMES: Final = frozenset({"at", "auth", "authorization", "otp", "pin", "pwd", "rt"})
_RESPONSE_MEMBER: Final = re.compile(r"[A-Za-z0-9_.:/@-]{1,64}")

# What a server's metadata would switch on, and an admin may leave off.
IGNORABLE_METADATA: Final = (
    "jwks_uri",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
    "authorization_response_iss_parameter_supported",
)

_CHARACTER: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
_URL: Final = re.compile(
    rf"(?P<scheme>[A-Za-z]+)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{{1,5}}))?"
    rf"(?:/{_CHARACTER}*)?(?:\?(?:{_CHARACTER}|\?)*)?"
)
# RFC 3986 section 4.3.
_ABSOLUTE_URI: Final = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*:(?:{_CHARACTER}|[?\[\]])+")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter: 127.1, 0x7f.1 and 2130706433 are ways to write an IPv4 address.
_DNS_NAME: Final = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_DENIAL_CODES: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}(?: [A-Za-z0-9._:-]{1,64}){0,19}")
_TOKEN_TYPE: Final = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
# RFC 9449, draft-ietf-oauth-v2-http-mac, RFC 9201, RFC 8693 section 2.2.1.
NOT_BEARER: Final = frozenset({"dpop", "mac", "pop", "n_a"})
_AUDIENCE: Final = re.compile(r"[\x21-\x7e]{1,255}")
# Shopify asks for a list by the name `grant_options[]`.
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}(?:\[\])?")
_PARAMETER_VALUE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,1000}")


def validate_endpoint(value: str) -> None:
    """Refuse every address but `https://` and a DNS name, port 443, without userinfo or fragment (N1).

    `ALLOW_LOCAL_ENDPOINTS` also allows loopback hosts, there with any port and with plain http.
    """
    address = _read(value)
    if settings.ALLOW_LOCAL_ENDPOINTS and address.is_loopback:
        _refuse_unless(address.scheme in {"https", "http"}, "The address must begin with https://.", "endpoint_scheme")
        return
    _refuse_unless(address.scheme == "https", "The address must begin with https://.", "endpoint_scheme")
    _refuse_unless(not address.is_ip_address, "Write the host as a name, not as an IP address.", "endpoint_ip_address")
    _refuse_unless(
        not address.is_loopback, "This host is the machine that we run on; brands are elsewhere.", "endpoint_local"
    )
    _refuse_unless(
        len(address.host) <= MAX_HOST_LENGTH and _DNS_NAME.fullmatch(address.host) is not None,
        "The host is not a complete DNS name, such as login.example.com.",
        "endpoint_host",
    )
    _refuse_unless(address.port in {None, 443}, "Only port 443 is allowed.", "endpoint_port")


def validate_authorization_endpoint(value: str) -> None:
    """As `validate_endpoint`; and its own query (RFC 6749 section 3.1) sets no parameter that is ours to set (B20)."""
    validate_endpoint(value)
    for name, _ in parse_qsl(urlsplit(value).query, keep_blank_values=True):
        _refuse_unless(
            not is_reserved_parameter(name),
            f"The address must not set {name}: it {_whose(name)}.",
            "reserved_parameter",
        )


def validate_issuer(value: str) -> None:
    """As `validate_endpoint`, and without a query (RFC 8414 section 2). A trailing slash is part of the name."""
    validate_endpoint(value)
    _refuse_unless("?" not in value, "An issuer has no query.", "issuer_query")


def validate_extra_authorization_parameters(value: object) -> None:
    """Refuse what is not a dictionary of texts, and every name that is ours to set (B20)."""
    if not isinstance(value, dict):
        raise ValidationError("Give names and values, such as audience and orders.", code="invalid_extra_parameters")
    _refuse_unless(
        len(value) <= MAX_EXTRA_PARAMETERS,
        f"At most {MAX_EXTRA_PARAMETERS} extra parameters are allowed.",
        "invalid_extra_parameters",
    )
    for name, text in value.items():
        _validate_parameter(name, text)
    # Browsers and servers take addresses of some 8 KB; Django refuses to redirect to a longer one.
    _refuse_unless(
        len(urlencode(value)) <= MAX_EXTRA_PARAMETERS_LENGTH,
        "The extra parameters are too long.",
        "invalid_extra_parameters",
    )


def validate_resources(value: object) -> None:
    """Refuse what is not a list of absolute URIs without a fragment (RFC 8707 section 2)."""
    if not isinstance(value, list) or len(value) > MAX_RESOURCES:
        raise ValidationError(f"Give a list of at most {MAX_RESOURCES} addresses.", code="invalid_resource")
    for resource in value:
        _refuse_unless(
            _is_absolute_uri(resource),
            "Each one is an absolute URI without a fragment (#), such as https://api.example.com/orders, "
            f"of at most {MAX_RESOURCE_LENGTH} characters.",
            "invalid_resource",
        )
    _refuse_unless(len(set(value)) == len(value), "Name each one once.", "invalid_resource")


def is_reserved_parameter(name: str) -> bool:
    """Tell whether an admin may not set this parameter. Some servers ignore the case of names, and read `state[]`."""
    lowered = name.lower().removesuffix("[]")
    return lowered in RESERVED_PARAMETERS or lowered.startswith(RESERVED_PREFIXES)


def validate_denial_codes(value: str) -> None:
    """Refuse what is not up to twenty codes of an authorization response, separated by single spaces (B14)."""
    message = "Write codes with single spaces between them, such as: user_cancelled 17. At most 20 of 64 characters."
    _refuse_unless(bool(_DENIAL_CODES.fullmatch(value)), message, "invalid_denial_codes")


def validate_scope(value: str) -> None:
    """Refuse what is not a list of scopes with one space between them (RFC 6749 section 3.3). Empty is none."""
    _refuse_unless(
        not value or _SCOPE.fullmatch(value) is not None,
        'Separate scopes by one space; only visible ASCII characters other than " and \\ are allowed.',
        "invalid_scope",
    )


def validate_token_type(value: str) -> None:
    """Refuse a name that is no text on one line, and those of tokens that are no bearer tokens (E7)."""
    _refuse_unless(
        _TOKEN_TYPE.fullmatch(value) is not None, "Write it as the server does, in visible ASCII.", "invalid_token_type"
    )
    _refuse_unless(
        value.lower() not in NOT_BEARER,
        "A token of this type cannot be used by whoever merely holds it: bots could not use it.",
        "invalid_token_type",
    )


def validate_audiences(value: object) -> None:
    """Refuse what is not a list of names."""
    if not isinstance(value, list) or len(value) > MAX_RESOURCES or len(set(map(str, value))) != len(value):
        raise ValidationError(f"Give a list of at most {MAX_RESOURCES} names, each once.", code="invalid_audience")
    for name in value:
        _refuse_unless(
            isinstance(name, str) and _AUDIENCE.fullmatch(name) is not None,
            "Each one is a text of at most 255 visible ASCII characters, as in the ID token's aud.",
            "invalid_audience",
        )


def validate_id_token_algorithms(value: object) -> None:
    """Refuse everything but a list of known signature algorithms; `none` is not one (E16, RFC 8725 section 3.2)."""
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise ValidationError("Give a list of algorithms, such as RS256.", code="invalid_algorithms")
    if any(name.lower() == "none" for name in value):
        raise ValidationError("none means no signature: anybody could write such a token.", code="algorithm_none")
    _refuse_unless(
        set(value) <= set(ID_TOKEN_ALGORITHMS),
        f"Use algorithms out of: {', '.join(ID_TOKEN_ALGORITHMS)}.",
        "unknown_algorithm",
    )
    _refuse_unless(len(set(value)) == len(value), "Name each algorithm once.", "invalid_algorithms")


def validate_ignored_metadata(value: object) -> None:
    """Refuse everything but a list of members of metadata that may be left off."""
    known = isinstance(value, list) and all(name in IGNORABLE_METADATA for name in value)
    _refuse_unless(known, f"Use names out of: {', '.join(IGNORABLE_METADATA)}.", "invalid_ignored_metadata")


def validate_token_response_members(value: object) -> None:
    """Refuse everything but a list of names of members that hold no secret and are not ours to read (E15)."""
    names = value if isinstance(value, list) else [None]
    well_formed = all(isinstance(name, str) and _RESPONSE_MEMBER.fullmatch(name) for name in names)
    _refuse_unless(
        well_formed and len(set(names)) == len(names) <= MAX_RESPONSE_MEMBERS,
        f"Name each member once, at most {MAX_RESPONSE_MEMBERS}: letters, digits and _ . : / @ -",
        "invalid_response_members",
    )
    for name in names:
        _refuse_unless(name not in PROTOCOL_MEMBERS, f"{name} is ours to read.", "reserved_response_member")
        _refuse_unless(
            not is_secret_name(str(name)),
            f"{name} could be a secret's name, so it is never passed on.",
            "secret_response_member",
        )


def is_secret_name(name: str) -> bool:
    """Tell whether a member of this name could hold a secret: `refresh_token`, `refreshToken`, `re-fresh.to_ken`."""
    # Compatibility forms, such as full-width letters, are read as plain ones.
    folded = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(character for character in folded if character.isalnum())
    return letters in _SECRET_NAMES or any(fragment in letters for fragment in _SECRET_FRAGMENTS)


@dataclass(frozen=True, slots=True)
class _Address:
    """What two parsers agree on."""

    scheme: str
    host: str
    port: int | None

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_ip_address(self) -> bool:
        """Also true for the odd spellings of IPv4, all of which end in a label that begins with a digit."""
        last_label = self.host.rstrip(".").rpartition(".")[2]
        return ":" in self.host or last_label[:1].isdigit()


def _read(value: str) -> _Address:
    """Read an address twice; what the two parsers read differently has no single meaning and is refused."""
    _refuse_bad_characters(value)
    try:
        split = urlsplit(value)
        first = _Address(split.scheme, split.hostname or "", split.port)
    except ValueError:
        raise ValidationError("This is not an address.", code="endpoint_malformed") from None
    _refuse_unless("@" not in split.netloc, "The address must not hold a user name or password.", "endpoint_userinfo")
    match = _URL.fullmatch(value)
    if match is None:
        raise ValidationError(
            "This is not an address, such as https://login.example.com/token.", code="endpoint_malformed"
        )
    port = int(match["port"]) if match["port"] else None
    second = _Address(match["scheme"].lower(), match["host"].lower().strip("[]"), port)
    _refuse_unless(first == second, "This address can be read in two ways.", "endpoint_malformed")
    _refuse_unless("[" not in match["host"] or _is_ipv6(second.host), "This is not an address.", "endpoint_malformed")
    return second


def _refuse_bad_characters(value: str) -> None:
    _refuse_unless(len(value) <= MAX_URL_LENGTH, f"Use at most {MAX_URL_LENGTH} characters.", "endpoint_too_long")
    _refuse_unless(
        value.isascii() and value.isprintable() and " " not in value and "\\" not in value,
        "Spaces, backslashes, control characters and letters outside ASCII are not allowed; "
        "international names are written in their xn-- form.",
        "endpoint_characters",
    )
    # An empty fragment, too: urlsplit drops the # and would show us another address than the one that is stored.
    _refuse_unless("#" not in value, "The address must not have a fragment (#).", "endpoint_fragment")


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except AddressValueError:
        return False
    return True


def _validate_parameter(name: object, text: object) -> None:
    if not isinstance(name, str) or not _PARAMETER_NAME.fullmatch(name):
        message = "Parameter names are made of letters, digits and . _ -, with [] at the end for a list."
        raise ValidationError(message, code="invalid_extra_parameters")
    _refuse_unless(not is_reserved_parameter(name), f"{name} {_whose(name)}.", "reserved_parameter")
    if not isinstance(text, str) or not _PARAMETER_VALUE.fullmatch(text):
        raise ValidationError(
            f"The value of {name} must be a text of 1 to 1000 characters without control characters.",
            code="invalid_extra_parameters",
        )


def _whose(name: str) -> str:
    return "has a field of its own: use that" if name.lower() in _FIELDS_OF_THEIR_OWN else "is ours to set"


def _is_absolute_uri(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_RESOURCE_LENGTH or not _ABSOLUTE_URI.fullmatch(value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme not in {"http", "https"} or (bool(parts.hostname) and "@" not in parts.netloc)
    except ValueError:
        return False


def _refuse_unless(condition: bool, message: str, code: str) -> None:
    if not condition:
        raise ValidationError(message, code=code)
