"""Step-up authentication (RFC 9470): what a resource server demands of the consumer's sign-in.

The demand comes from an API's answer. It goes into a problem document, and through the consumer's browser to the
authorization server, so only what has the form of a demand is taken (P31).
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

INSUFFICIENT_USER_AUTHENTICATION: Final = "insufficient_user_authentication"
MAX_ACR_LENGTH: Final = 128
MAX_ACR_VALUES_LENGTH: Final = 500
# About 68 years. A larger number demands nothing, and no column holds it.
MAX_SECONDS: Final = 2**31 - 1
# Visible ASCII, without the quote and the backslash that would end or escape it somewhere else.
ACR: Final = re.compile(rf"[!#-\[\]-~]{{1,{MAX_ACR_LENGTH}}}")
_SECONDS: Final = re.compile(r"[0-9]{1,20}")


class UnreadableDemand(Exception):
    """The resource server demands something that has not the form of RFC 9470 section 3."""


class AuthenticationDemand(msgspec.Struct, frozen=True):
    """What the next sign-in has to be: one of the classes in `acr_values`, and no older than `max_age` seconds.

    `acr_values` are separated by spaces, the preferred one first. Empty and None demand nothing.
    """

    acr_values: str = ""
    max_age: int | None = None

    @property
    def is_empty(self) -> bool:
        return not self.acr_values and self.max_age is None


NO_DEMAND: Final = AuthenticationDemand()
# Those whose request is the longest. In an address, each of these characters is three.
_LONGEST_ACR_VALUES: Final = " ".join(character * MAX_ACR_LENGTH for character in "%&/+")[:MAX_ACR_VALUES_LENGTH]
LONGEST_DEMANDS: Final = tuple(
    AuthenticationDemand(acr_values, max_age)
    for acr_values in ("", _LONGEST_ACR_VALUES)
    for max_age in (None, MAX_SECONDS)
)


def demand_in(challenge: Mapping[str, str]) -> AuthenticationDemand:
    """Read `acr_values` and `max_age` of a challenge (RFC 9470 section 3). Both are optional.

    Raises `UnreadableDemand`. To leave out what cannot be read would demand less than the resource server does, and
    the consumer would sign in for nothing.
    """
    values, seconds = challenge.get("acr_values", "").split(" "), challenge.get("max_age")
    named = list(dict.fromkeys(filter(None, values)))
    acr_values = " ".join(named)
    if not all(map(ACR.fullmatch, named)) or len(acr_values) > MAX_ACR_VALUES_LENGTH:
        raise UnreadableDemand
    if seconds is not None and not _SECONDS.fullmatch(seconds):
        raise UnreadableDemand
    return AuthenticationDemand(acr_values, None if seconds is None else min(int(seconds), MAX_SECONDS))
