"""The URLs of links and receipts, and how to find the intended URL in a damaged one.

Chats, mail programs and people add characters to a link: a full stop, a bracket, an invisible space, `&utm=1`. The
token is recognised by its form, without a look into the database. So the answer does not reveal whether a link is open,
ended or unknown (G9).
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
# Markdown escapes `_` and `-` with a backslash, which browsers turn into a slash. Quoted-printable mail ends a wrapped
# line with `=`.
_ESCAPES: Final = re.compile(r"[\\/]+(?=[_-])|=(?=[\r\n])")
# Unicode categories of characters that do not belong to a link: spaces, line and paragraph separators, control and
# format characters.
_INVISIBLE: Final = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


class LinkToken:
    """Django path converter for a link token: 20 random bytes in base64url (A5).

    `url_name` names the URL of the token's own page. `steps` maps the path segments that may follow the token to the
    names of their URLs.
    """

    length = 27
    regex = f"[{_ALPHABET}]{{{length}}}"
    url_name = "link"
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
    url_name = "receipt"
    steps: ClassVar = {"end": "end_by_receipt"}


_KINDS: Final = {"c": LinkToken, "r": ReceiptToken}
# A link with other text in front of it. Anybody can send any URL, so the match must take linear time: once `kind` and
# the slash match, the rest always matches, and nothing is tried again.
PREFIXED: Final = (
    r"^(?!(?:admin|api|brands|health|static)/)"  # leave the other parts of the site alone
    rf"(?=[\s\S]*?[{_ALPHABET}]{{{LinkToken.length}}})"  # somewhere there is a run as long as a link token
    rf"(?:[\s\S]*?(?:[^{_ALPHABET}]|{_SLASH}))??"  # the text in front, as short as possible
    rf"(?P<kind>[cCrR]){_SLASH}"  # the link's own path begins
    r"(?P<rest>[\s\S]*)\Z"
)


def intended_url(kind: str, rest: str) -> str | None:
    """Find the intended URL in `/{kind}/{rest}`; None if nothing in it has the form of a token."""
    token_kind = _KINDS[kind.lower()]
    for text in _repaired(rest):
        found = _token_in(text, token_kind.length)
        if found:
            token, after = found
            step = re.match(rf"/+({'|'.join(token_kind.steps)})(?![{_ALPHABET}])", after, re.IGNORECASE)
            url_name = token_kind.steps[step[1].lower()] if step else token_kind.url_name
            return reverse(url_name, args=[token])
    return None


def _repaired(rest: str) -> Iterator[str]:
    """Yield the text unchanged, then repaired, for the case that characters of the token itself were changed.

    Full-width letters become ASCII; line ends and soft hyphens are removed. An editor may have turned `-` or `--` into
    one dash: both are tried.
    """
    yield rest
    repaired = _ESCAPES.sub("", unicodedata.normalize("NFKC", unquote(rest)))
    repaired = "".join(character for character in repaired if unicodedata.category(character) not in _INVISIBLE)
    for hyphens in ("-", "--"):
        yield _DASHES.sub(hyphens, repaired)


def _token_in(text: str, length: int) -> tuple[str, str] | None:
    """Find the token in a text. Return it and the text after the run of token characters that contains it.

    The token is a run of token characters that has exactly the token's length. If there is none, take the first longer
    run, such as `__TOKEN__`: strip Markdown's `_` and `-` from its ends if exactly the token can remain; otherwise take
    its first `length` characters.
    """
    runs = list(re.finditer(rf"[{_ALPHABET}]{{{length},}}", text))
    if not runs:
        return None
    chosen = next((run for run in runs if len(run[0]) == length), runs[0])
    start = _start_of_token(chosen[0], length)
    return chosen[0][start : start + length], text[chosen.end() :]


def _start_of_token(run: str, length: int) -> int:
    """Return where the token begins in a run such as `__TOKEN__`.

    A token can itself begin or end with `_` or `-`. So strip them from the end, as long as `length` characters remain,
    and then strip only the surplus from the start. Return 0 if other characters would have to be stripped.
    """
    at_start, at_end = len(run) - len(run.lstrip("_-")), len(run) - len(run.rstrip("_-"))
    start = max(len(run) - length - at_end, 0)
    return start if start <= at_start else 0
