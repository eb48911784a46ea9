"""docs/security.md and docs/measured/security.md contain what the tests observe."""

from tests.brands.security_table import ABOUT, DOCUMENT, END, SUMMARY, play, section, summary, table
from tests.brands.token_response_rows import ROWS
from tests.hostile_token_endpoint import HostileTokenEndpoint


def test_the_table_of_hostile_token_answers_is_up_to_date(endpoint: HostileTokenEndpoint) -> None:
    """E1 to E16, N4, N7, E20: every answer is played; after a change run `python -m tests.brands.security_table`."""
    outcomes = [play(row, endpoint) for row in ROWS]

    assert [outcome.row.id for outcome in outcomes if not outcome.is_expected] == []
    assert section(DOCUMENT.read_text(encoding="utf-8")) == table(outcomes)
    assert section(SUMMARY.read_text(encoding="utf-8")) == summary(outcomes)


def test_the_summary_leaves_no_row_out() -> None:
    assert {row.id.partition(" ")[0] for row in ROWS} == ABOUT.keys()


def test_an_answer_that_is_treated_otherwise_is_called_unexpected(endpoint: HostileTokenEndpoint) -> None:
    row = next(row for row in ROWS if row.error)
    accepted = type(row)(row.id, row.answer, "", "")

    written = table([play(accepted, endpoint)])

    assert "**unexpected**" in written
    assert written.endswith(f"1 answers: 1 refused, 0 kept, 1 unexpected.\n\n{END}")
