"""What the addresses of links and receipts look like, and which one was meant by an address that was damaged.

Chats, mail programs and people add to a link: a full stop, a bracket, a space that cannot be seen, `&utm=1`. What was
meant is told by its shape alone and never looked up, so that live, ended and unknown links go the same way (G9).
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import ClassVar, Final
from urllib.parse import unquote

from django.urls import reverse

_ALPHABET: Final = "A-Za-z0-9_-"


class LinkToken:
    """A link's token in an address, as Django's path converters are written: 20 random bytes (A5)."""

    length = 27
    regex = f"[{_ALPHABET}]{{{length}}}"
    page = "link"
    steps: ClassVar = {
        step: step.replace("-", "_") for step in ("done", "cancel", "undo", "other-browser", "not-completed")
    }

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class ReceiptToken(LinkToken):
    """A receipt's token in an address: 32 bytes."""

    length = 43
    regex = f"[{_ALPHABET}]{{{length}}}"
    page = "receipt"
    steps: ClassVar = {"end": "end_by_receipt"}


_KINDS: Final = {"c": LinkToken, "r": ReceiptToken}
# Something stands before a link, or its slashes are still encoded. Other parts of the site keep their own addresses.
_SLASH: Final = r"(?:[/\\]|%(?:25)*(?:2[fF]|5[cC]))"
# Read in one go, since it is tried on addresses that strangers made up: nothing in it is tried again further on.
PREFIXED: Final = (
    rf"^(?!(?:admin|api|brands|health|static)/)(?=[\s\S]*?[{_ALPHABET}]{{{LinkToken.length}}})"
    rf"(?:[\s\S]*?(?:[^{_ALPHABET}]|{_SLASH}))??(?P<kind>[cCrR]){_SLASH}(?P<rest>[\s\S]*)\Z"
)
_DASHES: Final = re.compile("[\u2010-\u2015\u2212\ufe58]")
# Markdown escapes `_` and `-`, and browsers make a slash of a backslash; mail wraps a line with `=` at its end.
_ESCAPES: Final = re.compile(r"[\\/]+(?=[_-])|=(?=[\r\n])")
_INVISIBLE: Final = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


def clean_address(kind: str, rest: str) -> str | None:
    """Return our own address that was meant by `/{kind}/{rest}`; None where nothing in it has a token's shape."""
    token_kind = _KINDS[kind.lower()]
    for readable in _readings(rest):
        found = _token_in(readable, token_kind.length)
        if found:
            token, after = found
            step = re.match(rf"/+({'|'.join(token_kind.steps)})(?![{_ALPHABET}])", after, re.IGNORECASE)
            return reverse(token_kind.steps[step[1].lower()] if step else token_kind.page, args=[token])
    return None


def _readings(rest: str) -> Iterator[str]:
    """Yield what stands there; then what it may have been before something was put into the token itself.

    Full-width letters, a line's end or a soft hyphen, dashes that a writing program has made of one hyphen or of two.
    """
    yield rest
    mended = _ESCAPES.sub("", unicodedata.normalize("NFKC", unquote(rest)))
    mended = "".join(character for character in mended if unicodedata.category(character) not in _INVISIBLE)
    for hyphens in ("-", "--"):
        yield _DASHES.sub(hyphens, mended)


def _token_in(text: str, length: int) -> tuple[str, str] | None:
    """Return the token in a text and what follows it.

    A run of exactly its length, else the first longer one: without the marks around it (`_` and `-` are letters of
    tokens, and of Markdown), else its beginning.
    """
    runs = list(re.finditer(rf"[{_ALPHABET}]{{{length},}}", text))
    if not runs:
        return None
    run = next((run for run in runs if len(run[0]) == length), runs[0])
    return run[0][(start := _marks_before(run[0], length)) : start + length], text[run.end() :]


def _marks_before(run: str, length: int) -> int:
    """Return how many of the marks at a run's beginning are not its token's; 0 where marks do not say it."""
    before, behind = len(run) - len(run.lstrip("_-")), len(run) - len(run.rstrip("_-"))
    start = max(len(run) - length - behind, 0)
    return start if start <= before else 0
