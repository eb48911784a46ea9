"""Settings for servers that differ from the standard. Each is a field and off by default."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError

from brands.models import AuthorizationServer
from oauth_client import validators
from tests.admin_pages import House, address
from tests.brands.test_admin_forms import errors_of
from tests.brands.test_apply_config import apply, configuration

pytestmark = pytest.mark.django_db

ORDERS, INVOICES = "https://api.acme.example/orders", "urn:acme:invoices"


def stored() -> AuthorizationServer:
    return AuthorizationServer.objects.get(key="orders", brand__slug="acme")


def send(house: House, **changes: Any) -> Any:
    return house.admin.send_changed(address(AuthorizationServer, "change", house.server), **changes)


DIALECTS: dict[str, tuple[Any, Any]] = {
    "resource": ([], [ORDERS, INVOICES]),
    "send_client_id_with_basic": (False, True),
    "scope_separator": ("space", "comma"),
    "accepted_token_type": ("", "User Access Token"),
    "accept_zero_expires_in": (False, True),
    "trusted_audiences": ([], ["https://api.acme.example", "project-7"]),
    "accept_scope_in_authorization_response": (False, True),
    "dpop_bound_access_tokens": (False, True),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_file_sets_a_dialect_and_a_file_without_it_takes_it_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, chosen = DIALECTS[name]
    apply(configuration(**{name: chosen}), monkeypatch)
    assert getattr(stored(), name) == getattr(stored().configuration(""), name) == chosen

    apply(configuration(), monkeypatch)
    assert getattr(stored(), name) == getattr(stored().configuration(""), name) == usual


@pytest.mark.parametrize("name", DIALECTS)
def test_the_form_shows_what_is_stored_and_keeps_it(name: str, houses: tuple[House, House]) -> None:
    acme, _ = houses
    AuthorizationServer.objects.filter(pk=acme.server.pk).update(**{name: DIALECTS[name][1]})

    assert send(acme).status_code == 302

    acme.server.refresh_from_db()
    assert getattr(acme.server, name) == DIALECTS[name][1]


def test_resources_are_written_one_on_each_line(houses: tuple[House, House]) -> None:
    """B23."""
    acme, _ = houses

    assert send(acme, resource=f"  {ORDERS}\r\n\r\n{INVOICES}  \r\n").status_code == 302

    acme.server.refresh_from_db()
    assert acme.server.resource == [ORDERS, INVOICES]
    assert (
        f"{ORDERS}\n{INVOICES}" in acme.admin.get(address(AuthorizationServer, "change", acme.server)).content.decode()
    )


@pytest.mark.parametrize("typed", ["orders", f"{ORDERS}#part", f"{ORDERS} {INVOICES}", f"{ORDERS}\n{ORDERS}"])
def test_a_resource_that_is_none_is_said_at_its_field(typed: str, houses: tuple[House, House]) -> None:
    """B23: and what was typed is shown again."""
    acme, _ = houses

    answer = send(acme, resource=typed)

    assert list(errors_of(answer)) == ["resource"]
    assert typed in answer.content.decode()


def test_resource_among_the_extra_parameters_is_said_with_the_field_to_use(houses: tuple[House, House]) -> None:
    """B20."""
    acme, _ = houses

    answer = send(acme, extra_authorization_parameters=f'{{"resource": "{ORDERS}"}}')

    assert errors_of(answer) == {
        "extra_authorization_parameters": ["resource is not allowed here: use the field of that name."]
    }


def test_a_file_that_names_resource_as_an_extra_parameter_is_told_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """B20."""
    with pytest.raises(CommandError, match="resource is not allowed here: use the field of that name"):
        apply(configuration(extra_authorization_parameters={"resource": ORDERS}), monkeypatch)


@pytest.mark.parametrize("separator", ["comma", "comma_in_response"])
@pytest.mark.parametrize("name", ["scope", "required_scope"])
def test_scopes_are_written_with_spaces_whatever_the_wire_has(
    separator: str, name: str, houses: tuple[House, House]
) -> None:
    """E14: one writing inside, so that grant, comparison and bots agree."""
    acme, _ = houses
    changes = {"scope": "read activity:read", "required_scope": "read", name: "read,activity:read"}

    answer = send(acme, **changes, scope_separator=separator)

    assert "Separate scopes with spaces" in errors_of(answer)[name][0]


def test_a_scope_of_4000_characters_can_be_configured(houses: tuple[House, House]) -> None:
    """E21. The bug: 1,000 were the most."""
    acme, _ = houses
    scope = "openid " + "s" * 3993

    assert send(acme, scope=scope, required_scope=scope).status_code == 302

    acme.server.refresh_from_db()
    assert (acme.server.scope, acme.server.required_scope) == (scope, scope)
    assert list(errors_of(send(acme, scope=scope + "s"))) == ["scope"]


@pytest.mark.parametrize("typed", ["DPoP", "dpop", "MAC", "PoP", "N_A", "Be\tarer", "Träger", "a" * 65, "two  spaces"])
def test_a_token_type_that_is_no_bearer_tokens_is_refused_at_its_field(typed: str, houses: tuple[House, House]) -> None:
    """E7: bots could not use such a token, and whoever tried would show it to the wrong one."""
    acme, _ = houses

    assert list(errors_of(send(acme, accepted_token_type=typed))) == ["accepted_token_type"]


@pytest.mark.parametrize("client_id", ["bot:1", ":", "urn:acme:bot"])
def test_a_client_id_with_a_colon_has_no_raw_writing(client_id: str, houses: tuple[House, House]) -> None:
    """E22: RFC 7617 section 2 ends the name at the first colon, so the server would read another client and secret."""
    acme, _ = houses
    raw = {"client_id": client_id, "client_secret": "typed", "basic_encoding": "raw"}

    assert list(errors_of(send(acme, **raw))) == ["basic_encoding"]
    assert send(acme, **raw, token_endpoint_auth_method="client_secret_post").status_code == 302
    assert (
        send(acme, **raw | {"basic_encoding": "form"}, token_endpoint_auth_method="client_secret_basic").status_code
        == 302
    )


@pytest.mark.parametrize("typed", ["a b", "a\na", "a" * 256, "\n".join(map(str, range(11))), "ä"])
def test_a_trusted_audience_that_is_none_is_refused_at_its_field(typed: str, houses: tuple[House, House]) -> None:
    """E17."""
    acme, _ = houses

    assert list(errors_of(send(acme, trusted_audiences=typed))) == ["trusted_audiences"]


@pytest.mark.parametrize("value", [None, "a", {"a": 1}, [1], [None], ["a", "a"], [["a"]], [""]], ids=str)
def test_what_is_no_list_of_audiences_is_refused(value: object) -> None:
    """E17: also out of a file."""
    with pytest.raises(ValidationError) as refused:
        validators.validate_audiences(value)

    assert refused.value.code == "invalid_audience"
