"""Every hostile token answer and what we did with it, played over TLS and written into docs/security.md.

`python -m tests.brands.security_table` writes the table anew; `test_security_table.py` fails while it is out of date.
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

DOCUMENT: Final = Path(__file__).parent.parent.parent / "docs" / "security.md"
BEGIN: Final = "<!-- token answers: written by python -m tests.brands.security_table -->"
END: Final = "<!-- end of token answers -->"
NOW: Final = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
# What a cell of the table can hold.
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
    """What an answer came to, in words, and whether that is what its row demands."""

    row: Row
    words: str
    is_expected: bool


def play(row: Row, endpoint: HostileTokenEndpoint) -> Outcome:
    """Exchange a code at a server that answers with this row."""
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
    """Return the section of the document, between its two marks."""
    unexpected = sum(not outcome.is_expected for outcome in outcomes)
    refused = sum(outcome.words.startswith("refused") for outcome in outcomes)
    lines = [
        BEGIN,
        "",
        "| row | the answer of the token endpoint | what we did with it |",
        "|---|---|---|",
        *[_line(outcome) for outcome in outcomes],
        "",
        f"{len(outcomes)} answers: {refused} refused, {len(outcomes) - refused} kept, {unexpected} unexpected.",
        "",
        END,
    ]
    return "\n".join(lines)


def section(document: str) -> str:
    """Return the section that a document holds, its marks included."""
    return BEGIN + document.partition(BEGIN)[2].partition(END)[0] + END


def main() -> None:
    """Play every row and replace the section."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        trusted = override_settings(OUTBOUND_CA_FILE=str(authority.ca_file), ALLOW_LOCAL_ENDPOINTS=True)
        with trusted, running(authority.issue()) as endpoint:
            written = table([play(row, endpoint) for row in ROWS])
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(document.replace(section(document), written), encoding="utf-8")


def _line(outcome: Outcome) -> str:
    number, _, answer = outcome.row.id.partition(" ")
    unexpected = "" if outcome.is_expected else "**unexpected**: "
    return f"| {number} | {answer} | {unexpected}{outcome.words} |"


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
