"""The set-up doctor: tests an authorization server as a sign-in would use it.

To distinguish what is proven, it sends a second request as a control: the same token request with a wrong
secret, the same authorization request with a redirect URI that is not registered. If both get the same answer, only a
sign-in can tell. A run sends at most 16 requests, each with a made-up code or token, or without a consumer, and stores
nothing. A server that demands a new nonce for each proof (DPoP) gets those with a proof twice. Our secret goes to no
other host than in a sign-in.
"""

from collections.abc import Iterator
from typing import Final

from brands.doctor.authorization_endpoint import PAR, authorization_endpoint
from brands.doctor.bounded import AnotherRun, run_within_bounds
from brands.doctor.examination import Examination, Step, Unanswered, label_of
from brands.doctor.findings import Finding, found
from brands.doctor.health_check import CheckResult, run_health_check
from brands.doctor.metadata import keys, metadata
from brands.doctor.subject_endpoint import introspection, userinfo
from brands.doctor.table import Side, Verdict
from brands.doctor.token_endpoint import token_endpoint
from brands.models import AuthorizationServer
from infrastructure.crypto import DecryptionError

__all__ = [
    "AnotherRun", "CheckResult", "Finding", "Side", "Verdict", "examine", "examine_within_bounds", "found", "label_of",
    "run_health_check",
]  # fmt: skip

# The steps are independent of each other.
_STEPS: Final = (
    Step("The published metadata", "issuer", metadata, Verdict.NOTE),
    Step("The keys for ID tokens", "jwks_uri", keys),
    Step("The token endpoint", "token_endpoint", token_endpoint),
    Step("Who signed in, by the userinfo endpoint", "userinfo_endpoint", userinfo),
    Step("Who signed in, by introspection", "introspection_endpoint", introspection),
    Step("The authorization endpoint", "authorization_endpoint", authorization_endpoint),
)
# The step's first call is to the endpoint for pushed requests, if there is one: a missing answer is about that field.
_PUSHED: Final = (*_STEPS[:-1], Step("The endpoint for pushed requests", PAR, authorization_endpoint))


def _steps_for(server: AuthorizationServer) -> tuple[Step, ...]:
    return _PUSHED if server.pushed_authorization_request_endpoint else _STEPS


def examine(server: AuthorizationServer) -> Iterator[Finding]:
    """Run all steps for the operator, with the reason of each missing answer. Blocks for up to two minutes."""
    try:
        examination = Examination.of(server)
    except DecryptionError:
        yield found("secret_unreadable")
        return
    for step in _steps_for(server):
        yield from _take(step, examination)


def _take(step: Step, examination: Examination) -> list[Finding]:
    """Run one step to its end: a generator that is suspended would leave its caller in the brand's networks."""
    findings: list[Finding] = []
    try:
        with examination.server.in_private_networks():
            for finding in step.run(examination):
                findings.append(finding)  # noqa: PERF402  what was found before an error counts
    except Unanswered as unanswered:
        findings.append(unanswered.finding())
    return findings


def examine_within_bounds(server: AuthorizationServer) -> list[Finding]:
    """Run all steps for a brand's admin (N9). Blocks for up to 20 seconds. Raises `AnotherRun`."""
    try:
        return run_within_bounds(Examination.of(server), _steps_for(server))
    except DecryptionError:
        return [found("secret_unreadable")]
