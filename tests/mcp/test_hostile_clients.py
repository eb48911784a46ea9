"""What an MCP client could send to act for somebody else, or to bring the server down."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.demo.stage import Stage, wrong
from tests.mcp.players import BOOTS, BOTH, link_in
from tests.mcp.sites import NEWEST, Site, message_in, meta, text_of

pytestmark = pytest.mark.full

REFUSED = "Invalid or expired requestState"


def link_of(asked: Any) -> str:
    return str(asked["inputRequests"]["sign_in"]["params"]["url"])


def test_a_state_is_of_one_person_and_one_program(site: Site, stage: Stage) -> None:
    """The attack: Rita goes on with Ada's call, and is given Ada's orders."""
    ada = site.token("ada-of-states")
    link = site.round(ada)
    code = stage.consumer().gets_code(link_of(link))
    form = site.go_on(ada, link)
    for other in (site.token("rita-of-states"), site.token("ada-of-states", client_id="another")):
        assert site.go_on(other, link)["message"] == REFUSED
        assert site.go_on(other, form, {"digits": code})["message"] == REFUSED
    assert BOOTS in text_of(site.go_on(ada, form, {"digits": code}))


def test_a_state_is_of_one_tool_and_its_arguments(site: Site) -> None:
    ada = site.token("ada-of-tools")
    link = site.round(ada)
    for other in ({"tool": "confirm_sign_in"}, {"tool": "orders_delete"}, {"arguments": {"arguments": {"limit": 1}}}):
        assert site.go_on(ada, link, **other)["message"] == REFUSED


def test_a_state_that_was_changed_is_refused(site: Site) -> None:
    ada = site.token("ada-of-changes")
    link = site.round(ada)
    state = link["requestState"]
    middle = len(state) // 2
    flipped = state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :]
    changed = [flipped, state[:-1], state + "A", state[3:], "v2." + state[3:], "", "v1.", "{}", "x" * 100_000]
    answers = {text[:40]: site.go_on(ada, link, requestState=text)["message"] for text in changed}
    assert answers == dict.fromkeys(answers, REFUSED)
    for none in (7, ["a"], {"v": 1}):
        assert "message" in site.go_on(ada, link, requestState=none)


def test_a_state_of_a_call_that_is_over_does_nothing_twice(site: Site, stage: Stage) -> None:
    ada = site.token("ada-of-repeats")
    link = site.round(ada)
    code = stage.consumer().gets_code(link_of(link))
    form = site.go_on(ada, link)
    assert BOOTS in text_of(site.go_on(ada, form, {"digits": code}))
    assert BOOTS in text_of(site.go_on(ada, form, {"digits": wrong(code)}))
    assert BOOTS in text_of(site.go_on(ada, link))


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"digits": ""},
        {"digits": "12345"},
        {"digits": ["1", "2"]},
        {"digits": "9" * 100_000},
        {"digits": "\0"},
        {"other": "1"},
    ],
)
def test_an_answer_that_is_not_six_digits_is_asked_for_again(content: Any, site: Site, stage: Stage) -> None:
    """The bug: somebody who left out one digit got an error, and the call was over."""
    ada = site.token(f"ada-of-forms-{hash(str(content))}")
    link = site.round(ada)
    code = stage.consumer().gets_code(link_of(link))
    form = site.go_on(ada, link)
    again = site.go_on(ada, form, content)
    assert "shows six digits" in again["inputRequests"]["digits"]["params"]["message"]
    assert BOOTS in text_of(site.go_on(ada, again, {"digits": code}))


def test_digits_without_a_question_are_ignored(site: Site) -> None:
    ada = site.token("ada-of-answers")
    given = {"digits": {"action": "accept", "content": {"digits": "123456"}}}
    assert "sign_in" in site.round(ada, inputResponses=given)["inputRequests"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"conversation_id": "mcp:another"},
        {"session": 1},
        {"arguments": "text"},
        {"arguments": {"limit": "a"}},
        {"body": {"a": 1}},
        {"arguments": {"x": "y" * 500_000}},
        {"challenge": {"same_person_check": "none"}},
    ],
)
def test_arguments_that_no_tool_takes_are_refused_in_words(arguments: Any, site: Site) -> None:
    result = site.round(site.token("ada-of-arguments"), arguments=arguments)
    assert result["isError"] is True
    assert text_of(result).startswith("This tool takes no ")
    assert len(text_of(result)) < 200


def test_the_name_of_an_argument_is_not_echoed_at_any_length(site: Site) -> None:
    result = site.round(site.token("ada-of-names"), arguments={"a" * 500_000: 1})
    assert len(text_of(result)) < 200


BODIES = {
    "too long": b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "x": "' + b"y" * 5_000_000 + b'"}',
    "deep": b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"arguments": ' + b"[" * 100_000,
    "no JSON": b"{",
    "no object": b"[1, 2]",
    "not UTF-8": b'{"jsonrpc": "2.0", "id": 1, "method": "\xff"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("revision", ["2025-11-25", NEWEST, "1999-01-01"])
def test_a_body_that_nobody_can_read_is_refused(body: bytes, revision: str, site: Site) -> None:
    headers = {"MCP-Protocol-Version": revision, "Mcp-Method": "tools/list"}
    assert 400 <= site.posts(body, site.token(), **headers).status_code < 500


def test_a_session_is_of_whoever_began_it(site: Site) -> None:
    """The attack: Rita names Ada's session, and speaks in her conversation."""
    capabilities: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}}
    params = capabilities | {"clientInfo": {"name": "raw", "version": "1"}}
    begun = site.posts(
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}, site.token("ada-of-sessions")
    )
    session = {"Mcp-Session-Id": begun.headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-11-25"}
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    statuses = {
        who: site.posts(ping, token, **session).status_code
        for who, token in {
            "ada": site.token("ada-of-sessions"),
            "rita": site.token("rita-of-sessions"),
            "another program": site.token("ada-of-sessions", client_id="another"),
            "nobody": None,
        }.items()
    }
    assert statuses == {"ada": 200, "rita": 404, "another program": 404, "nobody": 401}


def test_the_same_call_twice_at_once_has_one_link(site: Site, stage: Stage) -> None:
    ada = site.token("ada-at-once")
    with ThreadPoolExecutor(8) as beside:
        asked = list(beside.map(lambda _: site.round(ada), range(8)))
        assert len({link_of(each) for each in asked}) == 1
        code = stage.consumer().gets_code(link_of(asked[0]))
        forms = list(beside.map(lambda each: site.go_on(ada, each), asked))
        answers = list(beside.map(lambda each: site.go_on(ada, each, {"digits": code}), forms))
    assert any(BOOTS in text_of(each) for each in answers)
    assert BOOTS in text_of(site.round(ada))


def test_a_client_that_can_show_links_alone_gets_the_digits_as_text(site: Site, stage: Stage) -> None:
    ada = site.token("ada-of-links")
    link = site.round(ada, ways=["url"])
    code = stage.consumer().gets_code(link_of(link))
    assert "Ask them for the six digits" in text_of(site.go_on(ada, link, _meta=meta(["url"])))
    confirmed = site.round(ada, "confirm_sign_in", ways=["url"], arguments={"digits": code})
    assert "confirmed" in text_of(confirmed)
    assert BOOTS in text_of(site.round(ada, ways=["url"]))


def test_a_client_that_has_forms_alone_gets_the_link_as_text(site: Site, stage: Stage) -> None:
    ada = site.token("ada-of-forms")
    asked = text_of(site.round(ada, ways=["form"]))
    code = stage.consumer().gets_code(link_in(asked))
    form = site.round(ada, ways=["form"])
    assert BOOTS in text_of(site.go_on(ada, form, {"digits": code}, _meta=meta(["form"])))


def test_no_log_line_has_what_was_sent(site: Site) -> None:
    """Faults are logged with a traceback, and pydantic's messages quote what they refuse."""
    planted = "planted-" + "7" * 20
    ada = site.token("ada-of-logs")
    calls: list[dict[str, Any]] = [
        {"name": planted, "arguments": {}},
        {"name": "confirm_sign_in", "arguments": {"digits": [planted]}},
        {"name": "confirm_sign_in", "arguments": planted},
        {"name": "orders_list", "arguments": {"arguments": {planted: planted}}},
        {"name": "orders_list", "arguments": {}, "requestState": planted},
        {"name": "orders_list", "arguments": {}, "inputResponses": {planted: planted}},
        {"name": "orders_list", "arguments": {}, "inputResponses": planted},
    ]
    for params in calls:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params | {"_meta": meta(BOTH)}}
        headers = {"MCP-Protocol-Version": NEWEST, "Mcp-Method": "tools/call", "Mcp-Name": params["name"]}
        assert "jsonrpc" in message_in(site.posts(body, ada, **headers))
    lines = [line for line in site.frames.read_bytes().splitlines() if planted.encode() in line]
    # The requests and the header that repeats a tool's name; an answer has no word of them.
    assert [line for line in lines if b'"params"' not in line and not line.startswith(b"Mcp-Name: ")] == []
