"""Read a URL as two parsers do, and refuse it if they disagree (N1)."""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

MAX_URL_LENGTH: Final = 2048
MAX_HOST_LENGTH: Final = 253

# In a path or a query.
CHARACTER: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
_URL: Final = re.compile(
    rf"(?P<scheme>[A-Za-z]+)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{{1,5}}))?"
    rf"(?:/{CHARACTER}*)?(?:\?(?:{CHARACTER}|\?)*)?"
)
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter: 127.1, 0x7f.1 and 2130706433 are forms of IPv4 addresses.
DNS_NAME: Final = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}")


@dataclass(frozen=True, slots=True)
class ParsedURL:
    """A URL that two parsers read alike."""

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
        """Also true for unusual IPv4 spellings: their last label begins with a digit."""
        last_label = self.host.rstrip(".").rpartition(".")[2]
        return ":" in self.host or last_label[:1].isdigit()


@lru_cache(maxsize=256)
def read_url(value: str) -> ParsedURL:
    """Parse the URL. Raises `ValidationError`, also if the two parsers disagree.

    The text alone decides, so the result is kept. What may be called is judged at each call.
    """
    _refuse_bad_characters(value)
    try:
        split = urlsplit(value)
        first = ParsedURL(split.scheme, split.hostname or "", split.port)
    except ValueError:
        raise ValidationError("This is not a URL.", code="endpoint_malformed") from None
    refuse_unless("@" not in split.netloc, "The URL must not hold a user name or password.", "endpoint_userinfo")
    match = _URL.fullmatch(value)
    if match is None:
        raise ValidationError("This is not a URL, such as https://login.example.com/token.", code="endpoint_malformed")
    port = int(match["port"]) if match["port"] else None
    second = ParsedURL(match["scheme"].lower(), match["host"].lower().strip("[]"), port)
    refuse_unless(first == second, "Two parsers read this URL differently.", "endpoint_malformed")
    refuse_unless("[" not in match["host"] or _is_ipv6(second.host), "This is not a URL.", "endpoint_malformed")
    return second


def _refuse_bad_characters(value: str) -> None:
    refuse_unless(len(value) <= MAX_URL_LENGTH, f"Use at most {MAX_URL_LENGTH} characters.", "endpoint_too_long")
    refuse_unless(
        value.isascii() and value.isprintable() and " " not in value and "\\" not in value,
        "Spaces, backslashes, control characters and letters outside ASCII are not allowed; "
        "international names are written in their xn-- form.",
        "endpoint_characters",
    )
    # An empty fragment is refused too: urlsplit drops its #, so we would check another URL than the stored one.
    refuse_unless("#" not in value, "The URL must not have a fragment (#).", "endpoint_fragment")


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except AddressValueError:
        return False
    return True


def refuse_unless(condition: bool, message: str, code: str) -> None:
    """Raise `ValidationError` with the message and the code if the condition does not hold."""
    if not condition:
        raise ValidationError(message, code=code)
