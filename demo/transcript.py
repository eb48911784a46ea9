"""Print the journey: who calls what, and which status came back. Secrets are shortened."""

import json
import re
import sys
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TextIO
from urllib.parse import parse_qsl

SHOWN = 6
INDENT = " " * 13
SECRET_FIELDS = frozenset({"access_token", "handle"})
SECRET_PARAMETERS = ("state", "nonce", "code", "code_challenge", "code_verifier", "request", "handle")
# Parameters of a URL, also if the URL is itself a parameter (`next=%2Fauthorize%3Fstate%3D...`).
_PARAMETER = re.compile(
    rf"((?:[?&#]|%3F|%26)(?:{'|'.join(SECRET_PARAMETERS)})(?:=|%3D))((?:(?!%26)[^&#\s\"'])+)", re.IGNORECASE
)
_LINK = re.compile(r"((?:/|%2F|%252F)(?:c|callback)(?:/|%2F|%252F))([A-Za-z0-9_-]+)")
_BEARER = re.compile(r"(Bearer )([A-Za-z0-9._~+/=-]{12,})")


def shorten(secret: str) -> str:
    return f"{secret[:SHOWN]}…" if len(secret) > SHOWN else "…"


def conceal(text: str) -> str:
    for pattern in (_PARAMETER, _LINK, _BEARER):
        text = pattern.sub(lambda found: found[1] + shorten(found[2]), text)
    return text


def conceal_fields(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: conceal_fields(inner, key) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [conceal_fields(inner, name) for inner in value]
    if isinstance(value, str):
        return shorten(value) if name in SECRET_FIELDS else conceal(value)
    return value


def in_short(url: str) -> str:
    """Replace a URL's query by `?…`. Its parameters were printed with the redirect to it."""
    target, mark, _ = url.partition("?")
    return f"{target}?…" if mark else target


def phrase(status: int) -> str:
    """Write a status as in `200 OK`; only the number if the standard library does not know it."""
    known = next((entry for entry in HTTPStatus if entry.value == status), None)
    return f"{status} {known.phrase}" if known else str(status)


@dataclass
class Transcript:
    out: TextIO = field(default_factory=lambda: sys.stdout)
    chapters: int = 0
    checks: int = 0
    told: set[str] = field(default_factory=set)

    def chapter(self, title: str, why: str = "") -> None:
        self.chapters += 1
        self.told.clear()
        self._write(f"\n{self.chapters}. {title}")
        for line in textwrap.wrap(why, 100):
            self._write(f"   {line}")

    def request(self, who: str, method: str, url: str) -> None:
        self._write(f"   {who:<9} {method:<6} {conceal(url)}")

    def answer(self, status: int, redirect_to: str = "") -> None:
        if not redirect_to:
            self._write(f"{INDENT}→ {phrase(status)}")
            return
        target, _, query = redirect_to.partition("?")
        self._write(f"{INDENT}→ {phrase(status)}, on to {conceal(target)}{'?…' if target in self.told else ''}")
        if target not in self.told:
            self.told.add(target)
            for name, value in parse_qsl(query):
                self._write(f"{INDENT}    {conceal(f'?{name}={in_short(value)}')[1:]}")

    def json(self, label: str, value: Mapping[str, Any], only: Collection[str] = ()) -> None:
        """Print an object. With `only`, print these fields, and `…` if there are others."""
        chosen = {name: value[name] for name in only if name in value} if only else value
        text = json.dumps(conceal_fields(chosen), ensure_ascii=False)
        text = f"{text[:-1]}, …}}" if len(chosen) < len(value) else text
        label = f"{label:<8} "
        # Ids are not broken at hyphens, so that they can be copied.
        whole = textwrap.TextWrapper(110, initial_indent=label, subsequent_indent=" " * 9, break_on_hyphens=False)
        for line in whole.wrap(text):
            self._write(f"{INDENT}  {line}")

    def note(self, text: str) -> None:
        self._write(f"   {conceal(text)}")

    def held(self, text: str) -> None:
        self.checks += 1
        self._write(f"{INDENT}✓ {conceal(text)}")

    def _write(self, line: str) -> None:
        print(line, file=self.out, flush=True)
