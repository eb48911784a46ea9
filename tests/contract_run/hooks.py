"""Hooks for schemathesis: another client address for each call, and checks that it does not have."""

import itertools
from typing import Any, Final
from urllib.parse import urlencode

import schemathesis
from hypothesis import strategies as st

# Codes for malformed calls. A call that matches the contract's schemas must not get them.
MALFORMED: Final = {
    "malformed_json",
    "invalid_request_body",
    "invalid_conversation_id",
    "unsupported_media_type",
    "bad_request",
}
MALFORMED_QUERY: Final = {"unknown_parameter", "repeated_parameter", "invalid_min_ttl", "invalid_reason"}

# What `format: single-line` leaves out. The contract names no pattern for it: generators write line separators into
# source code as they are.
_SINGLE_LINE: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[
        *map(chr, range(0x20)), "\x7f", *map(chr, range(0x2028, 0x202F)), *map(chr, range(0x2066, 0x206A)),
    ]),
    max_size=140,
)  # fmt: skip
schemathesis.openapi.format("single-line", _SINGLE_LINE)

# Gunicorn answers a request line of more than 8,190 bytes with 414 before the product sees it
# (delegation_site/gunicorn.py). The longest path of a generated call has less than half of that.
_LONGEST_QUERY: Final = 4_000
# The contract's bound. A longer one is not refused: for RFC 9110 section 13.1.2 tags match or do not match.
_LONGEST_TAGS: Final = 1_000

OVER: Final = {"completed", "denied", "cancelled", "expired", "superseded", "withdrawn", "failed"}

_numbers = itertools.count()
_closed: set[str] = set()
_withdrawn: set[str] = set()


@schemathesis.hook
def filter_query(context: schemathesis.HookContext, query: dict[str, Any] | None) -> bool:
    """Leave out queries that the server in front of the product refuses."""
    return len(urlencode(query or {}, doseq=True, errors="surrogatepass")) <= _LONGEST_QUERY


@schemathesis.hook
def filter_headers(context: schemathesis.HookContext, headers: dict[str, Any] | None) -> bool:
    """Leave out entity tags that are longer than the contract says."""
    return len(str((headers or {}).get("If-None-Match", ""))) <= _LONGEST_TAGS


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Use a new client address for each call: after 30 wrong keys a minute an address gets 429, not 401."""
    number = next(_numbers)
    case.headers["X-Forwarded-For"] = f"198.{18 + number // 62500 % 2}.{number // 250 % 250}.{number % 250 + 1}"


@schemathesis.check
def problems_say_what_to_do_next(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Every refusal is a problem document with its own status and `next`. No well-formed call is called malformed."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == ["application/problem+json"], response.text
    problem = response.json()
    assert problem["status"] == response.status_code, problem
    assert "next" in problem, problem
    assert problem["type"].endswith(problem["code"]), problem
    if case.meta is not None and case.meta.generation.mode.is_positive:
        assert problem["code"] not in MALFORMED | MALFORMED_QUERY, problem


@schemathesis.check
def what_is_over_stays_over(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """A closed conversation hands out nothing more, and a withdrawn challenge never opens again."""
    if response.status_code >= 400 or response.status_code == 304:  # a 304 has no body
        return
    answer, operation = response.json(), case.operation.label
    if operation == "DELETE /conversations/{conversation_id}":
        _closed.add(answer["conversation_id"])
    elif operation.startswith("GET /conversations/{conversation_id}") and answer.get("conversation_id") in _closed:
        assert {row["status"] for row in answer["authorization_servers"]} == {"closed"}, answer
    elif "conversation_id" in case.path_parameters:
        assert case.path_parameters["conversation_id"] not in _closed, answer
    elif operation == "DELETE /challenges/{challenge_id}":
        _withdrawn.add(answer["challenge_id"])
    if "challenge_id" in answer and answer["challenge_id"] in _withdrawn:
        assert answer["status"] in OVER, answer
