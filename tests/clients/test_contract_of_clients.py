"""The clients say what `openapi.yaml` says: calls, fields, answers, vocabularies and problems."""

import inspect
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import httpx
import pytest

import consumer_delegation as client
from consumer_delegation import answers, calls, problems
from consumer_delegation.ids import accepted
from tests.contract import CONTRACT, document
from tests.test_contract import problem_examples

METHODS: Final = {
    "createChallenge": "create_challenge",
    "readChallenge": "challenge",
    "withdrawChallenge": "withdraw",
    "complete": "complete",
    "authorize": "authorize",
    "callOperation": "call",
    "listOperations": "operations",
    "readToken": "token",
    "endToken": "end_token",
    "readConversation": "conversation",
    "closeConversation": "close",
}
BEYOND: Final = {"wait", "complete_with_handle"}
SHAPES: Final = {
    "IssuedChallenge": client.Challenge,
    "AccessToken": client.AccessToken,
    "ApiResponse": client.ApiResponse,
    "CallResult": client.CallResult,
    "Operation": client.Operation,
    "OperationList": client.OperationList,
    "TokenFacts": client.TokenFacts,
    "LastChallenge": client.LastChallenge,
    "Standing": client.Standing,
    "Confirmation": client.Confirmation,
    "EndedToken": client.EndedToken,
    "Conversation": client.Conversation,
    "ClosedConversation": client.ClosedConversation,
}
TYPESCRIPT: Final = CONTRACT.parent / "clients" / "typescript" / "src"


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = document()["components"]["schemas"][name]
    return found


def operations() -> dict[str, dict[str, Any]]:
    paths = document()["paths"].values()
    return {call["operationId"]: call for path in paths for method, call in path.items() if method != "parameters"}


def public_methods(owner: type[Any]) -> dict[str, Any]:
    return {name: method for name, method in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")}


def test_every_call_has_a_method_and_no_method_is_left_over() -> None:
    assert set(METHODS) == set(operations())
    assert set(public_methods(client.Delegation)) == {*METHODS.values(), *BEYOND}


def test_both_clients_have_the_same_methods() -> None:
    blocking, waiting = (public_methods(owner) for owner in (client.Delegation, client.AsyncDelegation))
    assert {name: inspect.signature(method) for name, method in blocking.items()} == {
        name: inspect.signature(method) for name, method in waiting.items()
    }
    assert all(inspect.iscoroutinefunction(method) for method in waiting.values())


@pytest.mark.parametrize(
    ("name", "wishes"), [("ChallengeRequest", calls.ChallengeWishes), ("AuthorizeRequest", calls.AuthorizeWishes)]
)
def test_wishes_are_the_fields_of_the_request(name: str, wishes: type[Any]) -> None:
    assert set(get_type_hints(wishes)) == set(schema(name)["properties"])


def test_wishes_of_a_token_are_the_parameters_of_its_read() -> None:
    parameters = operations()["readToken"]["parameters"]
    # The purpose is sent as a header; session and server are parameters of the path's other calls, too.
    named = {parameter["name"] for parameter in parameters if "name" in parameter} - {"purpose"}
    assert set(get_type_hints(calls.TokenWishes)) == named | set(get_type_hints(calls.At))


def test_wishes_of_a_call_are_the_fields_of_the_request() -> None:
    # The purpose is sent as a header.
    members = set(schema("CallRequest")["properties"]) - {"purpose"}
    assert members == set(get_type_hints(calls.CallWishes)) == members_of("CallWishes")


@pytest.mark.parametrize(("name", "shape"), SHAPES.items(), ids=SHAPES)
def test_answers_have_the_members_of_their_schema(name: str, shape: Any) -> None:
    members = {member.name: member for member in fields(shape) if member.name != "etag"}
    assert set(members) == set(schema(name)["properties"])
    optional = {each for each in members if members[each].default is not MISSING} | {
        each for each in members if members[each].default_factory is not MISSING
    }
    # A challenge that was only read has no link, so the class takes both.
    assert optional - {"url", "message"} == set(members) - set(schema(name)["required"])


def test_the_closed_vocabularies_are_the_same() -> None:
    for name in ("ChallengeStatus", "AuthorizationStatus"):
        assert list(get_args(getattr(answers, name))) == schema(name)["enum"]


@pytest.mark.parametrize("body", problem_examples().values(), ids=problem_examples())
def test_every_problem_of_the_contract_has_a_class_of_its_status(body: dict[str, Any]) -> None:
    problem = problems.problem_of(httpx.Response(body["status"], json=body))
    assert (problem.status, problem.code) == (body["status"], body["code"])
    assert type(problem) is not problems.Problem
    assert (problem.next and problem.next.operation) == (body["next"] and body["next"]["operation"])
    # The bug: a bot could not see `was_sent`, which the guide tells it to look at after a time-out.
    others = set(schema("Problem")["properties"]) - {"type", "title", "next"}
    assert {name: getattr(problem, name) for name in others} == {name: body.get(name) for name in others}


def test_codes_with_a_class_of_their_own_are_codes_of_the_contract() -> None:
    assert set(problems._BY_CODE) <= set(schema("ProblemCode")["enum"])


def test_what_helps_is_known_for_each_code() -> None:
    """The bug: bots said "try again in a minute" of what no time mends. A new code needs a place here."""
    codes = [code for found in problems._CODES.values() for code in found.split()]
    assert sorted(codes) == sorted(schema("ProblemCode")["enum"])


@pytest.mark.parametrize("body", problem_examples().values(), ids=problem_examples())
def test_only_a_sign_in_that_a_call_begins_is_promised(body: dict[str, Any]) -> None:
    """`missing_scope`, `insufficient_lifetime` and `challenged` have a `next` that helps, or none."""
    found = problems.problem_of(httpx.Response(body["status"], json=body))
    following = body["next"] and body["next"]["operation"]
    assert found.remedy != "sign_in" or following in {"createChallenge", "readChallenge"}
    assert found.remedy != "code" or following == "complete"
    assert found.remedy != "wait" or body["status"] in {429, 500, 502, 503, 504}
    assert found.remedy != "brand" or following != "createChallenge"


@pytest.mark.parametrize(
    ("status", "following", "remedy"),
    [
        (409, "createChallenge", "sign_in"),
        (409, "readChallenge", "sign_in"),
        (422, "complete", "code"),
        *[(status, None, "brand") for status in (400, 401, 403, 404, 409, 422)],
        *[(status, None, "wait") for status in (429, 500, 502, 503, 504)],
    ],
)
def test_a_code_of_tomorrow_goes_by_next_or_by_its_status(status: int, following: str | None, remedy: str) -> None:
    body = {"code": "of_tomorrow", "next": following and {"operation": following, "method": "POST", "path": "/"}}
    assert problems.problem_of(httpx.Response(status, json=body)).remedy == remedy


def test_what_another_try_cannot_mend_is_what_the_contract_says() -> None:
    meanings = schema("AuthorizationRequestError")["x-meanings"]
    hopeless = {code for code, meaning in meanings.items() if "another try does not help" in meaning.lower()}
    assert len(hopeless) > 10
    assert hopeless == answers._OF_THE_BRAND
    listed = re.search(r"OF_THE_BRAND = new Set\(\n(.*?)\.split", typescript("client"), re.DOTALL)
    assert listed
    assert set(" ".join(re.findall(r'"([^"]+)"', listed[1])).split()) == hopeless


def typescript(name: str) -> str:
    return (TYPESCRIPT / f"{name}.ts").read_text(encoding="utf-8")


def members_of(interface: str, module: str = "answers") -> set[str]:
    """Return the members of an interface of the TypeScript client, with those that it extends."""
    found = re.search(rf"export interface {interface}(?: extends (\w+))? {{\n(.*?)\n}}", typescript(module), re.DOTALL)
    assert found, interface
    return set(re.findall(r"^  (\w+)\??:", found[2], re.MULTILINE)) | (members_of(found[1]) if found[1] else set())


@pytest.mark.parametrize("name", [*SHAPES, "Challenge"])
def test_answers_in_typescript_have_the_members_of_their_schema(name: str) -> None:
    assert members_of(name) == set(schema(name)["properties"])


@pytest.mark.parametrize(
    ("name", "wishes"), [("ChallengeRequest", "ChallengeWishes"), ("AuthorizeRequest", "AuthorizeWishes")]
)
def test_wishes_in_typescript_are_the_fields_of_the_request(name: str, wishes: str) -> None:
    assert members_of(wishes) == set(schema(name)["properties"])


def test_problems_in_typescript_have_the_members_of_their_schema() -> None:
    assert members_of("ProblemDocument", "problems") == set(schema("Problem")["properties"])


def test_methods_in_typescript_are_those_of_the_python_client() -> None:
    methods = set(re.findall(r"^  async (\w+)[(<]", typescript("client"), re.MULTILINE))
    camels = {re.sub(r"_(\w)", lambda found: found[1].upper(), name) for name in public_methods(client.Delegation)}
    assert methods == camels


def test_vocabularies_in_typescript_are_the_same() -> None:
    for name in ("ChallengeStatus", "AuthorizationStatus"):
        found = re.search(rf"export type {name} =(.*?);", typescript("answers"), re.DOTALL)
        assert found
        assert re.findall(r'"(\w+)"', found[1]) == schema(name)["enum"]


def test_both_languages_have_the_same_problems() -> None:
    classes = {
        name for name, kind in vars(problems).items() if isinstance(kind, type) and kind.__module__ == problems.__name__
    }
    assert set(re.findall(r"^export class (\w+)", typescript("problems"), re.MULTILINE)) == classes - {"NextCall"}
    codes = re.search(r"BY_CODE.*?{(.*?)}", typescript("problems"), re.DOTALL)
    assert codes
    assert set(re.findall(r"(\w+):", codes[1])) == set(problems._BY_CODE)


def test_both_languages_say_the_same_of_each_code() -> None:
    table = re.search(r"REMEDIES: .*?{(.*?)\n}", typescript("problems"), re.DOTALL)
    assert table
    rows = re.findall(r"(\w+):\s+((?:\"[^\"]+\"[ +\n]*)+),", table[1])
    assert {name: " ".join(re.findall(r'"([^"]+)"', codes)).split() for name, codes in rows} == {
        name: codes.split() for name, codes in problems._CODES.items()
    }


def test_the_readmes_name_the_folder_that_is_installed() -> None:
    for language in ("python", "typescript"):
        assert f"clients/{language}" in (CONTRACT.parent / "clients" / language / "README.md").read_text()


def test_the_pattern_of_ids_is_that_of_the_contract() -> None:
    pattern = document()["components"]["parameters"]["ConversationId"]["schema"]["pattern"]
    for text in ("", ".", "..", "...", ".a", "..a", "a", "a/b", "a b", "é", "a" * 200, "|=;,+!$*()-", "a\n"):
        assert bool(re.fullmatch(pattern, text)) == _is_accepted(text), text


def _is_accepted(text: str) -> bool:
    try:
        accepted(text)
    except ValueError:
        return False
    return True


def test_the_clients_are_where_the_guide_says() -> None:
    assert Path(client.__file__ or "").parent == CONTRACT.parent / "clients" / "python" / "consumer_delegation"
