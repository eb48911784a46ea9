"""What the readme has to tell people, since no code can do it for them."""

from pathlib import Path
from typing import Final

README: Final = " ".join((Path(__file__).parent.parent / "README.md").read_text().split())


def test_integrators_are_told_to_open_the_link_in_the_system_browser() -> None:
    """B19: an embedded web view lets its app read the password, and some servers block it."""
    assert "**Open the link in the system browser**" in README
    assert "embedded web view" in README
    assert "RFC 8252 section 8.12" in README
