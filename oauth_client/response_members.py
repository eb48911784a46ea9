"""Members of the token response that a brand has declared by name, such as Salesforce's `instance_url`.

They are passed on to bots beside the token. No other member ever is, and nothing that could be a secret: a refresh
token must not get through under another name, inside an object, or as a part of another text (E15).
"""

import json
import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from infrastructure.crypto import Secret
from oauth_client.validators import PROTOCOL_MEMBERS, is_secret_name

MAX_MEMBERS_BYTES: Final = 4096
_MAX_DEPTH: Final = 5
_MAX_NAME_LENGTH: Final = 100
# Shorter texts are countries and currencies (`country_code`), or a part of many others, and no tokens.
_FEWEST_CHARACTERS: Final = 4
_FEWEST_CHARACTERS_OF_A_PART: Final = 8
# A text that speaks of these is an address or JSON that holds one.
_SPEAKS_OF_A_TOKEN: Final = re.compile(
    r"(?<![a-z])(?:refresh|access|id|client)[\W_]{0,3}(?:token|secret)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ResponseMembers:
    """The declared members that came, as JSON text (None where none did), and the names of those that were left out."""

    found: Secret | None = None
    left_out: tuple[str, ...] = ()


class _NotPassedOn(Exception):
    """A value that JSON cannot write, that is nested too deep, or that holds a token."""


def declared_members(names: list[str], answer: dict[str, Any]) -> ResponseMembers:
    """Return what the answer has of these names, cleaned (H8); null counts as absent.

    In the order of the names, a member is left out that would make the whole larger than 4 KB, is nested deeper than
    five levels, or holds a token of the same answer. Inside an object, members whose names could be secrets' are
    dropped. No sign-in fails for it: the bot sees what is not there.
    """
    # The validator refuses such names; SQL could have written them.
    declared = [name for name in names if name not in PROTOCOL_MEMBERS and not is_secret_name(name)]
    present = [name for name in declared if answer.get(name) is not None]
    secrets = _secrets_in(answer) if present else set()
    found: dict[str, Any] = {}
    left_out = []
    for name in present:
        try:
            more = found | {name: _cleaned(answer[name], secrets)}
        except _NotPassedOn:
            left_out.append(name)
            continue
        if len(_written(more).encode()) > MAX_MEMBERS_BYTES:
            left_out.append(name)
        else:
            found = more
    return ResponseMembers(Secret(_written(found)) if found else None, tuple(left_out))


def _written(members: dict[str, Any]) -> str:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _secrets_in(answer: dict[str, Any]) -> set[str]:
    """Return every text that stands, at any depth, below a name of a secret; `token_type` names none.

    Without recursion: an answer may be nested as deep as its reader allows.
    """
    secrets: set[str] = set()
    left: list[tuple[Any, bool]] = [(answer, False)]
    while left:
        value, is_secret = left.pop()
        if isinstance(value, dict):
            left += [(inner, is_secret or _names_a_secret(name)) for name, inner in value.items()]
        elif isinstance(value, list):
            left += [(inner, is_secret) for inner in value]
        elif isinstance(value, str) and is_secret and len(value) >= _FEWEST_CHARACTERS:
            secrets.add(value)
    return secrets


def _names_a_secret(name: str) -> bool:
    return is_secret_name(name) and not name.lower().endswith("type")


def _cleaned(value: Any, secrets: set[str], depth: int = 1) -> Any:
    if depth > _MAX_DEPTH:
        raise _NotPassedOn
    if isinstance(value, str):
        return _cleaned_text(value, secrets)
    if isinstance(value, list):
        return [_cleaned(inner, secrets, depth + 1) for inner in value]
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if _may_be_inside(name)}
        return {_cleaned_text(name, secrets): _cleaned(inner, secrets, depth + 1) for name, inner in kept.items()}
    if isinstance(value, float) and not math.isfinite(value):  # 1e999
        raise _NotPassedOn
    return value


def _may_be_inside(name: str) -> bool:
    return not is_secret_name(name) and len(name) <= _MAX_NAME_LENGTH and name.isprintable()


def _cleaned_text(text: str, secrets: set[str]) -> str:
    # As it stands, and as whoever opens it as an address would read it.
    if any(_holds_a_token(written, secrets) for written in {text, unquote(text), unquote_plus(text)}):
        raise _NotPassedOn
    return "".join(" " if _steers(character) else character for character in text)


def _holds_a_token(text: str, secrets: set[str]) -> bool:
    if text in secrets or any(part in text for part in secrets if len(part) >= _FEWEST_CHARACTERS_OF_A_PART):
        return True
    return _SPEAKS_OF_A_TOKEN.search(text) is not None


def _steers(character: str) -> bool:
    """Tell whether it is not there to be read: controls, directions, line ends, halves of characters."""
    category = unicodedata.category(character)
    return category[0] == "C" or category in {"Zl", "Zp"}
