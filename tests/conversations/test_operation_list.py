"""A bot asks which operations it can call: those of its own brand that nobody has switched off."""

from typing import Any, Final

import pytest

from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation
from tests.brand_api import CALLING, NOTE, Caller
from tests.cast import make_bot

pytestmark = pytest.mark.django_db
NOTHING: Final[dict[str, Any]] = {"operations": [], "next_after": None}


def test_a_bot_lists_what_it_can_call_and_how(caller: Caller) -> None:
    status, answer = caller.bot.call("GET", "/operations")
    assert status == 200
    assert [operation["name"] for operation in answer["operations"]] == ["orders.list", "orders.note", "orders.read"]
    assert answer["operations"][1] == {
        "name": "orders.note",
        "description": None,
        "input_schema": {
            "type": "object",
            "properties": {
                "arguments": {
                    "type": "object",
                    "properties": {"order_id": {"type": "string"}},
                    "required": ["order_id"],
                    "additionalProperties": False,
                },
                "body": NOTE,
            },
            "required": ["arguments"],
            "additionalProperties": False,
        },
        "read_only": False,
        "session_required": False,
    }


def test_only_what_a_call_takes_is_required_in_the_list(caller: Caller) -> None:
    Operation.objects.filter(name="orders.note").update(is_body_required=True, description={"en": "Adds a note."})
    operations = {operation["name"]: operation for operation in caller.bot.call("GET", "/operations")[1]["operations"]}
    assert operations["orders.list"]["input_schema"]["required"] == []
    assert operations["orders.note"]["input_schema"]["required"] == ["arguments", "body"]
    assert operations["orders.note"]["description"] == {"en": "Adds a note."}
    Operation.objects.filter(name="orders.list").update(parameters=[])
    assert caller.bot.call("GET", "/operations")[1]["operations"][0]["input_schema"]["properties"] == {}


def test_the_list_says_where_a_session_is_needed(caller: Caller) -> None:
    """P12."""
    Brand.objects.update(conversation_ids="reused")
    listed = caller.bot.call("GET", "/operations")[1]["operations"]
    needed = {operation["name"]: operation["session_required"] for operation in listed}
    assert needed == {"orders.list": False, "orders.note": True, "orders.read": False}


@pytest.mark.parametrize("model", [Operation, BrandAPI, AuthorizationServer])
def test_what_is_switched_off_is_not_listed(model: Any, caller: Caller) -> None:
    """P1."""
    model.objects.update(is_active=False)
    assert caller.bot.call("GET", "/operations") == (200, NOTHING)


def test_the_list_is_of_the_keys_own_brand_and_needs_its_scope(caller: Caller, acme: Brand, rival: Brand) -> None:
    """P1."""
    assert make_bot(rival, *CALLING).call("GET", "/operations") == (200, NOTHING)
    assert make_bot(acme, BotKey.Scope.TOKEN_READ).call("GET", "/operations")[0] == 403
    assert caller.bot.call("GET", "/operations?before=a")[1]["code"] == "unknown_parameter"


def pages(caller: Caller) -> list[list[str]]:
    """Follow the pages to the end."""
    found, path = [], "/operations"
    while path:
        status, page = caller.bot.call("GET", path)
        assert status == 200
        found.append([operation["name"] for operation in page["operations"]])
        path = f"/operations?after={page['next_after']}" if page["next_after"] else ""
    return found


def declared(caller: Caller, count: int, **values: Any) -> list[str]:
    """Declare so many operations more. Return the names of all."""
    api = BrandAPI.objects.get()
    usual = {"brand": api.brand, "api": api, "method": "GET", "path": "/orders"}
    Operation.objects.bulk_create([Operation(name=f"z{number:03}.read", **(usual | values)) for number in range(count)])
    return ["orders.list", "orders.note", "orders.read", *(f"z{number:03}.read" for number in range(count))]


def test_a_long_list_has_pages_of_a_hundred(caller: Caller) -> None:
    names = declared(caller, 200)
    assert pages(caller) == [names[:100], names[100:200], names[200:]]
    Operation.objects.filter(name__in=names[200:]).delete()
    assert pages(caller) == [names[:100], names[100:200]]


def test_a_page_is_no_larger_than_a_megabyte(caller: Caller) -> None:
    """The bug: a thousand operations with the longest schemas were one answer of more than 100 MB."""
    schema = {"type": "object", "description": "x" * 65_000}
    names = declared(caller, 40, method="POST", body_schema=schema)
    listed = pages(caller)
    assert [name for page in listed for name in page] == names
    assert max(len(page) for page in listed) < 1_000_000 / 65_000 + 3
    assert len(listed) > 2


def test_one_operation_that_is_larger_than_a_page_is_listed_alone(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conversations.api.operations.MAX_LISTED_BYTES", 10)
    assert pages(caller) == [["orders.list"], ["orders.note"], ["orders.read"]]


def test_a_page_goes_on_where_an_operation_has_gone(caller: Caller) -> None:
    Operation.objects.filter(name="orders.note").delete()
    answer = caller.bot.call("GET", "/operations?after=orders.note")[1]
    assert [operation["name"] for operation in answer["operations"]] == ["orders.read"]


@pytest.mark.parametrize("after", ["", "%F0%9F%98%80", "a/b", "orders.list%0A", "1", "a" * 101])
def test_what_is_no_name_is_refused(after: str, caller: Caller) -> None:
    status, problem = caller.bot.call("GET", f"/operations?after={after}")
    assert (status, problem["code"]) == (422, "invalid_after")
    assert caller.bot.call("GET", "/operations?after=a&after=b")[1]["code"] == "repeated_parameter"
