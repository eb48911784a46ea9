"""`openapi.yaml` is a valid OpenAPI 3.1 document that names every call, every code and every status."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from openapi_spec_validator import validate

from brands.models import BotKey, Brand, SamePersonCheck
from conversations.api.calls import AuthorizeBody, CallBody, ChallengeBody, CompletionBody
from conversations.api.flow_problems import OPERATIONS
from conversations.flow.authorization_status import AuthorizationStatus
from conversations.flow.errors import CallOutcome
from conversations.models import AccessToken, Challenge, ChallengeStatus
from oauth_client import ErrorCode
from tests import contract
from tests.cast import make_bot
from tests.contract import CONTRACT, document

ROOT = CONTRACT.parent


def test_the_contract_is_a_valid_openapi_document() -> None:
    validate(document())


def test_the_contract_and_the_addresses_name_the_same_calls() -> None:
    addressed = set()
    for pattern in _api_patterns():
        template = re.sub(
            r"\(\?P<(\w+)>[^)]*\)|<str:(\w+)>", lambda m: "{" + (m[1] or m[2]) + "}", str(pattern.pattern)
        )
        addressed.add("/" + template.removeprefix("^").removesuffix(r"\Z"))
    assert addressed == set(document()["paths"])


def test_the_vocabularies_are_the_same() -> None:
    schemas = document()["components"]["schemas"]
    assert schemas["ChallengeStatus"]["enum"] == ChallengeStatus.values
    assert schemas["AuthorizationStatus"]["enum"] == list(AuthorizationStatus)
    assert schemas["SamePersonCheck"]["enum"] == SamePersonCheck.values
    assert schemas["ChallengeError"]["enum"] == Challenge.Error.values
    of_revocation = {error for error in ErrorCode if "revocation" in error} | {ErrorCode.UNSUPPORTED_TOKEN_TYPE}
    assert set(schemas["AuthorizationRequestError"]["enum"]) == set(ErrorCode) - of_revocation
    # A token that nobody confirmed was never announced, so its end is not told.
    assert set(schemas["TokenEndReason"]["enum"]) == set(AccessToken.EndReason.values) - {"unconfirmed"}
    assert set(schemas["EndReason"]["enum"]) < set(schemas["TokenEndReason"]["enum"])


def test_the_request_bodies_have_the_same_fields() -> None:
    schemas = document()["components"]["schemas"]
    for names, shape in (
        (["ChallengeRequest"], ChallengeBody),
        (["AuthorizeRequest"], AuthorizeBody),
        (["CallRequest"], CallBody),
        (["CodeCompletion", "HandleCompletion"], CompletionBody),
    ):
        named = {field for name in names for field in schemas[name]["properties"]}
        assert named == set(shape.__struct_fields__)
        assert {schemas[name]["additionalProperties"] for name in names} == {False}


def test_a_code_and_a_handle_are_completed_with_the_same_other_fields() -> None:
    """The bug: a code could not name its session, which it has to where ids are reused (S4)."""
    schemas = document()["components"]["schemas"]
    code, handle = (set(schemas[name]["properties"]) for name in ("CodeCompletion", "HandleCompletion"))
    assert code - {"code"} == handle - {"handle"} == {"authorization_server", "session"}


def test_every_problem_code_of_the_product_has_an_example_and_none_is_left_over() -> None:
    raised = set(AuthorizationStatus) - {"closed"} | {"bad_request", "not_found", "internal_error", "unavailable"}
    for file in [*(ROOT / "conversations/api").glob("*.py"), ROOT / "web/errors.py"]:
        raised |= set(re.findall(r'Problem\(\s*\d{3},\s*"([a-z_]+)"', file.read_text()))
    raised |= set(re.findall(r'\(\s*\d{3},\s*"([a-z_]+)"', (ROOT / "conversations/api/flow_problems.py").read_text()))
    raised |= set(CallOutcome)
    assert len(raised) > 30
    assert {problem["code"] for problem in problem_examples().values()} == raised
    assert set(document()["components"]["schemas"]["ProblemCode"]["enum"]) == raised


def test_every_example_is_what_its_schema_says() -> None:
    seen = set()
    for name, content in contents():
        found = contract.examples(content)
        assert found, f"{name} has no example"
        for example in found.values():
            contract.validate(example, content["schema"])
        seen |= {example["$ref"].rsplit("/", 1)[1] for example in content["examples"].values() if "$ref" in example}
    # One code is of no call: it is what another method is answered.
    assert set(document()["components"]["examples"]) - seen == {"method_not_allowed"}
    contract.validate(problem_examples()["method_not_allowed"], {"$ref": "#/components/schemas/Problem"})


def test_an_example_of_a_problem_stands_below_its_own_status() -> None:
    responses = document()["components"]["responses"]
    for methods in document()["paths"].values():
        for method in set(methods) - {"parameters"}:
            for status, answer in methods[method]["responses"].items():
                if "$ref" in answer:
                    content = responses[answer["$ref"].rsplit("/", 1)[1]]["content"][contract.PROBLEM]
                    assert {example["status"] for example in contract.examples(content).values()} == {int(status)}


def test_every_reason_to_ask_again_has_an_example() -> None:
    reasons = {problem["reason"] for problem in problem_examples().values() if "reason" in problem}
    assert reasons == set(document()["components"]["schemas"]["EndReason"]["enum"])


def test_the_calls_that_problems_send_to_are_those_of_the_contract() -> None:
    assert contract.operations() == OPERATIONS


@pytest.mark.django_db
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_key_needs_the_scopes_that_the_contract_names_and_no_other(acme: Brand, operation: str) -> None:
    method, address = OPERATIONS[operation]
    path = address.removeprefix("/api/v1").format(conversation_id="a", challenge_id="b", operation="c")
    ((needed, *instead),) = (
        [way["botKey"] for way in call["security"]]
        for calls in document()["paths"].values()
        for call in calls.values()
        if "operationId" in call and call["operationId"] == operation
    )
    for left_out in needed:
        others = set(BotKey.Scope.values) - {left_out}.union(*instead)
        status, problem = make_bot(acme, *others).call(method, path)
        assert (status, problem["code"]) == (403, "insufficient_scope")
        assert left_out in problem["detail"]
    assert make_bot(acme, *needed).call(method, path)[0] in {200, 404, 422}


def test_every_status_of_a_challenge_has_an_example() -> None:
    content = document()["paths"]["/challenges/{challenge_id}"]["get"]["responses"]["200"]["content"]
    statuses = [example["status"] for example in contract.examples(content["application/json"]).values()]
    assert statuses == ChallengeStatus.values


def test_every_link_leads_to_a_call_of_the_contract() -> None:
    linked = set(re.findall(r"operationId: (\w+), parameters", CONTRACT.read_text(encoding="utf-8")))
    # Nothing in an answer leads to the list, which has no parameters.
    assert linked == set(OPERATIONS) - {"listOperations"}


def problem_examples() -> dict[str, Any]:
    """Return the problem documents among the named examples."""
    named = document()["components"]["examples"]
    return {name: example["value"] for name, example in named.items() if "code" in example["value"]}


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every content of the contract, with where it stands."""
    for name, answer in document()["components"]["responses"].items():
        if "content" in answer:  # the answers to webhooks have none
            yield name, answer["content"][contract.PROBLEM]
    for methods in document()["paths"].values():
        for method in set(methods) - {"parameters"}:
            operation = methods[method]
            if "requestBody" in operation:
                yield operation["operationId"], operation["requestBody"]["content"]["application/json"]
            for answer in operation["responses"].values():
                if "content" in answer:
                    yield operation["operationId"], answer["content"]["application/json"]


def _api_patterns() -> list[URLPattern]:
    (api,) = (
        resolver
        for resolver in get_resolver().url_patterns
        if isinstance(resolver, URLResolver) and str(resolver.pattern) == "api/v1/"
    )
    return [pattern for pattern in api.url_patterns if isinstance(pattern, URLPattern)]
