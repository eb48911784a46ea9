"""Pass on token response members that a brand declared by name, such as Salesforce's `instance_url`.

Bots get them with the token. No other member is passed on, and none that could be a secret: a refresh token must not
get through under another name, inside an object, or as a part of another text (E15).
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
# Shorter texts are not tokens but country or currency codes (`country_code`), or occur by chance inside other texts.
_FEWEST_CHARACTERS: Final = 4
_FEWEST_CHARACTERS_OF_A_PART: Final = 8
# A text with one of these words is a URL or JSON that may contain a token.
_NAMES_A_TOKEN: Final = re.compile(r"(?<![a-z])(?:refresh|access|id|client)[\W_]{0,3}(?:token|secret)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ResponseMembers:
    """The declared members of a response as JSON text (None if there are none), and the names of those left out."""

    found: Secret | None = None
    left_out: tuple[str, ...] = ()


class _NotPassedOn(Exception):
    """The value cannot be written as JSON, is nested too deeply, or contains a token."""


def declared_members(names: list[str], answer: dict[str, Any]) -> ResponseMembers:
    """Return the members with these names, sanitised (H8). null counts as absent.

    A member is left out if it is nested deeper than five levels, contains a token of the same response, or would make
    the result larger than 4 KB. Members of objects are dropped if their name could be a secret's. A sign-in never
    fails because a member is left out: the bot is told which members are missing.
    """
    # The validator refuses these names, but SQL could have written them.
    declared = [name for name in names if name not in PROTOCOL_MEMBERS and not is_secret_name(name)]
    received = [name for name in declared if answer.get(name) is not None]
    secrets = _secrets_in(answer) if received else set()
    found: dict[str, Any] = {}
    left_out = []
    for name in received:
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
    """Collect the texts below a name of a secret, except `token_type`. Iterative: a response may be nested deeply."""
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
    # Check the text itself and its URL-decoded forms.
    if any(_holds_a_token(written, secrets) for written in {text, unquote(text), unquote_plus(text)}):
        raise _NotPassedOn
    return "".join(" " if _is_invisible(character) else character for character in text)


def _holds_a_token(text: str, secrets: set[str]) -> bool:
    if text in secrets or any(part in text for part in secrets if len(part) >= _FEWEST_CHARACTERS_OF_A_PART):
        return True
    return _NAMES_A_TOKEN.search(text) is not None


def _is_invisible(character: str) -> bool:
    """Whether the character is invisible, or changes how the text is shown: a control, direction mark or surrogate."""
    category = unicodedata.category(character)
    return category[0] == "C" or category in {"Zl", "Zp"}
