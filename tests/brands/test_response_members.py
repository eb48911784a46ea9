"""Members of the token response for bots: which may be declared, and which values are passed on (E15, H8)."""

import json
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from oauth_client.response_members import MAX_MEMBERS_BYTES, ResponseMembers, declared_members
from oauth_client.validators import validate_token_response_members

TOKENS = {"access_token": "planted-access-token", "refresh_token": "planted-9Xk2Tz47", "token_type": "Bearer"}


def passed_on(names: list[str], **answer: Any) -> dict[str, Any]:
    found = declared_members(names, TOKENS | answer).found
    return dict(json.loads(found.reveal())) if found else {}


def left_out(names: list[str], **answer: Any) -> tuple[str, ...]:
    return declared_members(names, TOKENS | answer).left_out


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["instance_url", "id", "issued_at", "signature", "sfdc_community_url"],
        ["patient", "encounter", "need_patient_banner", "smart_style_url", "tenant", "fhirContext", "intent"],
        ["athlete", "team", "associated_user", "shop", "realmId", "authorization_details", "created_at"],
        ["https://acme.example/customer", "urn:acme:customer", "x" * 64],
        [f"member{number}" for number in range(20)],
    ],
)
def test_members_of_servers_in_the_field_can_be_declared(names: list[str]) -> None:
    validate_token_response_members(names)


SECRETS = [
    *("access_token", "refresh_token", "id_token", "token", "token_type", "device_code", "code", "client_secret"),
    *(
        "refreshToken",
        "REFRESH_TOKEN",
        "re-fresh.to_ken",
        "refresh:token",
        "refresh/token",
        "refresh",
        "rt",
        "RT",
        "at",
    ),
    *("password", "passwd", "pwd", "pin", "otp", "api_key", "private_key", "session_state", "cookie", "jwt", "auth"),
    *("assertion", "code_verifier", "nonce", "authorization", "credentials", "bearer", "user.token.value"),
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_name_that_could_be_a_secrets_is_refused(name: str) -> None:
    """E15: in whatever spelling."""
    with pytest.raises(ValidationError) as refused:
        validate_token_response_members(["instance_url", name])
    assert refused.value.messages == [f"{name} could hold a secret, so it is never passed on."]


@pytest.mark.parametrize("name", ["scope", "expires_in", "expires_at", "error", "error_description", "state", "iss"])
def test_a_name_that_is_ours_to_read_is_refused(name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        validate_token_response_members([name])
    assert refused.value.messages == [f"{name} is reserved."]


@pytest.mark.parametrize(
    "value",
    [
        None, "instance_url", {"instance_url": 1}, [1], [None], [""], ["a b"], ["a\n"], ["ä"], ["\uff54oken"],
        ["x" * 65], ["patient", "patient"], [f"member{number}" for number in range(21)], [["patient"]], [{}],
    ],
)  # fmt: skip
def test_what_is_no_list_of_names_is_refused(value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        validate_token_response_members(value)
    assert refused.value.messages == ["Name each member once, at most 20: letters, digits and _ . : / @ -"]


@pytest.mark.parametrize(
    "value",
    ["https://acme.my.example", "", 4711, 0, -1.5, 10**30, True, False, [], {}, ["a", None, {"b": 1}], {"id": 7}],
)
def test_every_kind_of_json_is_passed_on_as_it_is(value: Any) -> None:
    assert passed_on(["member"], member=value) == {"member": value}


def test_only_what_was_declared_and_came_is_passed_on() -> None:
    """E15."""
    answer = {"instance_url": "https://acme.example", "id": "7", "patient": None}
    assert passed_on(["instance_url", "patient", "athlete"], **answer) == {"instance_url": "https://acme.example"}
    assert declared_members(["patient"], TOKENS | answer) == ResponseMembers()
    assert declared_members([], TOKENS | answer) == ResponseMembers()


@pytest.mark.parametrize("name", [*SECRETS, "scope", "state", "iss"])
def test_a_name_that_only_sql_could_have_declared_is_not_passed_on(name: str) -> None:
    """E15."""
    assert declared_members([name], {**TOKENS, name: "planted"}) == ResponseMembers()


def test_a_member_inside_an_object_whose_name_could_be_a_secrets_is_dropped() -> None:
    """E15: Slack's `authed_user` holds a user's tokens; `state` is no protocol's word in there."""
    user = {"id": "U1", "scope": "chat:write", "state": "CA", "access_token": "xoxp-1", "refreshToken": "xoxe-1"}
    nested = {"list": [{"refresh_token": "xoxe-2", "rt": "xoxe-3", "kept": True}], "\u202eab": 1, "x" * 101: 1}
    assert passed_on(["authed_user", "team"], authed_user=user, team=nested) == {
        "authed_user": {"id": "U1", "scope": "chat:write", "state": "CA"},
        "team": {"list": [{"kept": True}]},
    }


HOLDS_A_TOKEN: list[Any] = [
    "planted-9Xk2Tz47",
    "planted-access-token",
    "https://acme.example/?t=planted-9Xk2Tz47",
    ["planted-9Xk2Tz47"],
    {"inner": {"t": "planted-9Xk2Tz47"}},
    {"planted-9Xk2Tz47": 1},
    '{"refresh_token": "another-one"}',
    "https://acme.example/?refresh_token=another-one",
    "refreshToken: another-one",
    "ACCESS-TOKEN another-one",
    # As an address writes it: `/` and `+` of a token are no exception, nor are the letters of its name.
    "https://acme.example/?t=1%2F%2F0dx%2BQ7rT",
    "https://acme.example/?t=planted%2D9Xk2Tz47",
    "https://acme.example/?t=1//0dx%2bQ7rT",
    "https://acme.example/?refresh%5Ftoken=another-one",
    "https://acme.example/?refresh+token=another-one",
    {"address": ["https://acme.example/?t=1%2f%2f0dx%2bQ7rT"]},
]


@pytest.mark.parametrize("value", HOLDS_A_TOKEN)
def test_a_value_that_holds_a_token_is_left_out_under_any_name(value: Any) -> None:
    """E15: a server that repeats its tokens elsewhere, by mistake or not."""
    tokens = {"id_token": "1//0dx+Q7rT"}
    assert passed_on(["id", "member"], id=7, member=value, **tokens) == {"id": 7}
    assert left_out(["id", "member"], id=7, member=value, **tokens) == ("member",)


def test_a_token_deep_inside_the_answer_is_known_as_one() -> None:
    """E15: also where it is not the answer's own."""
    deep = {"authed_user": {"more": [{"refresh_token": "planted-deep-token"}]}, "member": "planted-deep-token"}
    assert left_out(["member"], **deep) == ("member",)


@pytest.mark.parametrize(
    "value", ["a valid token", "paid tokens", "accessible tokens", "DE", "Bearer", "opaque", "a%2Fb%zz+c"]
)
def test_an_innocent_text_is_passed_on(value: str) -> None:
    assert passed_on(["member"], member=value, country_code="DE", token_format="opaque-") == {"member": value}


def test_text_is_cleaned() -> None:
    """H8: no control character, no change of direction, no half of a character; what can be read stays."""
    dirty = "Zo\u00eb\u202eevil\r\nSet-Cookie: x\u0000\u2028\ud800 \u4e2d\u6587"
    assert passed_on(["member"], member={"name": dirty}) == {
        "member": {"name": "Zo\u00eb evil  Set-Cookie: x    \u4e2d\u6587"}
    }


def test_what_is_too_large_is_left_out_and_the_rest_is_not() -> None:
    """H8: in the order of the names, counted in bytes."""
    answer = {"first": "x" * 2000, "large": "\u00e9" * 1500, "last": "y" * 1000}
    assert passed_on(["first", "large", "last"], **answer) == {"first": answer["first"], "last": answer["last"]}
    assert left_out(["first", "large", "last"], **answer) == ("large",)


def test_the_limit_is_4_kb_to_the_byte() -> None:
    most = MAX_MEMBERS_BYTES - len('{"member":""}')
    assert left_out(["member"], member="x" * most) == ()
    assert left_out(["member"], member="x" * (most + 1)) == ("member",)


def test_what_no_json_of_ours_could_hold_is_left_out() -> None:
    """H8: 1e999 is no number when it is read; and nobody nests a patient six levels deep."""
    assert left_out(["member"], member=json.loads("1e999")) == ("member",)
    assert left_out(["member"], member=json.loads("[" * 5 + "]" * 5)) == ()
    assert left_out(["member"], member=json.loads("[" * 5 + "0" + "]" * 5)) == ("member",)


def test_an_answer_that_is_nested_deeply_is_no_fault_of_ours() -> None:
    """The token has been issued by then: a crash would leave it alive at the brand."""
    deep: Any = "x"
    for _ in range(20_000):
        deep = [deep]
    assert left_out(["member"], member=deep, other=deep) == ("member",)


def test_members_show_nothing_when_printed() -> None:
    """K5, H1."""
    assert repr(declared_members(["patient"], {"patient": "planted"})) == (
        "ResponseMembers(found=Secret(...), left_out=())"
    )
