"""Scenarios: what happens in a sign-in at the sample brand. The consumer chooses one on the sign-in page.

A scenario is for one authorization request. It is stored in the process's cache: first under the request's `state`,
then under the authorization code.
"""

from urllib.parse import parse_qs, urlsplit

from django.core.cache import cache
from django.db.models import TextChoices

SECONDS_TO_KEEP = 600
EXPIRES_IN = 10
# The product waits at most 5 seconds for the next byte of an answer, and 10 for the whole answer.
SLOW_SECONDS = 7


class Scenario(TextChoices):
    """A value is what the form sends, and what may follow a + in the login name: `ada+deny`."""

    SIGN_IN = "sign-in", "Sign in"
    DENY = "deny", "Deny access"
    SLOW = "slow", "Acme answers too late"
    OTHER_PERSON = "other-person", "Somebody else signs in"
    NARROWER_SCOPE = "narrower-scope", "Allow less than was asked for"
    NO_EXPIRES_IN = "no-expires-in", "The token does not say how long it lives"
    EXPIRES_IN_10 = "expires-in-10", f"The token expires in {EXPIRES_IN} seconds"
    SERVER_ERROR = "server-error", "Acme sends an error back"
    HTML_ERROR = "html-error", "Acme answers with an error page"
    REVOKED = "revoked", "The token is revoked at once"


def split_login(login: str) -> tuple[str, Scenario | None]:
    """Split a login into the customer's name and the scenario after the +. Raises `ValueError` for an unknown one."""
    name, plus, scenario = login.partition("+")
    return name, Scenario(scenario) if plus else None


def choose(authorization_url: str, scenario: Scenario) -> None:
    """Store the scenario for the authorization request that the consumer signs in for."""
    for state in parse_qs(urlsplit(authorization_url).query).get("state", []):
        cache.set(_of_state(state), scenario.value, SECONDS_TO_KEEP)


def chosen(state: str) -> Scenario:
    return Scenario(cache.get(_of_state(state), Scenario.SIGN_IN))


def pass_on_to_code(redirect_url: str, scenario: Scenario) -> None:
    """Store the scenario for the code in the authorization response, if it contains one."""
    for code in parse_qs(urlsplit(redirect_url).query).get("code", []):
        cache.set(_of_code(code), scenario.value, SECONDS_TO_KEEP)


def of_code(code: str) -> Scenario:
    return Scenario(cache.get(_of_code(code), Scenario.SIGN_IN))


def _of_state(state: str) -> str:
    return f"scenario of the state {state}"


def _of_code(code: str) -> str:
    return f"scenario of the code {code}"
