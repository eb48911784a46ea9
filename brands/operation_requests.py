"""Build the request of a declared operation from a bot's arguments. Pure: nothing is read, written or sent.

A bot's arguments come from a chat, and so from anybody. They never choose the scheme, the host, the port, the path's
fixed parts or a header of ours (P3, P4), and what is sent is what was checked: values are encoded here, from the
decoded JSON.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from time import thread_time
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote, unquote, urlsplit

import msgspec
from django.core.exceptions import ImproperlyConfigured
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from brands.api_operations import host_suffix
from brands.models.brand_api import Operation
from infrastructure.crypto import Secret
from oauth_client.resource_server import ResourceRequest
from oauth_client.urls import MAX_HOST_LENGTH, MAX_URL_LENGTH

# What a `$ref` can lead to outside its own schema. By default, jsonschema would fetch it.
_NOTHING_ELSEWHERE: Final[dict[str, Any]] = {"registry": Registry()}
# Deeper JSON than this would end in a RecursionError somewhere.
MAX_DEPTH: Final = 32
_MAX_HEADER_LENGTH: Final = 1024
_MOST_CACHED: Final = 128
# Of the processor, for all arguments and the body of a call. A thousand lines of an order take a tenth of it.
_MOST_SECONDS: Final = 0.4
_PLACEHOLDER: Final = re.compile(r"\{([^{}/]+)\}")
# Visible ASCII, with spaces inside only: a line break would begin another header.
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ !-~]*[!-~])?")
_ACCEPT: Final = {"Accept": "application/json, */*;q=0.5"}
# Servers decode a path once or several times before they route it, and some drop what follows a semicolon.
_MOST_DECODINGS: Final = 4
# How old servers of Microsoft wrote a character.
_OLD_ENCODING: Final = re.compile("%u[0-9a-f]{4}", re.IGNORECASE)
_AFTER_NAME: Final = re.compile("[;?#]")
_SHOWN: Final = 60
# What a member may say: a host, or the https address of one. Read in lower case; no user, path, query or address.
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAMED_HOST: Final = re.compile(rf"(?:https://)?(?P<host>{_LABEL}(?:\.{_LABEL})+)(?::(?P<port>[0-9]{{1,5}}))?/?")
_HTTPS_PORT: Final = 443

_check_until: ContextVar[float] = ContextVar("check_until")


class ArgumentsInvalid(Exception):
    """An argument, or the body, is not as declared. `pointer` is a JSON pointer into the call's body (RFC 6901).

    `reason` names the rule and not the value.
    """

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(pointer)
        self.pointer, self.reason = pointer, reason


class HostNotNamed(Exception):
    """The token response named no host below the declared one. `reason` is a code, without a word of the server's."""

    MISSING = "host_member_missing"
    NOT_BELOW = "host_not_below_suffix"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# For the brand's admins; {} is the member.
WHY_NO_HOST: Final = {
    HostNotNamed.MISSING: "The token response had no {}, so calls of the API with this token are refused.",
    HostNotNamed.NOT_BELOW: "{} of the token response is no https host below the address of the API, so calls with "
    "this token are refused.",
}


class Addressed(Protocol):
    """The columns of an API that say where it is: a `BrandAPI`, or the row of a query."""

    @property
    def base_url(self) -> str: ...
    @property
    def host_member(self) -> str: ...


def host_named_for(api: Addressed, members: Secret | None) -> str:
    """Return the host that the declared members of a token's response name for the API; empty if it has its own (P2).

    Everybody with an account at the authorization server may have a say in what it answers, so nothing but a host
    below the declared suffix passes, with the declared port. Raises `HostNotNamed`.
    """
    suffix = host_suffix(api.base_url)
    if not suffix:
        return ""
    value = msgspec.json.decode(members.reveal()).get(api.host_member) if members else None
    if value is None or not api.host_member:
        raise HostNotNamed(HostNotNamed.MISSING)
    # ASCII first: some letters of other alphabets are ASCII in lower case.
    is_text = isinstance(value, str) and value.isascii()
    named = _NAMED_HOST.fullmatch(value.lower()) if is_text else None
    declared_port = urlsplit(api.base_url).port or _HTTPS_PORT
    if (
        named is None
        or not named["host"].endswith(suffix)
        or len(named["host"]) > MAX_HOST_LENGTH
        or int(named["port"] or declared_port) != declared_port
    ):
        raise HostNotNamed(HostNotNamed.NOT_BELOW)
    return named["host"]


def at_named_host(request: ResourceRequest, api: Addressed, members: Secret | None) -> ResourceRequest:
    """Send the request to the host that the token's response named, if the API's address leaves it open (P2).

    Raises `HostNotNamed`. Without this step the address is that of no host, and the transport refuses it.
    """
    host = host_named_for(api, members)
    if not host:
        return request
    parts = urlsplit(request.url)
    port = f":{parts.port}" if parts.port else ""
    below = request.url[len(f"{parts.scheme}://{parts.netloc}") :]
    return replace(request, url=f"https://{host}{port}{below}")


class Declaration(NamedTuple):
    """What the rows of an operation and its API declare. What is JSON stays text, by which caches find it.

    `body_schema` is None, or the JSON text of null, if the operation takes no body.
    """

    method: str
    base_url: str
    path: str
    parameters: str
    body_schema: str | None
    is_body_required: bool

    @classmethod
    def of(cls, operation: Operation) -> "Declaration":
        parameters, schema = (
            msgspec.json.encode(one).decode() for one in (operation.parameters, operation.body_schema)
        )
        base_url = operation.api.base_url
        return cls(operation.method, base_url, operation.path, parameters, schema, operation.is_body_required)


def request_for(declared: Declaration, arguments: Mapping[str, Any], body: Any) -> ResourceRequest:
    """Return the request. `body` is the decoded JSON, or `msgspec.UNSET` if the bot sent none.

    Raises `ArgumentsInvalid`, and `ImproperlyConfigured` if the operation's path leads elsewhere than its base URL.
    """
    _check_until.set(thread_time() + _MOST_SECONDS)
    given = _checked(declared.parameters, arguments)
    path = _PLACEHOLDER.sub(lambda found: _segment(found[1], given["path"]), declared.path)
    query = "&".join(pair for name, value in given["query"].items() for pair in _pairs(name, value))
    url = _below(declared.base_url, path) + (f"?{query}" if query else "")
    if len(url) > MAX_URL_LENGTH:
        raise ArgumentsInvalid("/arguments", f"The address would have more than {MAX_URL_LENGTH} characters.")
    headers = {name: _header_value(name, value) for name, value in given["header"].items()}
    content = _body(declared, body)
    if content is not None:
        headers["Content-Type"] = "application/json"
    accepts = any(name.lower() == "accept" for name in headers)
    return ResourceRequest(declared.method, url, headers if accepts else _ACCEPT | headers, content)


def input_schema(operation: Operation) -> dict[str, Any]:
    """Return the JSON Schema of `arguments` and `body`, as a call of this operation takes them."""
    members: dict[str, Any] = {}
    needed = []
    if operation.parameters:
        required = [one["name"] for one in operation.parameters if _is_required(one)]
        members["arguments"] = {
            "type": "object",
            "properties": {one["name"]: one.get("schema", {}) for one in operation.parameters},
            "required": required,
            "additionalProperties": False,
        }
        needed += ["arguments"] if required else []
    if operation.body_schema is not None:
        members["body"] = operation.body_schema
        needed += ["body"] if operation.is_body_required else []
    return {"type": "object", "properties": members, "required": needed, "additionalProperties": False}


def _is_required(parameter: Mapping[str, Any]) -> bool:
    return bool(parameter.get("required")) or parameter["in"] == "path"


@dataclass(frozen=True)
class _Parameter:
    name: str
    place: str
    is_required: bool
    validator: Draft202012Validator


@lru_cache(maxsize=_MOST_CACHED)
def _parameters(declaration: str) -> tuple[frozenset[str], tuple[_Parameter, ...]]:
    """Prepare a declaration once: its names, and its parameters. The text is the key, so a changed one is another."""
    declared = json.loads(declaration)
    return frozenset(one["name"] for one in declared), tuple(
        _Parameter(one["name"], one["in"], _is_required(one), _validator(one.get("schema", {}))) for one in declared
    )


@lru_cache(maxsize=_MOST_CACHED)
def _body_validator(declaration: str) -> Draft202012Validator:
    return _validator(json.loads(declaration))


class _TakesTooLong(Exception):
    """The check has used up its time."""


def _timed(check: Callable[..., Any]) -> Callable[..., Any]:
    """Look at the time before each keyword: its own work is short, but a schema and a value can be multiplied (P14)."""

    def timed(*arguments: Any) -> Any:
        if thread_time() > _check_until.get():
            raise _TakesTooLong
        return check(*arguments)

    return timed


_TimedValidator: Final[Any] = extend(  # type: ignore[no-untyped-call]  # the stubs lack it
    Draft202012Validator, {name: _timed(check) for name, check in Draft202012Validator.VALIDATORS.items()}
)


def _validator(schema: Any) -> Draft202012Validator:
    validator: Draft202012Validator = _TimedValidator(schema, **_NOTHING_ELSEWHERE)
    return validator


def _checked(declaration: str, arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments by place. Raises `ArgumentsInvalid`, also for one that is not declared."""
    names, parameters = _parameters(declaration)
    for name in arguments:
        if name not in names:
            raise ArgumentsInvalid(_pointer("arguments", name), "This argument is not declared.")
    given: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
    for parameter in parameters:
        if parameter.name in arguments:
            value = arguments[parameter.name]
            _refuse_deep(value, "arguments", parameter.name)
            _validate(parameter.validator, value, "arguments", parameter.name)
            given[parameter.place][parameter.name] = value
        elif parameter.is_required:
            raise ArgumentsInvalid(_pointer("arguments", parameter.name), "This argument is required.")
    return given


def _validate(validator: Draft202012Validator, value: Any, *place: str) -> None:
    try:
        error: ValidationError | None = next(validator.iter_errors(value), None)
    except _TakesTooLong:
        raise ArgumentsInvalid(_pointer(*place), "Its check takes too long: send less at once.") from None
    if error is not None:
        # The rule, and not jsonschema's message, which quotes the value.
        rule = msgspec.json.encode(error.validator_value).decode()
        wanted = f"`{error.validator}`: {rule}" if len(rule) <= _SHOWN else f"`{error.validator}`"
        raise ArgumentsInvalid(_pointer(*place, *error.absolute_path), f"It is not as declared, by {wanted}.")


def _refuse_deep(value: Any, *place: str) -> None:
    if is_deeper(value, MAX_DEPTH):
        raise ArgumentsInvalid(_pointer(*place), f"It is nested deeper than {MAX_DEPTH} levels.")


def is_deeper(value: Any, levels: int) -> bool:
    """Whether JSON has more levels of objects and lists than these, above what they hold."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(is_deeper(item, levels - 1) for item in inner)


def _segment(name: str, values: Mapping[str, Any]) -> str:
    """Encode a path value as one segment (RFC 3986 section 3.3). Raises `ArgumentsInvalid`.

    A slash is refused, encoded ones too: a server that decodes before it routes would find another operation
    (`17/refunds`, `../customers`).
    """
    text = _text("arguments", name, values.get(name))
    read, seen = text, ""
    for _ in range(_MOST_DECODINGS):
        read, seen = unquote(read), read
        plain = unicodedata.normalize("NFKC", read)
        if "/" in plain or "\\" in plain or _AFTER_NAME.split(plain)[0].strip() in {"", ".", ".."}:
            raise ArgumentsInvalid(
                _pointer("arguments", name),
                "It is one segment of a path: not empty, without slashes, and no dots alone.",
            )
        if any(unicodedata.category(character) == "Cc" for character in plain):
            raise ArgumentsInvalid(_pointer("arguments", name), "It holds a control character.")
        # `%c0%af` is a slash for servers that accept it, and `%u002f` for others.
        if "\ufffd" in read or _OLD_ENCODING.search(read):
            raise ArgumentsInvalid(_pointer("arguments", name), "Its percent-encoding is not that of UTF-8.")
    if read != seen:
        raise ArgumentsInvalid(_pointer("arguments", name), "It is percent-encoded too many times.")
    return quote(text, safe="")


def _pairs(name: str, value: Any) -> Iterator[str]:
    """Encode a query parameter. A list repeats the name, as OpenAPI's `form` style does."""
    for item in value if isinstance(value, list) else [value]:
        yield f"{quote(name, safe='')}={quote(_text('arguments', name, item), safe='')}"


def _header_value(name: str, value: Any) -> str:
    text = _text("arguments", name, value)
    if len(text) > _MAX_HEADER_LENGTH or not _HEADER_VALUE.fullmatch(text):
        reason = f"A header has 1 to {_MAX_HEADER_LENGTH} visible ASCII characters, with spaces inside only."
        raise ArgumentsInvalid(_pointer("arguments", name), reason)
    return text


def _text(place: str, name: str, value: Any) -> str:
    """Write a scalar. Raises `ArgumentsInvalid` for an object, a list, null, or text that is not Unicode."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # JSON Schema counts 17.0 as an integer
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise ArgumentsInvalid(_pointer(place, name), "It is a text, a number, true or false.")
    return value


def _below(base_url: str, path: str) -> str:
    """Join them, and make sure that the path has not changed where the request goes."""
    url = base_url.rstrip("/") + path
    base, built = urlsplit(base_url), urlsplit(url)
    is_same = (built.scheme, built.netloc) == (base.scheme, base.netloc) and not (built.query or built.fragment)
    if not path.startswith("/") or not is_same or not built.path.startswith(base.path.rstrip("/") + "/"):
        raise ImproperlyConfigured("the operation's path leads elsewhere than its base URL")
    return url


def _body(declared: Declaration, body: Any) -> bytes | None:
    """Encode the body again: of a member that was sent twice, the server gets what was checked."""
    if declared.body_schema in {None, "null"}:
        if body is msgspec.UNSET:
            return None
        raise ArgumentsInvalid("/body", "This operation takes no body.")
    if body is msgspec.UNSET:
        if declared.is_body_required:
            raise ArgumentsInvalid("/body", "This operation needs a body.")
        return None
    _refuse_deep(body, "body")
    _validate(_body_validator(str(declared.body_schema)), body, "body")
    return msgspec.json.encode(body)


def _pointer(*parts: str | int) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
