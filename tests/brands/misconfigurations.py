"""Twenty-five mistakes of a set-up, and what names each: `python -m tests.brands.misconfigurations` writes the table.

`test_misconfigurations.py` makes each mistake at a server over the wire. To add a column, give `Mistake` a field and
`COLUMNS` a heading; a column without entries is left out.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import django

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "measured" / "misconfigurations.md"
NOT_YET: Final = "nothing: it shows at the first sign-in"
# What a finding's words have in place of these depends on the server.
_FILLED_IN: Final = {
    "detail": "*(what the server says, and what is configured)*",
    "effect": "*(whether sign-ins fail)*",
    "error": "",
    "method": "*(another method)*",
    "algorithms": "*(the algorithms)*",
    "seconds": "*(so many)*",
}
COLUMNS: Final = {"doctor": "the doctor", "sign_in": "a test sign-in", "timeline": "the timeline"}


@dataclass(frozen=True)
class Mistake:
    """`doctor` has the codes of the findings that are not good, as the admin's page shows them."""

    name: str
    doctor: tuple[str, ...]
    sign_in: tuple[str, ...] = ()
    timeline: tuple[str, ...] = ()


MISTAKES: Final = (
    Mistake("wrong secret", ("client_refused",)),
    Mistake("wrong authentication method", ("client_method_differs",)),
    Mistake("redirect URI not registered", ("client_or_redirect_uri_refused",)),
    Mistake("another issuer", ("issuer_differs",)),
    Mistake("issuer with a slash too many", ("issuer_differs",)),
    Mistake("well-known address as issuer", ("issuer_is_metadata_address",)),
    Mistake("expired certificate", ("certificate_expired",)),
    Mistake("certificate of an unknown CA", ("certificate_unknown_ca",)),
    Mistake("no PKCE at the server", ("pkce_not_announced",)),
    Mistake("PKCE refused", ("pkce_refused",)),
    Mistake("pushed requests refused for this client", ("push_refused",)),
    Mistake("error as HTML", ("token_endpoint_error_page",)),
    Mistake("error as JSON of the type text/plain", ("token_content_type",)),
    Mistake("error with status 200", ("client_refused",)),
    Mistake("clock 10 minutes ahead", ("clock_differs",)),
    Mistake("private address", ("no_answer",)),
    Mistake("no key that fits", ("keys_missing",)),
    Mistake("wrong token_type", ()),
    Mistake("scope not granted", ()),
    Mistake("no expires_in", ()),
    Mistake("consent refused by a policy", ()),
    Mistake("token endpoint too slow", ("no_answer",)),
    Mistake("token endpoint redirects", ("token_endpoint_redirects",)),
    Mistake("wrong ID token algorithm", ("algorithm_not_announced", "keys_missing")),
    Mistake("client disabled", ("client_refused",)),
)


def document(rows_of_doctor: Mapping[str, Any]) -> str:
    """Return the whole file. Each of the doctor's codes has a row with its meaning."""
    shown = {name: heading for name, heading in COLUMNS.items() if any(getattr(one, name) for one in MISTAKES)}
    head = ["mistake", *shown.values()]
    rows = [[one.name, *(_cell(getattr(one, name)) for name in shown)] for one in MISTAKES]
    return "\n".join(
        [
            "# Mistakes of a set-up, and what names each",
            "",
            "Results, written by `python -m tests.brands.misconfigurations`. Each mistake is made at a server, and",
            "tests compare. The doctor's codes are those of a brand admin's page; the operator's `check_brand` names",
            "the reason in place of `no_answer`.",
            "",
            *_table(head, rows),
            "",
            "What the doctor's codes say:",
            "",
            *_table(
                ["code", "what it means"], [[f"`{code}`", _meaning(rows_of_doctor[code].meaning)] for code in _codes()]
            ),
            "",
        ]
    )


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values) or NOT_YET


def _codes() -> list[str]:
    return sorted({code for one in MISTAKES for code in one.doctor})


def _meaning(words: str) -> str:
    for name, shown in _FILLED_IN.items():
        words = words.replace(f"{{{name}}}", shown)
    return words.strip()


def main() -> None:
    """Write the document."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    rows = import_module("brands.doctor.findings").ROWS  # it needs Django's models
    DOCUMENT.write_text(document(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
