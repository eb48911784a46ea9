"""A bot asks which operations it can call: those of its own brand that nobody has switched off."""

from typing import Any

import pytest

from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation
from tests.brand_api import CALLING, NOTE, Caller
from tests.cast import make_bot

pytestmark = pytest.mark.django_db


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
    assert caller.bot.call("GET", "/operations") == (200, {"operations": []})


def test_the_list_is_of_the_keys_own_brand_and_needs_its_scope(caller: Caller, acme: Brand, rival: Brand) -> None:
    """P1."""
    assert make_bot(rival, *CALLING).call("GET", "/operations") == (200, {"operations": []})
    assert make_bot(acme, BotKey.Scope.TOKEN_READ).call("GET", "/operations")[0] == 403
    assert caller.bot.call("GET", "/operations?after=a")[1]["code"] == "unknown_parameter"
