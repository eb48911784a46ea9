"""The harmless part of the doctor, which the worker runs once a day: metadata, keys, TLS and clock.

It signs nobody in and proves nothing about our client: it sends no token request, no authorization request and no
credentials, and decrypts nothing. So it cannot lock a client, and there is nothing that a server could take. It is
bounded as a run of an admin is: the moment at which a brand learns that its server fails must not tell a blocked
address from one that does not answer (N9).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from brands.doctor.bounded import run_within_bounds
from brands.doctor.clock import clock
from brands.doctor.examination import Examination, Step, Unanswered, label_of
from brands.doctor.findings import Finding
from brands.doctor.metadata import keys, metadata
from brands.doctor.table import Verdict
from brands.models import AuthorizationServer, ServerProblem
from oauth_client import transport

# The worker ends within 20 seconds, what it has begun included.
SECONDS: Final = 10.0
# Problems with which sign-ins go on: a protection is missing. The doctor's page names them; nothing broke.
_NOTHING_BROKE: Final = frozenset({"iss_not_asked_for", "pkce_not_supported"})
# Notes for somebody who can press the button again. Here two checks, minutes apart, find the same.
_BROKEN_IF_IT_LASTS: Final = frozenset({"keys_busy"})
# We call all but the last. Only browsers call the last, perhaps from a network that ours is not in.
_FIELDS: Final = {
    "token_endpoint": Verdict.PROBLEM,
    "pushed_authorization_request_endpoint": Verdict.PROBLEM,
    "userinfo_endpoint": Verdict.PROBLEM,
    "introspection_endpoint": Verdict.PROBLEM,
    "authorization_endpoint": Verdict.NOTE,
}


@dataclass(frozen=True)
class CheckResult:
    """What one check found. It proves nothing, good or bad, if a step could not be finished."""

    problems: list[ServerProblem]
    is_finished: bool


def run_health_check(server: AuthorizationServer) -> CheckResult:
    """Run the steps. Blocks for up to 10 seconds. Raises `AnotherRun`."""
    steps = (
        Step("The published metadata", "issuer", metadata, Verdict.NOTE),
        Step("The keys for ID tokens", "jwks_uri", keys),
        *_hosts(server),
    )
    findings = run_within_bounds(Examination.without_secrets(server), steps, SECONDS)
    broken = [_problem(finding) for finding in findings if _breaks_sign_ins(finding)]
    return CheckResult(broken, is_finished=not any(finding.code == "unfinished" for finding in findings))


def _breaks_sign_ins(finding: Finding) -> bool:
    if finding.code in _BROKEN_IF_IT_LASTS:
        return True
    return finding.verdict == Verdict.PROBLEM and finding.code not in _NOTHING_BROKE


def _problem(finding: Finding) -> ServerProblem:
    label = label_of(finding.field) if finding.field else ""
    return ServerProblem(code=finding.code, label=label, meaning=finding.meaning, remedy=finding.remedy)


def _hosts(server: AuthorizationServer) -> Iterator[Step]:
    """Yield a step for each host of the endpoints; a host that several share is called once."""
    called = set()
    for field, unanswered in _FIELDS.items():
        origin = _origin(getattr(server, field))
        if origin and origin not in called:
            called.add(origin)
            yield Step(f"The host of the {label_of(field).lower()}", field, _host(field, origin), unanswered)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/" if url else ""


def _host(field: str, origin: str) -> Callable[[Examination], Iterator[Finding]]:
    def host(examination: Examination) -> Iterator[Finding]:
        """Ask for the head of the host's first page: that proves TLS, and tells the time. Any status will do."""
        try:
            with transport.GuardedSession() as session:
                response = session.head(origin, headers={"Cache-Control": "no-cache"})
        except transport.OutboundError as error:
            raise Unanswered(error, field, f"HEAD {origin}") from None
        examination.heard()
        # The issuer signs ID tokens where it answers token requests. A cache repeats an old `Date`, and says its age.
        if field == "token_endpoint" and "Age" not in response.headers:
            yield from clock(examination, response.headers.get("Date", ""))

    return host
