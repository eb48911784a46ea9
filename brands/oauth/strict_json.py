"""JSON from a server, read in one way only: what two readers could read differently is refused (E4, E5)."""

import json
from typing import Any, NoReturn


class NotStrictJSON(ValueError):
    """The bytes are not one JSON object. The message is ours and quotes nothing of them."""


def read_json_object(body: bytes) -> dict[str, Any]:
    """Return the object that `body` holds: UTF-8 (RFC 8259 section 8.1), no byte order mark, no member twice.

    Raises `NotStrictJSON`.
    """
    text = _decode(body)
    try:
        value = json.loads(text, object_pairs_hook=_each_member_once, parse_constant=_refuse_constant)
    except NotStrictJSON:
        raise
    except (ValueError, RecursionError):
        raise NotStrictJSON("it is not JSON") from None
    if not isinstance(value, dict):
        raise NotStrictJSON("it is JSON, but not an object")
    return value


def _decode(body: bytes) -> str:
    if not body.strip():
        raise NotStrictJSON("it is empty")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise NotStrictJSON("it is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise NotStrictJSON("it begins with a byte order mark")
    return text


def _each_member_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) != len(members):
        raise NotStrictJSON("it has a member twice")
    return value


def _refuse_constant(_name: str) -> NoReturn:
    raise NotStrictJSON("it is not JSON")
