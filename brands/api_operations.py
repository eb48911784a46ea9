"""What may be declared as an operation of a brand's API (P13, P14). Pure rules; each raises `ValidationError`.

An admin of a brand declares operations, and a bot calls them. So there are two attackers. An admin could write a schema
that keeps a process of ours busy, which serves other brands, too. A bot could reach what the brand did not mean to
offer: another path, another method, or a header that the brand's proxies set and its API trusts.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from django.core.exceptions import ValidationError
from publicsuffixlist import PublicSuffixList

from oauth_client.validators import validate_base_url

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# They change nothing (RFC 9110 section 9.2.1).
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
# RFC 9110 gives a body of these no meaning, and some servers read one as the next request.
METHODS_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "DELETE"})
PLACES: Final = ("path", "query", "header")

MAX_PATH_LENGTH: Final = 1024
MAX_PARAMETERS: Final = 50
MAX_SCHEMA_LENGTH: Final = 65_536
MAX_SUBSCHEMAS: Final = 1_000
MAX_DEPTH: Final = 40
# What TOML and most readers of JSON take as a whole number.
MAX_NUMBER: Final = 2**63 - 1

# A host of which only the end is declared; a member of the token response says which one it is.
_BELOW: Final = re.compile(r"https://\*(\.[A-Za-z0-9.-]*)", re.IGNORECASE)
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_PATH_NAME: Final = re.compile(r"[A-Za-z0-9._~$@-]{1,100}")
_QUERY_NAME: Final = re.compile(r"[\x21-\x7e]{1,100}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_UNSTORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")

# Set by us, or by the two ends of a connection for each other (RFC 9110 section 7.6.1), or trusted by the API because
# only a proxy or a browser of the brand sets them.
_HEADERS_NOT_DECLARABLE: Final = frozenset(
    {
        *("authorization", "cookie", "cookie2", "set-cookie", "dpop", "host", "user-agent"),
        *("accept-charset", "accept-encoding", "expect"),
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"),
        *("early-data", "max-forwards", "via", "forwarded", "origin", "referer"),
        *("client-ip", "true-client-ip", "x-client-ip", "x-cluster-client-ip", "cf-connecting-ip", "fastly-client-ip"),
        *("x-host", "x-method-override"),
    }
)
# `Proxy` becomes HTTP_PROXY in a CGI program. `Content-` describes the body, which we write. X-HTTP-Method-Override and
# X-Original-URL make a server act on another method or path than those that were declared.
_PREFIXES_NOT_DECLARABLE: Final = (
    *("proxy", "x-forwarded", "x-real-", "x-original-", "x-rewrite-", "x-http-method", "content-", "sec-"),
)

_TYPES: Final = ("string", "integer", "number", "boolean", "array", "object", "null")
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
_ONE: Final = ("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else")
_MANY: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED: Final = ("properties", "dependentSchemas")
_COUNTS: Final = (
    *("minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains", "minProperties", "maxProperties"),
)
_LIMITS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TEXTS: Final = ("title", "description", "format", "contentEncoding", "contentMediaType", "$comment")
_SWITCHES: Final = ("deprecated", "readOnly", "writeOnly")
# The keywords of draft 2020-12 that a declaration may have. Each is checked in a time that grows with the schema and
# the value alone. Left out: `pattern` and `patternProperties` (a regular expression can take hours for 40 characters),
# `uniqueItems` (the square of the length), `unevaluated...` (checks each part again on each level), and `$ref` and its
# like (a schema of 1 KB can repeat itself a million times, or name an address). The brand's API still checks its input.
KEYWORDS: Final = frozenset(
    {
        *("type", "enum", "const", "multipleOf", "required", "dependentRequired", "default", "examples"),
        *(*_ONE, *_MANY, *_NAMED, *_COUNTS, *_LIMITS, *_TEXTS, *_SWITCHES),
    }
)


def host_suffix(base_url: str) -> str:
    """Return `.my.salesforce.com` of `https://*.my.salesforce.com/services`; empty if nothing is open."""
    return found[1].lower() if (found := _BELOW.match(base_url)) else ""


def validate_api_address(value: str) -> None:
    """Do `validate_base_url`, where the host may begin with `*.`. What follows has to belong to somebody (P2)."""
    validate_base_url(_BELOW.sub(r"https://any\1", value, count=1) if _BELOW.match(value) else value)
    if not (suffix := host_suffix(value)):
        return
    _, *labels = suffix.split(".")
    message = "Write at least two labels behind *., such as *.my.salesforce.com."
    _refuse_unless(len(labels) > 1, message, "short_suffix")
    message = "Anybody can have a host below this suffix, and would get tokens: write one more label."
    _refuse_unless(not _registries().is_public(suffix.removeprefix(".")), message, "public_suffix")


@lru_cache(maxsize=1)
def _registries() -> PublicSuffixList:
    """Read the list of the suffixes below which anybody can register a name, such as co.uk: 50 ms, for the admin alone.

    Without its private part: myshopify.com, say, is one company's, and what its servers are called is for it to say.
    """
    return PublicSuffixList(only_icann=True)


def placeholders(path: str) -> list[str]:
    """Return the names of a path's parameters: `["order_id"]` of `/orders/{order_id}`."""
    return [match[1] for segment in path.split("/") if (match := _PLACEHOLDER.fullmatch(segment))]


def validate_path(value: object) -> None:
    """Require a template such as `/orders/{order_id}`, whose parameters are whole segments.

    A parameter inside a segment (`{id}.json`) would let its value decide where the segment ends for the brand's server.
    """
    if not isinstance(value, str) or not value.startswith("/") or len(value) > MAX_PATH_LENGTH:
        raise ValidationError(f"Write a path that begins with /, of at most {MAX_PATH_LENGTH} characters.", "no_path")
    _refuse_unless("?" not in value, "Declare query parameters one by one, not in the path.", "path_with_query")
    for segment in value[1:].removesuffix("/").split("/") if value != "/" else ():
        _validate_segment(segment)
    names = placeholders(value)
    _refuse_unless(len(set(names)) == len(names), "Name each parameter of the path once.", "repeated_path_parameter")


def _validate_segment(segment: str) -> None:
    if placeholder := _PLACEHOLDER.fullmatch(segment):
        message = "Write parameters of the path with letters, digits and . _ ~ $ @ -, such as {order_id}."
        _refuse_unless(_PATH_NAME.fullmatch(placeholder[1]) is not None, message, "invalid_path_parameter")
        return
    message = "A parameter has to be a whole segment of the path: /orders/{order_id}, not /orders/{order_id}.json."
    _refuse_unless("{" not in segment and "}" not in segment, message, "partial_path_parameter")
    message = "The path has an empty segment, // or . or .. in it: servers shorten such paths, each in its own way."
    # Some servers drop what follows the semicolon, and then see the dots.
    _refuse_unless(bool(segment.partition(";")[0].strip(".")) or segment.startswith(";"), message, "path_with_dots")
    message = "Use only letters, digits and . _ ~ ! $ & ' ( ) * + , ; = : @ - in the path."
    _refuse_unless(_LITERAL.fullmatch(segment) is not None, message, "invalid_path")


def validate_parameters(value: object) -> None:
    """Require a list of `{"name", "in", "required", "schema"}`: at most `MAX_PARAMETERS`, with names that differ."""
    if not isinstance(value, list) or len(value) > MAX_PARAMETERS:
        raise ValidationError(f"Write a list of at most {MAX_PARAMETERS} parameters, such as [].", "no_parameters")
    for parameter in value:
        _validate_parameter(parameter)
    message = f"The parameters have more than {MAX_SCHEMA_LENGTH} characters: shorten their schemas."
    _refuse_unless(len(json.dumps(value)) <= MAX_SCHEMA_LENGTH, message, "parameters_too_large")
    # Bots give arguments by name alone, wherever they go. Header names have no case.
    names = [parameter["name"].lower() if parameter["in"] == "header" else parameter["name"] for parameter in value]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValidationError(f"Two parameters are named {repeated}: bots could not tell them apart.", "repeated_name")


def _validate_parameter(parameter: object) -> None:
    if not isinstance(parameter, dict) or not {"name", "in"} <= parameter.keys() <= {
        "name",
        "in",
        "required",
        "schema",
    }:
        message = 'Write each parameter as {"name": "limit", "in": "query", "required": false, "schema": {...}}.'
        raise ValidationError(message, "invalid_parameter")
    name, place, required = parameter["name"], parameter["in"], parameter.get("required", False)
    _refuse_unless(place in PLACES, f"Declare parameters in {', '.join(PLACES)}, and nowhere else.", "unknown_place")
    _refuse_unless(isinstance(name, str), "Name each parameter.", "invalid_name")
    _refuse_unless(isinstance(required, bool), f"{name}: write required as true or false.", "invalid_required")
    {"path": _validate_path_name, "query": _validate_query_name, "header": validate_header_name}[place](name)
    _refuse_unless(place != "path" or required, f"{name}: a parameter of the path is always required.", "not_required")
    schema = parameter.get("schema", {})
    validate_schema(schema, f"{name}: ")
    allowed = _SCALARS | ({"array"} if place == "query" else set())
    message = f"{name}: in {place}, only these types can be written: {', '.join(sorted(allowed))}."
    _refuse_unless(types_of(schema) <= allowed, message, "unwritable_type")


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that a valid schema names; empty if it names none."""
    types = schema.get("type", [])
    return {types} if isinstance(types, str) else set(types)


def _validate_path_name(name: str) -> None:
    message = f"{name[:50]!r} is no name of a path's parameter: use letters, digits and . _ ~ $ @ -."
    _refuse_unless(_PATH_NAME.fullmatch(name) is not None, message, "invalid_name")


def _validate_query_name(name: str) -> None:
    message = f"{name[:50]!r} is no name of a query parameter: use visible ASCII characters, at most 100."
    _refuse_unless(_QUERY_NAME.fullmatch(name) is not None, message, "invalid_name")


def validate_header_name(name: str) -> None:
    """Refuse headers that a bot may not choose. `_` counts as `-`, because WSGI, CGI and PHP read them alike."""
    message = f"{name[:50]!r} is no name of a header: use letters, digits, - and _, at most 100."
    _refuse_unless(_HEADER_NAME.fullmatch(name) is not None, message, "invalid_name")
    lowered = name.lower().replace("_", "-")
    is_ours = lowered in _HEADERS_NOT_DECLARABLE or lowered.startswith(_PREFIXES_NOT_DECLARABLE)
    message = f"{name} cannot be declared: we, proxies or browsers set this header, and your API may trust it."
    _refuse_unless(not is_ours, message, "header_not_declarable")


def mismatches(
    method: str, path: str, parameters: list[dict[str, Any]], *, has_body: bool
) -> dict[str, ValidationError]:
    """Compare the valid parts of a declaration. Return an error for each field that does not fit the others."""
    errors = {}
    in_path, declared = set(placeholders(path)), {entry["name"] for entry in parameters if entry["in"] == "path"}
    if missing := sorted(in_path - declared):
        message = f"The path names {', '.join(missing)}: declare each as a parameter in path."
        errors["parameters"] = ValidationError(message, "path_parameter_not_declared")
    elif unused := sorted(declared - in_path):
        message = f"The path has no {{{unused[0]}}}: write it there, or remove the parameter."
        errors["parameters"] = ValidationError(message, "path_parameter_not_used")
    if has_body and method in METHODS_WITHOUT_BODY:
        errors["body_schema"] = ValidationError(f"A {method} request has no body: leave this empty.", "no_body_allowed")
    return errors


def validate_body_schema(value: object) -> None:
    """Allow no schema (no body), or do `validate_schema`."""
    if value is not None:
        validate_schema(value)


def validate_schema(value: object, where: str = "") -> None:
    """Require a JSON Schema of `KEYWORDS`, of bounded size, depth and number of subschemas.

    `where` begins each message. Values of keywords are checked here. The draft's meta-schema would take seconds for a
    schema of this size, and does not say what to do.
    """
    try:
        message = 'Write a schema as a JSON object, such as {"type": "string"}.'
        _refuse_unless(isinstance(value, dict), message, "invalid_schema")
        _validate_json(value)
        _refuse_unless(
            len(json.dumps(value)) <= MAX_SCHEMA_LENGTH,
            f"The schema is longer than {MAX_SCHEMA_LENGTH} characters.",
            "schema_too_large",
        )
        subschemas = list(_subschemas(value))
        _refuse_unless(len(subschemas) <= MAX_SUBSCHEMAS, f"Use at most {MAX_SUBSCHEMAS} schemas.", "schema_too_large")
        for schema in subschemas:
            _validate_keywords(schema)
    except ValidationError as error:
        raise ValidationError(f"{where}{error.message}", error.code) from None


def _validate_json(value: object, depth: int = 0) -> None:
    """Require JSON that the database stores, and that a configuration file can hold."""
    _refuse_unless(depth <= 3 * MAX_DEPTH, f"The schema has more than {MAX_DEPTH} levels.", "schema_too_deep")
    message = 'Write {"type": "null"} in place of null: a configuration file cannot hold null.'
    _refuse_unless(value is not None, message, "null_in_schema")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _validate_json(inner, depth + 1)
        texts = list(value) if isinstance(value, dict) else []
        _refuse_unless(all(isinstance(name, str) for name in texts), "Names have to be texts.", "invalid_schema")
    elif isinstance(value, str):
        texts = [value]
    elif isinstance(value, int | float):
        texts = []
        message = f"Numbers have to be between -{MAX_NUMBER} and {MAX_NUMBER}."
        _refuse_unless(abs(value) <= MAX_NUMBER, message, "invalid_number")  # false for NaN, too
    else:
        raise ValidationError("Only JSON values can be in a schema.", "invalid_schema")
    message = "The schema has a character that cannot be stored."
    _refuse_unless(not any(_UNSTORABLE.search(text) for text in texts), message, "invalid_schema")


def _subschemas(schema: object, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it. `True` and `False` are schemas, too, and have no keywords."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise ValidationError('Write a schema as a JSON object, such as {"type": "string"}.', "invalid_schema")
    _refuse_unless(depth <= MAX_DEPTH, f"The schema has more than {MAX_DEPTH} levels.", "schema_too_deep")
    yield schema
    for name, value in schema.items():
        for inner in _schemas_of(name, value):
            yield from _subschemas(inner, depth + 1)


def _schemas_of(keyword: str, value: object) -> Iterable[object]:
    if keyword in _ONE:
        return (value,)
    if keyword in _MANY:
        if not isinstance(value, list) or not value:
            raise ValidationError(f"{keyword} needs a list of schemas.", "invalid_schema")
        return value
    if keyword in _NAMED:
        if not isinstance(value, dict):
            raise ValidationError(f"{keyword} needs an object of schemas.", "invalid_schema")
        return value.values()
    return ()


def _validate_keywords(schema: Mapping[str, Any]) -> None:
    for keyword, value in schema.items():
        if keyword == "$ref":
            raise ValidationError("Write a schema out at its place: $ref is not read here.", "keyword_not_declarable")
        if keyword not in KEYWORDS:
            message = f"{keyword[:50]!r} cannot be used here: it is unknown, or can take long to check."
            raise ValidationError(message, "keyword_not_declarable")
        if keyword in _EXPECTED:
            is_right, expected = _EXPECTED[keyword]
            _refuse_unless(is_right(value), f"{keyword} needs {expected}.", "invalid_schema")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _are_types(value: object) -> bool:
    names = value if isinstance(value, list) else [value]
    return _are_names(names) and bool(names) and set(names) <= set(_TYPES)


def _are_dependencies(value: object) -> bool:
    return isinstance(value, dict) and all(map(_are_names, value.values()))


# What a keyword's value has to be, and how a message calls it.
_EXPECTED: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "type": (_are_types, f"one or more of {', '.join(_TYPES)}"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    # With a fraction, a number of 400 digits ends the check with an error.
    "multipleOf": (lambda value: _is_whole(value, 1), "a whole number above 0"),
    "required": (_are_names, "a list of different names"),
    "dependentRequired": (_are_dependencies, "an object of lists of names"),
    "examples": (lambda value: isinstance(value, list), "a list"),
    **dict.fromkeys(_COUNTS, (_is_whole, "a whole number from 0 on")),
    **dict.fromkeys(_LIMITS, (_is_number, "a number")),
    **dict.fromkeys(_TEXTS, (lambda value: isinstance(value, str), "a text")),
    **dict.fromkeys(_SWITCHES, (lambda value: isinstance(value, bool), "true or false")),
}


def _refuse_unless(condition: bool, message: str, code: str) -> None:
    if not condition:
        raise ValidationError(message, code)
