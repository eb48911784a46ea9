"""Twenty-five mistakes of a set-up, and what names each: `python -m tests.brands.misconfigurations` writes the table.

`test_misconfigurations.py` makes each mistake at a server over the wire. To add a column, give `Mistake` a field and
`COLUMNS` a heading.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import django

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "measured" / "misconfigurations.md"
NOTHING: Final = {
    "doctor": "nothing: it shows at the first sign-in",
    "sign_in": "nothing: it signs in",
    "timeline": "nothing: it signs in",
}
# What a finding's words have in place of these depends on the server.
_FILLED_IN: Final = {
    "detail": "*(what the server says, and what is configured)*",
    "effect": "*(whether sign-ins fail)*",
    "error": "",
    "method": "*(another method)*",
    "algorithms": "*(the algorithms)*",
    "seconds": "*(so many)*",
}
COLUMNS: Final = {"doctor": "the doctor", "sign_in": "a trial sign-in", "timeline": "the timeline"}


@dataclass(frozen=True)
class Mistake:
    """What the admin's pages show: codes of errors, or in words what is noted. Empty: nothing but good steps.

    `doctor` has the codes of the findings that are not good, `sign_in` those of a trial sign-in, and `timeline` those
    of a consumer's sign-in on the conversation's page, None if they are the same.
    """

    name: str
    doctor: tuple[str, ...]
    sign_in: tuple[str, ...] = ()
    timeline: tuple[str, ...] | None = None

    def shown_by(self, column: str) -> tuple[str, ...]:
        """What one column of the table has."""
        found: tuple[str, ...] | None = getattr(self, column)
        return self.sign_in if found is None else found


MISTAKES: Final = (
    Mistake("wrong secret", ("client_refused",), ("invalid_client",)),
    Mistake("wrong authentication method", ("client_method_differs",), ("invalid_client",)),
    Mistake(
        "redirect URI not registered",
        ("client_or_redirect_uri_refused",),
        ("nothing came back",),
        ("nothing came back",),
    ),
    Mistake("another issuer", ("issuer_differs",), ("issuer_mismatch",)),
    Mistake("issuer with a slash too many", ("issuer_differs",), ("issuer_mismatch",)),
    Mistake(
        "well-known address as issuer", ("issuer_is_metadata_address",), ("issuer_mismatch",), ("issuer_mismatch",)
    ),
    Mistake(
        "expired certificate",
        ("certificate_expired",),
        ("token_endpoint_unreachable",),
        ("token_endpoint_unreachable",),
    ),
    Mistake(
        "certificate of an unknown CA",
        ("certificate_unknown_ca",),
        ("token_endpoint_unreachable",),
        ("token_endpoint_unreachable",),
    ),
    Mistake("no PKCE at the server", ("pkce_not_announced",), ()),
    Mistake("PKCE refused", ("pkce_refused",), ("invalid_client",)),
    Mistake(
        "pushed requests refused for this client", ("push_refused",), ("unauthorized_client",), ("unauthorized_client",)
    ),
    Mistake("error as HTML", ("token_endpoint_error_page",), ("token_request_refused",)),
    Mistake(
        "error as JSON of the type text/plain",
        ("token_content_type",),
        ("invalid_token_response",),
        ("invalid_token_response",),
    ),
    Mistake("error with status 200", ("client_refused",), ("invalid_client",)),
    Mistake("clock 10 minutes ahead", ("clock_differs",), ("invalid_id_token",)),
    Mistake("private address", ("no_answer",), ("token_endpoint_unreachable",)),
    Mistake("no key that fits", ("keys_missing",), ("invalid_id_token",)),
    Mistake("wrong token_type", (), ("invalid_token_response",)),
    Mistake("scope not granted", (), ("scope not granted",)),
    Mistake("no expires_in", (), ("lifetime assumed",)),
    Mistake("consent refused by a policy", (), ("access_denied",)),
    Mistake("token endpoint too slow", ("no_answer",), ("token_endpoint_timeout",)),
    Mistake(
        "token endpoint redirects",
        ("token_endpoint_redirects",),
        ("invalid_token_response",),
        ("invalid_token_response",),
    ),
    Mistake(
        "wrong ID token algorithm",
        ("algorithm_not_announced", "keys_missing"),
        ("invalid_id_token",),
        ("invalid_id_token",),
    ),
    Mistake("client disabled", ("client_refused",), ("unauthorized_client",)),
)


def document(rows_of_doctor: Mapping[str, Any]) -> str:
    """Return the whole file. Each of the doctor's codes has a row with its meaning."""
    head = ["mistake", *COLUMNS.values()]
    rows = [[one.name, *(_cell(name, one.shown_by(name)) for name in COLUMNS)] for one in MISTAKES]
    return "\n".join(
        [
            "# Mistakes of a set-up, and what names each",
            "",
            "Results, written by `python -m tests.brands.misconfigurations`. Each mistake is made at a server, and",
            "tests compare. The doctor's codes are those of a brand admin's page; the operator's `check_brand` names",
            "the reason in place of `no_answer`. The other columns have the codes of a failed sign-in, which",
            "[brand-admin.md](../brand-admin.md#when-a-sign-in-fails) explains. The pages show the detail, too, such",
            "as both issuers or what is wrong with a certificate. By one answer, nobody can tell a wrong secret from",
            "a refused method or, at LinkedIn, a refused `code_verifier`. The doctor can: it tries the other ways.",
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


def _cell(column: str, values: tuple[str, ...]) -> str:
    return ", ".join(value if " " in value else f"`{value}`" for value in values) or NOTHING[column]


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
    rows = import_module("brands.doctor.table").ROWS  # it needs Django's models
    DOCUMENT.write_text(document(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
