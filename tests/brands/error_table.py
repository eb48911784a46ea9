"""The table of codes, written into docs/brand-admin.md: `python -m tests.brands.error_table`.

`test_error_table.py` fails while the document is out of date.
"""

from pathlib import Path
from typing import Final

from oauth_client.error_codes import MEANINGS, ConsumerPage, Meaning
from oauth_client.unregistered_codes import AUTHORIZATION_CODES, CANCEL_CODES, ENDPOINT_CODES

DOCUMENT: Final = Path(__file__).parent.parent.parent / "docs" / "brand-admin.md"
BEGIN: Final = "<!-- codes: written by python -m tests.brands.error_table -->"
END: Final = "<!-- end of codes -->"
HEADINGS: Final = {
    ConsumerPage.NONE: "nothing",
    ConsumerPage.ASSURANCE_NOT_MET: "A stronger sign-in is needed",
    ConsumerPage.CANNOT_SIGN_IN: "You cannot sign them in right now",
    ConsumerPage.DENIED: "They are not signed in",
    ConsumerPage.MISSING_PERMISSION: "One permission was missing",
    ConsumerPage.NOT_ANSWERING: "You are not answering right now",
    ConsumerPage.NOT_COMPLETED: "That sign-in did not work",
    ConsumerPage.OTHER_CONVERSATION: "This sign-in was for another chat",
    ConsumerPage.OTHER_PERSON: "That was another account",
    ConsumerPage.TOO_MANY_CODES: "Too many wrong codes",
}


def table() -> str:
    """Build the section of the document between its two marks."""
    head = ["| code | the consumer reads | another try | cause | what mends it |", "|---|---|---|---|---|"]
    lines = [_line(code, MEANINGS[code]) for code in sorted(MEANINGS)]
    cancels = ", ".join(f"`{code}`" for code in sorted(CANCEL_CODES))
    said = f"Heard as the consumer's no, as `access_denied` is: {cancels}, and your *Denial codes*."
    return "\n".join([BEGIN, "", *head, *lines, "", said, "", END])


def section(document: str) -> str:
    """Return the section that a document contains now, with its marks."""
    return BEGIN + document.partition(BEGIN)[2].partition(END)[0] + END


def _line(code: str, row: Meaning) -> str:
    named = sorted({*AUTHORIZATION_CODES.items(), *ENDPOINT_CODES.items()})
    also = ", ".join(f"`{name}`" for name, meant in named if meant == code and name != code)
    again = "helps" if row.another_try_helps else "-"
    return f"| `{code}`{f' ({also})' if also else ''} | {HEADINGS[row.page]} | {again} | {row.cause} | {row.remedy} |"


def main() -> None:
    """Replace the section in the document."""
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(document.replace(section(document), table()), encoding="utf-8")


if __name__ == "__main__":
    main()
