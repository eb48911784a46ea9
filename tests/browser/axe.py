"""Run axe-core on a page through the browser's debugger, so that our Content-Security-Policy stays unchanged."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

from tests.browser.pictures import Look, show_as

# All of axe's rules for WCAG 2.2 AA, and its best practices. Nothing is loaded again: the policy would refuse it.
OPTIONS: Final[dict[str, Any]] = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations", "incomplete"],
    "preload": False,
}
_RUN: Final = """async ([without, options, undecided]) => {
    const found = await axe.run(without ? {exclude: [without]} : document, options)
    const told = results => results.flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html}`))
    return told(found.violations).concat(undecided ? told(found.incomplete) : [])
}"""


@dataclass(frozen=True)
class Axe:
    """The library's source."""

    source: str = field(repr=False)

    @classmethod
    def installed_in(cls, node_modules: Path) -> "Axe | None":
        """Read the library; None if it is not installed."""
        file = node_modules / "axe-core" / "axe.min.js"
        return cls(file.read_text()) if file.exists() else None

    def findings(
        self, page: Page, looks: Iterable[Look], without: str = "", *, undecided: bool = True
    ) -> dict[str, list[str]]:
        """For each look, every rule that an element of the page breaks, or that axe could not decide.

        `without` selects an element that is left out. `undecided=False` leaves out what axe could not decide, such as
        the contrast of a text beside an icon.
        """
        return {look.name: self._findings(page, look, without, undecided=undecided) for look in looks}

    def _findings(self, page: Page, look: Look, without: str, *, undecided: bool) -> list[str]:
        show_as(page, look)
        if page.evaluate("typeof axe") == "undefined":
            page.evaluate(f"() => {{ {self.source} }}")
        return list(page.evaluate(_RUN, [without, OPTIONS, undecided]))
