"""The table of a run, and its place in docs/operator.md."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.machine import description
from bench.processes import ROOT
from bench.publishing import markdown, write_between_marks
from drills.promises import Drill, Outcome, broken

PAGE: Final = ROOT / "docs" / "operator.md"
BEGIN: Final = "<!-- drills: written by `make drills ARGS=--publish` -->"
END: Final = "<!-- end of drills -->"
HEADINGS: Final = (
    "drill", "promise", "journeys", "errors", "tokens lost", "audit rows lost", "webhooks lost", "orphans",
    "recovered after", "",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A drill and its outcome; or the reason why it was skipped, or why it could not be carried through."""

    drill: Drill
    outcome: Outcome | None = None
    skipped: str = ""
    failed: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether the promise was not kept, or cannot be told. A skipped drill has not been tried."""
        return bool(self.failed) or (self.outcome is not None and bool(broken(self.drill, self.outcome)))

    def row(self) -> Sequence[str]:
        """Return the cells of this drill's line."""
        name, promise = f"`{self.drill.name}`", self.drill.promise
        if self.outcome is None:
            return (
                name,
                promise,
                *["-"] * 7,
                f"**failed**: {self.failed}" if self.failed else f"skipped: {self.skipped}",
            )
        found, lost = self.outcome, self.outcome.lost
        errors = ", ".join(f"{count} x {status}" for status, count in sorted(found.errors.items())) or "none"
        recovered = "never" if found.recovered_after is None else f"{found.recovered_after:.1f} s"
        verdict = "; ".join(broken(self.drill, found))
        orphans = f"{lost.orphans} ({lost.announced} in the log)" if lost.announced else str(lost.orphans)
        counts = (lost.tokens, lost.audit_rows, lost.webhooks, orphans)
        return (
            name, promise, str(found.done), errors, *map(str, counts), recovered,
            f"**broken**: {verdict}" if verdict else "kept",
        )  # fmt: skip


def as_markdown(results: Iterable[Result]) -> str:
    return markdown(HEADINGS, [result.row() for result in results])


def publish(results: Sequence[Result], order: Sequence[str], page: Path = PAGE) -> None:
    """Write the table between the marks of the operators' page, with date and machine.

    Rows of drills that were not run now stay as they are. `order` are the names of all drills.
    """
    facts = ", ".join(value for name, value in description().items() if name in {"processor", "memory", "system"})
    began = f"Last run on {datetime.now(UTC):%Y-%m-%d}; {facts}."
    rows = _published(page) | {result.drill.name: result.row() for result in results}
    kept = [rows[name] for name in order if name in rows]
    write_between_marks(page, [began, markdown(HEADINGS, kept)], BEGIN, END)


def _published(page: Path) -> dict[str, Sequence[str]]:
    """Return the rows of the page's table by the name of their drill."""
    table = page.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells for cells in rows}
