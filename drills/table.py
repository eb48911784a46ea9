"""The table of a run, and its place in docs/operator.md."""

import subprocess
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
    "drill", "promise", "sign-ins", "errors", "tokens lost", "audit rows lost", "webhooks lost", "webhooks late",
    "orphans", "recovered after", "", "load", "code",
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
        """Return the cells of this drill's line, but for the code that was run."""
        name, promise = f"`{self.drill.name}`", self.drill.promise
        if self.outcome is None:
            verdict = f"**failed**: {self.failed}" if self.failed else f"skipped: {self.skipped}"
            return (name, promise, *["-"] * 8, verdict, "-")
        found, lost = self.outcome, self.outcome.lost
        errors = ", ".join(f"{count} x {status}" for status, count in sorted(found.errors.items())) or "none"
        recovered = "never" if found.recovered_after is None else f"{found.recovered_after:.1f} s"
        verdict = "; ".join(broken(self.drill, found))
        late = f"{found.late} (slowest {found.slowest:.1f} s)"
        orphans = f"{lost.orphans} of {self.drill.most_orphans} allowed" if lost.orphans else "0"
        return (
            name, promise, f"{found.done} ({found.per_second:.1f}/s)", errors,
            str(lost.tokens), str(lost.audit_rows), str(lost.webhooks), late, orphans, recovered,
            f"**broken**: {verdict}" if verdict else "kept", f"{found.load:.0f}",
        )  # fmt: skip


def exit_status(results: Sequence[Result], *, is_ci: bool) -> int:
    """Return 0 if a drill ran and each that ran kept its promise; a control run alone counts if nothing else was asked.

    In CI a skipped drill is a failure.
    """
    faults = [result for result in results if not result.drill.is_control]
    nothing_ran = not any(result.outcome for result in faults or results)
    is_skip_wrong = is_ci and any(result.skipped for result in results)
    return int(nothing_ran or is_skip_wrong or any(result.is_broken for result in results))


def as_markdown(results: Iterable[Result]) -> str:
    return markdown(HEADINGS[:-1], [result.row() for result in results])


def code() -> str:
    """Return the commit that is run, with a `+` if files differ from it (but for the page with the table)."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PAGE.relative_to(ROOT)}")
    return f"{commit or 'unknown'}{'+' if changed else ''}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def publish(results: Sequence[Result], order: Sequence[str], head: str, version: str, page: Path = PAGE) -> None:
    """Write the table between the marks of the operators' page, with date, machine and load (`head`).

    Rows of drills that were not run now stay as they are: `version` says which code each row is of. `order` are the
    names of all drills.
    """
    facts = ", ".join(value for name, value in description().items() if name in {"processor", "memory", "system"})
    began = f"Last run on {datetime.now(UTC):%Y-%m-%d}; {facts}. {head}."
    now = {result.drill.name: (*result.row(), version) for result in results}
    rows = _published(page) | now
    kept = [rows[name] for name in order if name in rows]
    write_between_marks(page, [began, markdown(HEADINGS, kept)], BEGIN, END)


def _published(page: Path) -> dict[str, Sequence[str]]:
    """Return the rows of the page's table by the name of their drill."""
    table = page.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells for cells in rows if len(cells) == len(HEADINGS)}
