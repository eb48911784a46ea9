"""The URLs of links and receipts, and how to find the intended URL in a damaged one.

Chats, mail programs and people add characters to a link: a full stop, a bracket, an invisible space, `&utm=1`. The
token is recognised by its form alone, without a look into the database. So the answer does not reveal whether a link is
open, ended or unknown (G9).
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import ClassVar, Final
from urllib.parse import unquote

from django.urls import reverse

_ALPHABET: Final = "A-Za-z0-9_-"
# A slash or a backslash, percent-encoded once or several times.
_SLASH: Final = r"(?:[/\\]|%(?:25)*(?:2[fF]|5[cC]))"
_DASHES: Final = re.compile("[\u2010-\u2015\u2212\ufe58]")
# Markdown escapes `_` and `-` with a backslash, which browsers turn into a slash. Mail ends a wrapped line with `=`.
_ESCAPES: Final = re.compile(r"[\\/]+(?=[_-])|=(?=[\r\n])")
_INVISIBLE: Final = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


class LinkToken:
    """Django path converter for a link token: 20 random bytes in base64url (A5). `steps` are the pages below it."""

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
    """Path converter for a receipt token: 32 random bytes in base64url."""

    length = 43
    regex = f"[{_ALPHABET}]{{{length}}}"
    page = "receipt"
    steps: ClassVar = {"end": "end_by_receipt"}


_KINDS: Final = {"c": LinkToken, "r": ReceiptToken}
# A link with other text in front of it. It does not match URLs of other parts of the site. Anybody can send any URL, so
# it has to run in linear time: once `kind` and the slash match, the rest always matches, and nothing is tried again.
PREFIXED: Final = (
    rf"^(?!(?:admin|api|brands|health|static)/)(?=[\s\S]*?[{_ALPHABET}]{{{LinkToken.length}}})"
    rf"(?:[\s\S]*?(?:[^{_ALPHABET}]|{_SLASH}))??(?P<kind>[cCrR]){_SLASH}(?P<rest>[\s\S]*)\Z"
)


def clean_address(kind: str, rest: str) -> str | None:
    """Find the intended URL in `/{kind}/{rest}`; None if nothing in it has the form of a token."""
    token_kind = _KINDS[kind.lower()]
    for text in _repaired(rest):
        found = _token_in(text, token_kind.length)
        if found:
            token, after = found
            step = re.match(rf"/+({'|'.join(token_kind.steps)})(?![{_ALPHABET}])", after, re.IGNORECASE)
            return reverse(token_kind.steps[step[1].lower()] if step else token_kind.page, args=[token])
    return None


def _repaired(rest: str) -> Iterator[str]:
    """Yield the text unchanged, then with the token's own characters repaired.

    Full-width letters become ASCII, line ends and soft hyphens are removed, and a dash becomes the one or two hyphens
    that a text editor replaced.
    """
    yield rest
    repaired = _ESCAPES.sub("", unicodedata.normalize("NFKC", unquote(rest)))
    repaired = "".join(character for character in repaired if unicodedata.category(character) not in _INVISIBLE)
    for hyphens in ("-", "--"):
        yield _DASHES.sub(hyphens, repaired)


def _token_in(text: str, length: int) -> tuple[str, str] | None:
    """Find the token in a text, and the text after it.

    The token is a run of token characters of exactly its length. If there is none, it is taken from the first longer
    run: without Markdown's `_` and `-` around it if that leaves the right length, or else its beginning.
    """
    runs = list(re.finditer(rf"[{_ALPHABET}]{{{length},}}", text))
    if not runs:
        return None
    run = next((run for run in runs if len(run[0]) == length), runs[0])
    return run[0][(start := _start_of_token(run[0], length)) : start + length], text[run.end() :]


def _start_of_token(run: str, length: int) -> int:
    """Find the token in a longer run by Markdown's `_` and `-` around it. 0 if they do not show where it begins."""
    before, behind = len(run) - len(run.lstrip("_-")), len(run) - len(run.rstrip("_-"))
    start = max(len(run) - length - behind, 0)
    return start if start <= before else 0
