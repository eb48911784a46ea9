"""Send every hostile token answer over TLS, and write the outcomes into docs/measured/security.md.

`python -m tests.brands.security_table` rewrites the table and the totals in docs/security.md. `test_security_table.py`
fails if they are out of date.
"""

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import django
import time_machine
from django.test import override_settings

from infrastructure.crypto import Secret
from oauth_client import AuthorizationServerError, ClientCredentials, ServerConfiguration, TokenResponse, exchange_code
from tests.brands.token_refusal_rows import Row
from tests.brands.token_response_rows import ROWS
from tests.hostile_token_endpoint import ACCESS_TOKEN, HostileTokenEndpoint, running
from tests.tls import Authority

SUMMARY: Final = Path(__file__).parent.parent.parent / "docs" / "security.md"
DOCUMENT: Final = SUMMARY.parent / "measured" / "security.md"
BEGIN: Final = "<!-- token answers: written by python -m tests.brands.security_table -->"
END: Final = "<!-- end of token answers -->"
NOW: Final = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ABOUT: Final = {
    "E1": "HTTP status other than 200",
    "E2": "200 with an error",
    "E3": "form encoding",
    "E4": "content type and charset",
    "E5": "JSON that is no object, or has a member twice",
    "E6": "`access_token`",
    "E7": "`token_type`",
    "E8": "no `expires_in`",
    "E9": "`expires_in` of zero, negative or another type",
    "E10": "`expires_in` as text or fraction",
    "E11": "very long lifetimes",
    "E12": "`expires_at`",
    "E13": "narrower `scope`",
    "E14": "wider, missing or unusual `scope`",
    "E15": "`refresh_token`",
    "E16": "ID token",
    "E20": "no HTTP",
    "N4": "redirects",
    "N7": "size and compression",
}
# Longest text of a table cell.
_SHOWN: Final = 100
USUAL: Final = {
    "access_token": ACCESS_TOKEN,
    "scope": "orders.read profile",
    "scope_widened": False,
    "lifetime": 3600 - 30,
    "lifetime_assumed": False,
}


@dataclass(frozen=True)
class Outcome:
    """The outcome of an answer in words, and whether its row expects it."""

    row: Row
    words: str
    is_expected: bool


def play(row: Row, endpoint: HostileTokenEndpoint) -> Outcome:
    """Exchange a code at a server that sends this row's answer."""
    endpoint.play(row.answer)
    configuration = ServerConfiguration(
        authorization_endpoint="https://login.acme.example/authorize",
        token_endpoint=endpoint.url,
        client_id="consumer-delegation",
        redirect_uri="https://delegation.test/callback/acme-orders",
        **{"scope": "orders.read profile", **row.configured},
    )
    try:
        with time_machine.travel(NOW, tick=False):
            granted = exchange_code(
                configuration,
                code=Secret("a-code"),
                code_verifier=Secret("a-verifier"),
                credentials=ClientCredentials(Secret("a-secret")),
            )
        granted.check_required_scope(configuration)
    except AuthorizationServerError as error:
        words = f"refused, `{error.error}`: {error.detail}"
        return Outcome(row, words, (error.error, error.detail) == (row.error, row.detail))
    return Outcome(row, _kept(granted), not row.error and _facts(granted) == {**USUAL, **row.facts})


def table(outcomes: list[Outcome]) -> str:
    """The section of the full document, between its two marks."""
    head = ["| row | the answer of the token endpoint | what we did with it |", "|---|---|---|"]
    return _between_marks([*head, *[_line(outcome) for outcome in outcomes], "", _totals(outcomes)])


def summary(outcomes: list[Outcome]) -> str:
    """The section of the summary: a row for each requirement, between the same marks."""
    head = ["| row | about | answers | refused | kept |", "|---|---|---|---|---|"]
    lines = []
    for name, about in ABOUT.items():
        those = [outcome for outcome in outcomes if _requirement(outcome) == name]
        lines.append(f"| {name} | {about} | {len(those)} | {_refused(those)} | {len(those) - _refused(those)} |")
    return _between_marks([*head, *lines, "", _totals(outcomes)])


def _between_marks(lines: list[str]) -> str:
    return "\n".join([BEGIN, "", *lines, "", END])


def _requirement(outcome: Outcome) -> str:
    return outcome.row.id.partition(" ")[0]


def _refused(outcomes: list[Outcome]) -> int:
    return sum(outcome.words.startswith("refused") for outcome in outcomes)


def _totals(outcomes: list[Outcome]) -> str:
    refused, unexpected = _refused(outcomes), sum(not outcome.is_expected for outcome in outcomes)
    return f"{len(outcomes)} answers: {refused} refused, {len(outcomes) - refused} kept, {unexpected} unexpected."


def section(document: str) -> str:
    """The section in the document, its marks included."""
    return BEGIN + document.partition(BEGIN)[2].partition(END)[0] + END


def main() -> None:
    """Try every row and replace both sections."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        trusted = override_settings(OUTBOUND_CA_FILE=str(authority.ca_file), ALLOW_LOCAL_ENDPOINTS=True)
        with trusted, running(authority.issue()) as endpoint:
            outcomes = [play(row, endpoint) for row in ROWS]
    for document, written in ((DOCUMENT, table(outcomes)), (SUMMARY, summary(outcomes))):
        text = document.read_text(encoding="utf-8")
        document.write_text(text.replace(section(text), written), encoding="utf-8")


def _line(outcome: Outcome) -> str:
    answer = outcome.row.id.partition(" ")[2]
    unexpected = "" if outcome.is_expected else "**unexpected**: "
    return f"| {_requirement(outcome)} | {answer} | {unexpected}{outcome.words} |"


def _facts(granted: TokenResponse) -> dict[str, object]:
    return {
        "access_token": granted.access_token.reveal(),
        "scope": granted.scope,
        "scope_widened": granted.scope_widened,
        "lifetime": (granted.expires_at - NOW).total_seconds(),
        "lifetime_assumed": granted.lifetime_assumed,
    }


def _kept(granted: TokenResponse) -> str:
    assumed = ", assumed" if granted.lifetime_assumed else ""
    widened = ", more than was asked for" if granted.scope_widened else ""
    scope = f"`{granted.scope}`" if granted.scope else "none"
    scope = scope if len(scope) < _SHOWN else f"of {len(granted.scope)} characters"
    seconds = int((granted.expires_at - NOW).total_seconds())
    return f"kept for {seconds} s{assumed}; scope {scope}{widened}"


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    main()
