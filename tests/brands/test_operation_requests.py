"""From a bot's arguments to a request: whatever the values are, they choose no host, path or header (P3, P4)."""

from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from brands.api_operations import validate_parameters, validate_schema
from brands.models import BrandAPI, Operation
from brands.operation_requests import MAX_DEPTH, ArgumentsInvalid, Declaration, request_for
from oauth_client.resource_server import ResourceRequest
from oauth_client.urls import MAX_URL_LENGTH

BASE: Final = "https://api.acme.example/shop/v1"
PARAMETERS: Final[list[dict[str, Any]]] = [
    {"name": "order_id", "in": "path", "required": True, "schema": {}},
    {"name": "q", "in": "query", "required": False, "schema": {}},
    {"name": "X-Language", "in": "header", "required": False, "schema": {}},
]
NOTE: Final = {"type": "object", "required": ["note"], "properties": {"note": {"type": "string", "maxLength": 10}}}


def operation(**changes: Any) -> Operation:
    """Acme's operation to read an order; it is not saved."""
    values = {"name": "orders.read", "method": "GET", "path": "/orders/{order_id}/items", "parameters": PARAMETERS}
    return Operation(api=BrandAPI(base_url=BASE), **(values | changes))


def request_with(body: Any = msgspec.UNSET, /, *, of: Operation | None = None, **arguments: Any) -> ResourceRequest:
    return request_for(
        Declaration.of(of or operation()), {name.replace("X_", "X-"): value for name, value in arguments.items()}, body
    )


def refused(body: Any = msgspec.UNSET, /, *, of: Operation | None = None, **arguments: Any) -> str:
    """Return the pointer to what is refused."""
    with pytest.raises(ArgumentsInvalid) as refusal:
        request_with(body, of=of, **arguments)
    return refusal.value.pointer


def with_schema(place: int, schema: Any) -> Operation:
    """Acme's operation with another schema of one parameter."""
    changed = [one | ({"schema": schema} if number == place else {}) for number, one in enumerate(PARAMETERS)]
    return operation(parameters=changed)


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("4711", "4711"),
        (4711, "4711"),
        (17.0, "17"),
        (True, "true"),
        ("a b", "a%20b"),
        ("50%", "50%25"),
        ("ä", "%C3%A4"),
        ("A-1_2.3~4", "A-1_2.3~4"),
        ("a;b=c", "a%3Bb%3Dc"),
        ("@rival.example", "%40rival.example"),
        ("a?b#c", "a%3Fb%23c"),
        ("https:rival.example", "https%3Arival.example"),
        ("...", "..."),
        ("a&b=c+d", "a%26b%3Dc%2Bd"),
    ],
)
def test_a_path_value_is_one_encoded_segment(value: Any, segment: str) -> None:
    """P3."""
    assert request_with(order_id=value).url == f"{BASE}/orders/{segment}/items"


@pytest.mark.parametrize(
    "value",
    [
        "", ".", "..", "/", "a/b", "../customers", "..\\customers", "17/refunds", "a/", "%2e%2e", "%2E", "..%2fadmin",
        "17%2Frefunds", "17%252frefunds", "17%25252Frefunds", "%5c..%5c", "..;", "..;x=1", ";x", " .. ", "%2e%2e%3bx",
        "\uff0e\uff0e\uff0fadmin", "\u2025", "a\r\nHost: rival.example", "a%0d%0aHost:x", "\0", "a\x7f", "a\u0085",
        "%25252525252f", "..#", "..?a", ".?a", "%2e%2e%23", "#", "?a", "%c0%ae%c0%ae", "17%c0%afrefunds", "%25c0%25af",
        "%u002e%u002e", "17%u2215refunds", "17%U002Frefunds", None, [], ["a"], {}, {"a": "b"}, "\ud800",
    ],
)  # fmt: skip
def test_what_could_become_another_segment_is_refused(value: Any) -> None:
    """P3: servers decode a path once or twice before they route it. `17%2Frefunds` then is another operation."""
    assert refused(order_id=value) == "/arguments/order_id"


SCALARS: Final = st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
HOSTILE: Final = st.lists(
    st.sampled_from(["..", ".", "/", "\\", "%2f", "%2e", "%25", "@", ":", ";", "?", "#", "//", "\r\n", "\0", " ", "a"]),
    max_size=6,
).map("".join)


@given(order_id=SCALARS | HOSTILE, q=SCALARS | HOSTILE | st.lists(SCALARS | HOSTILE, max_size=3))
def test_no_value_changes_where_the_request_goes(order_id: Any, q: Any) -> None:
    """P3: scheme, host, port, prefix and number of segments stay, also for a server that decodes twice."""
    try:
        url = request_with(order_id=order_id, q=q).url
    except ArgumentsInvalid:
        return
    assert url.isascii()
    assert len(url) <= MAX_URL_LENGTH
    read = urlsplit(url)
    assert (read.scheme, read.netloc, read.fragment) == ("https", "api.acme.example", "")
    for path in (read.path, unquote(read.path), unquote(unquote(read.path))):
        start, _, end = path.removeprefix("/shop/v1/orders/").rpartition("/")
        assert path.startswith("/shop/v1/orders/")
        assert (end, "/" in start, "\\" in start) == ("items", False, False)
        assert start not in {"", ".", ".."}


@given(value=SCALARS | HOSTILE)
def test_a_query_value_is_one_parameter(value: Any) -> None:
    """P3."""
    try:
        query = urlsplit(request_with(order_id="1", q=value).url).query
    except ArgumentsInvalid:
        return
    assert query.startswith("q=")
    assert not set(query.removeprefix("q=")) & set("&=+#?/ ")


@given(value=SCALARS | HOSTILE | st.text(st.characters(max_codepoint=255)))
def test_a_header_value_is_visible_ascii_on_one_line(value: Any) -> None:
    """P4: a line break would begin a header of its own, such as a second Authorization."""
    try:
        sent = request_with(order_id="1", X_Language=value).headers["X-Language"]
    except ArgumentsInvalid:
        return
    assert sent.isascii()
    assert sent.isprintable()
    assert sent == sent.strip() != ""


@pytest.mark.parametrize(
    "value", ["", " a", "a ", "a\r\nAuthorization: x", "a\nb", "ä", "a\tb", "a" * 1025, None, ["a"]]
)
def test_another_header_value_is_refused(value: Any) -> None:
    """P4."""
    assert refused(order_id="1", X_Language=value) == "/arguments/X-Language"


def test_a_list_repeats_its_query_parameter() -> None:
    assert request_with(order_id="1", q=["a b", 2, True]).url == f"{BASE}/orders/1/items?q=a%20b&q=2&q=true"
    assert request_with(order_id="1", q=[]).url == f"{BASE}/orders/1/items"
    assert refused(order_id="1", q=[["a"]]) == "/arguments/q"


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ({}, "/arguments/order_id"),
        ({"order_id": "1", "host": "rival.example"}, "/arguments/host"),
        ({"order_id": "1", "Q": "a"}, "/arguments/Q"),
        ({"order_id": "1", "a/b~c": "a"}, "/arguments/a~1b~0c"),
        ({"order_id": "1", "q": "a" * MAX_URL_LENGTH}, "/arguments"),
    ],
)
def test_what_is_missing_or_not_declared_is_refused(arguments: dict[str, Any], pointer: str) -> None:
    """P4."""
    with pytest.raises(ArgumentsInvalid) as refusal:
        request_for(Declaration.of(operation()), arguments, msgspec.UNSET)
    assert refusal.value.pointer == pointer


@pytest.mark.parametrize("place", ["query", "header"])
def test_a_required_argument_is_required_wherever_it_goes(place: str) -> None:
    """P4: a path's is, whatever a row says."""
    limit = {"name": "limit", "in": place, "required": True, "schema": {}}
    order_id = {"name": "order_id", "in": "path", "required": False, "schema": {}}
    declared = operation(parameters=[limit, order_id])
    assert refused(of=declared, order_id="1") == "/arguments/limit"
    assert refused(of=declared, limit="1") == "/arguments/order_id"
    assert request_with(of=declared, order_id="1", limit="1").method == "GET"


def test_the_longest_address_is_sent_and_a_longer_one_refused() -> None:
    """P4."""
    room = MAX_URL_LENGTH - len(f"{BASE}/orders/1/items?q=")
    assert len(request_with(order_id="1", q="a" * room).url) == MAX_URL_LENGTH
    assert refused(order_id="1", q="a" * (room + 1)) == "/arguments"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "This argument is required."),
        ({"order_id": "1", "host": "planted"}, "This argument is not declared."),
        (
            {"order_id": "planted/.."},
            "It is one segment of a path: not empty, without slashes, and no dots alone.",
        ),
        ({"order_id": "planted\0"}, "It holds a control character."),
        ({"order_id": "planted%c0"}, "Its percent-encoding is not that of UTF-8."),
        ({"order_id": "planted%2525252525"}, "It is percent-encoded too many times."),
        ({"order_id": ["planted"]}, "It is a text, a number, true or false."),
        ({"order_id": msgspec.json.decode("[" * 34 + "]" * 34)}, "It is nested deeper than 32 levels."),
        ({"order_id": "1", "q": "planted" * 400}, "The address would have more than 2048 characters."),
        (
            {"order_id": "1", "X-Language": "planted\n"},
            "A header has 1 to 1024 visible ASCII characters, with spaces inside only.",
        ),
    ],
)
def test_the_reason_names_the_rule_and_not_the_value(arguments: dict[str, Any], reason: str) -> None:
    """P11: it goes into a problem document, and perhaps into a bot's log."""
    with pytest.raises(ArgumentsInvalid) as refusal:
        request_for(Declaration.of(operation()), arguments, msgspec.UNSET)
    assert refusal.value.reason == reason


def test_the_reason_for_a_body_names_the_rule_and_not_the_value() -> None:
    """P11."""
    noting = operation(method="POST", body_schema=NOTE, is_body_required=True)
    reasons = []
    for of, body in ((operation(), {}), (noting, msgspec.UNSET), (noting, {"note": "planted text"})):
        with pytest.raises(ArgumentsInvalid) as refusal:
            request_with(body, of=of, order_id="1")
        reasons.append(refusal.value.reason)
    assert reasons == [
        "This operation takes no body.",
        "This operation needs a body.",
        "It is not as declared, by `maxLength`: 10.",
    ]


def test_an_argument_is_checked_against_its_schema() -> None:
    """P4: the reason names the rule, and never the value."""
    limited = with_schema(1, {"type": "integer", "maximum": 50})
    assert request_with(of=limited, order_id="1", q=50).url.endswith("?q=50")
    with pytest.raises(ArgumentsInvalid) as refusal:
        request_with(of=limited, order_id="1", q="planted-value")
    assert refusal.value.pointer == "/arguments/q"
    assert refusal.value.reason == 'It is not as declared, by `type`: "integer".'
    inner = with_schema(1, {"type": "array", "items": {"enum": ["a", "b"]}})
    assert refused(of=inner, order_id="1", q=["a", "c"]) == "/arguments/q/1"


def test_a_schema_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: the tests' network guard would fail, too."""
    elsewhere = with_schema(1, {"$ref": "https://rival.example/schema.json"})
    with pytest.raises(Exception, match="Unresolvable"):
        request_with(of=elsewhere, order_id="1", q="a")


def test_a_body_is_checked_and_encoded_again() -> None:
    """P4: of a member that was sent twice, the API gets the one that was checked."""
    noting = operation(method="POST", body_schema=NOTE, is_body_required=True)
    decoded = msgspec.json.decode(b'{"note": "too long for it", "note": "short"}')
    request = request_with(decoded, of=noting, order_id="1")
    assert (request.body, request.headers["Content-Type"]) == (b'{"note":"short"}', "application/json")
    assert refused({"note": "longer than ten"}, of=noting, order_id="1") == "/body/note"
    assert refused(None, of=noting, order_id="1") == "/body"
    assert refused(of=noting, order_id="1") == "/body"
    assert refused({}, order_id="1") == "/body"
    noting.is_body_required = False
    assert request_with(of=noting, order_id="1").body is None


def test_what_is_nested_too_deeply_is_refused() -> None:
    """P4: a schema that refers to itself would follow it until Python gives up."""
    deep: Any = "end"
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]
    tree = operation(method="POST", body_schema={"type": ["array", "string"], "items": {"$ref": "#"}})
    assert refused(deep, of=tree, order_id="1") == "/body"
    assert refused(order_id="1", q=deep) == "/arguments/q"
    assert request_with(deep[0][0], of=tree, order_id="1").body


@pytest.mark.parametrize("path", ["@rival.example/x", ".rival.example", ":8443/x", "", "x", "?a", "/a?b=c", "/a#b"])
def test_a_stored_path_that_leads_elsewhere_is_never_called(path: str) -> None:
    """P3: such a row was written by SQL."""
    with pytest.raises(ImproperlyConfigured):
        request_for(Declaration.of(operation(path=path, parameters=[])), {}, msgspec.UNSET)


def test_a_request_shows_nothing_of_its_values() -> None:
    """P11."""
    noting = operation(method="POST", body_schema=NOTE)
    request = request_with({"note": "planted"}, of=noting, order_id="planted", X_Language="planted")
    assert "planted" not in repr(request)


def test_json_is_asked_for_unless_the_operation_declares_what_is() -> None:
    accept = {"name": "accept", "in": "header", "schema": {"type": "string"}}
    declared = operation(parameters=[PARAMETERS[0], accept])
    assert request_with(order_id="1").headers["Accept"].startswith("application/json")
    assert request_for(Declaration.of(declared), {"order_id": "1", "accept": "text/csv"}, msgspec.UNSET).headers == {
        "accept": "text/csv"
    }


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        ({"items": {"allOf": [{"type": "integer"}] * 990}}, [1] * 3_000),
        ({"items": {"anyOf": [{"required": [f"n{number}" for number in range(3_500)]}, {}]}}, [{}] * 300),
        ({"properties": {"a": {"items": {"oneOf": [{"maximum": 2}, *[{"minimum": 9}] * 900]}}}}, {"a": [1] * 3_000}),
    ],
)
def test_a_check_that_takes_too_long_is_given_up(schema: Any, body: Any) -> None:
    """P14: a thousand schemas for each of thirty thousand values of a body take minutes."""
    validate_schema(schema)
    with pytest.raises(ArgumentsInvalid, match="/body") as refusal:
        request_with(body, of=operation(method="POST", body_schema=schema), order_id="1")
    assert "takes too long" in refusal.value.reason


def test_all_arguments_share_the_time_of_one_check() -> None:
    """P14: fifty parameters, each just below the limit, would take fifty times as long."""
    slow = {"type": "array", "items": {"allOf": [{"type": "integer"}] * 55}}
    many = [{"name": f"q{number}", "in": "query", "schema": slow} for number in range(50)]
    validate_parameters(many)
    with pytest.raises(ArgumentsInvalid) as refusal:
        request_for(
            Declaration.of(operation(path="/", parameters=many)),
            {f"q{number}": [1] * 300 for number in range(50)},
            msgspec.UNSET,
        )
    assert "takes too long" in refusal.value.reason


def test_an_ordinary_large_body_is_checked_whole() -> None:
    """P14: a thousand lines of an order are no attack."""
    line = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}, "note": NOTE}}
    lines = operation(method="POST", body_schema={"type": "array", "items": line})
    assert request_with([{"id": 1, "note": {"note": "a"}}] * 1_000, of=lines, order_id="1").body
    assert refused([{"id": 1}] * 999 + [{}], of=lines, order_id="1") == "/body/999"
