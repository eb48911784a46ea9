"""`openapi.yaml` is a valid OpenAPI 3.1 document that names every call, every code and every status."""

import re

from django.urls import URLPattern, URLResolver, get_resolver
from openapi_spec_validator import validate

from brands.models import SamePersonCheck
from conversations.api.shapes import AuthorizeBody, ChallengeBody, CompletionBody
from conversations.flow.standing import AuthorizationStatus
from conversations.models import AccessToken, Challenge, ChallengeStatus
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
    assert schemas["Challenge"]["properties"]["error"]["enum"] == [*Challenge.Error.values, None]
    told = set(schemas["EndReason"]["enum"]) - {None}
    assert told <= set(AccessToken.EndReason.values)


def test_the_request_bodies_have_the_same_fields() -> None:
    schemas = document()["components"]["schemas"]
    for name, shape in (
        ("ChallengeRequest", ChallengeBody),
        ("AuthorizeRequest", AuthorizeBody),
        ("Completion", CompletionBody),
    ):
        assert set(schemas[name]["properties"]) == set(shape.__struct_fields__)
        assert schemas[name]["additionalProperties"] is False


def test_every_problem_code_of_the_api_stands_in_the_contract() -> None:
    text = CONTRACT.read_text(encoding="utf-8")
    sources = [*(ROOT / "conversations/api").glob("*.py")]
    codes = {code for file in sources for code in re.findall(r'Problem\(\s*\d{3},\s*"([a-z_]+)"', file.read_text())}
    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in text} == {"method_not_allowed"}


def _api_patterns() -> list[URLPattern]:
    (api,) = (
        resolver
        for resolver in get_resolver().url_patterns
        if isinstance(resolver, URLResolver) and str(resolver.pattern) == "api/v1/"
    )
    return [pattern for pattern in api.url_patterns if isinstance(pattern, URLPattern)]
