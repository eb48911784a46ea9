"""How long the authorization request of a server can become, before any consumer meets it (B20)."""

from typing import Final

import msgspec

from oauth_client.authorization import MAX_URL_LENGTH, longest_url
from oauth_client.configuration import ServerConfiguration
from oauth_client.step_up import LONGEST_DEMANDS, NO_DEMAND

_WITH_APIS: Final = ", with the resources of its active APIs"
_WITH_DEMANDS: Final = ", and a step-up that one of them may demand"


def problem_of_length(configuration: ServerConfiguration, *, has_apis: bool) -> tuple[str, str] | None:
    """Return the field that makes a server's request too long for an address, and a message; None if it is not.

    `configuration` has the server's whole scope, and the resources of all its active APIs. A challenge asks for no more
    than that, and names no language. With `has_apis`, an API may demand a step-up, which is longer than what is
    configured. A pushed request (RFC 9126) is in no address. Raises `ValueError` for an address that is none.
    """
    if not configuration.authorization_endpoint or configuration.pushed_authorization_request_endpoint:
        return None
    # Only an ID token shows that a demand was met.
    is_demanded = has_apis and configuration.uses_openid
    length = longest_url(configuration, LONGEST_DEMANDS if is_demanded else (NO_DEMAND,))
    if length <= MAX_URL_LENGTH:
        return None
    counted = (_WITH_APIS if has_apis else "") + (_WITH_DEMANDS if is_demanded else "")
    message = (
        f"The address of a sign-in could have {length} characters{counted}; servers take at most {MAX_URL_LENGTH}. "
        "Request less, or set the server's endpoint for pushed requests."
    )
    return _longest_field(configuration), message


def new_problem_of_length(
    configuration: ServerConfiguration, stored: ServerConfiguration | None, *, has_apis: bool
) -> tuple[str, str] | None:
    """As `problem_of_length`, but None if the stored configuration is as long: it keeps no other change waiting.

    One that was saved before a step-up counted would keep a leaked secret in use until its scope was cut.
    """
    problem = problem_of_length(configuration, has_apis=has_apis)
    is_old = problem is not None and stored is not None and problem == problem_of_length(stored, has_apis=has_apis)
    return None if is_old else problem


def _longest_field(configuration: ServerConfiguration) -> str:
    lengths = {
        "scope": len(configuration.scope),
        "resource": sum(map(len, configuration.resource)),
        "extra_authorization_parameters": len(msgspec.json.encode(configuration.extra_authorization_parameters)),
    }
    return max(lengths, key=lengths.__getitem__)
