"""`[[apis]]` in the file of `apply_config`: APIs and operations come back from an export as they were."""

from datetime import timedelta
from typing import Any, Final

import pytest
from django.utils import timezone

from brands.configuration_tables import OperationTable
from brands.models import AuthorizationServer, Brand, BrandAPI, Operation
from infrastructure.models import AuditEvent
from tests import snapshot
from tests.brands.test_apply_config import apply, configuration, refused
from tests.brands.test_dry_run import dry, run
from tests.brands.test_export_config import exported
from tests.cast import declare_api, declare_operation

pytestmark = pytest.mark.django_db
__all__ = ["dry", "run"]

API: Final = """
[[apis]]
key = "orders-api"
authorization_server = "orders"
base_url = "https://api.acme.example/v1"
"""
OPERATION: Final = """
[[apis.operations]]
name = "orders.read"
method = "GET"
path = "/orders/{order_id}"
parameters = [{name = "order_id", in = "path", required = true, schema = {type = "string"}}]
scope = "orders.read"
description = {en = "see your orders", de = "Bestellungen sehen"}
"""
POST: Final = OPERATION.replace('"GET"', '"POST"')
# A value for each setting, other than its default.
EVERY_SETTING: Final[dict[str, Any]] = {
    "method": "POST",
    "path": "/orders/{order-id}/notes/",
    "scope": "orders.write #[x]='y'",
    "description": {"en": 'write "a" note', "he": "לכתוב"},
    "is_safe_to_repeat": True,
    "parameters": [
        {"name": "order-id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 20}},
        {
            "name": "filter[\"'\\]",
            "in": "query",
            "required": False,
            "schema": {"enum": ["ä", 1.5, -7, True, {"a": []}]},
        },
    ],
    "body_schema": {
        "type": ["object", "null"],
        "properties": {"a b": {"maximum": 0.00001}, "": {"minimum": -1e20 / 100}},
    },
    "is_body_required": True,
}


def test_a_file_declares_an_api_and_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(configuration() + API + OPERATION, monkeypatch)
    operation = Operation.objects.select_related("api__authorization_server", "brand").get()
    assert (operation.api.key, operation.api.authorization_server.key, operation.brand.slug) == (
        "orders-api", "orders", "acme",
    )  # fmt: skip
    assert (operation.method, operation.path, operation.scope) == ("GET", "/orders/{order_id}", "orders.read")
    assert (operation.description["de"], operation.body_schema, operation.is_active) == (
        "Bestellungen sehen",
        None,
        True,
    )
    kinds = ["brand_api.created", "brand_api.host_changed", "operation.created"]
    assert list(AuditEvent.objects.order_by("-id").values_list("kind", flat=True)[:3])[::-1] == kinds


def test_an_export_that_is_applied_again_changes_nothing(
    acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = declare_api(acme_server, is_active=False, host_since=timezone.now() - timedelta(days=1))
    assert set(EVERY_SETTING) == set(OperationTable.stored_settings())
    declare_operation(api, "orders.note", **EVERY_SETTING).full_clean()
    declare_operation(api, "orders.list", is_active=False)
    declare_operation(declare_api(acme_server, "second"), "second.list", description="see more").full_clean()
    before, text = snapshot.stored(), exported()
    apply(text, monkeypatch)
    assert snapshot.stored() == before
    Operation.objects.all().delete()
    BrandAPI.objects.all().delete()
    apply(text, monkeypatch)
    assert exported() == text


def test_a_dry_run_shows_what_would_change(run: Any, dry: Any) -> None:
    *lines, parameters, scope, description = dry(configuration() + API + OPERATION)[-10:]
    assert lines == [
        "apis.orders-api: would be created",
        '  authorization_server: "orders"',
        '  base_url: "https://api.acme.example/v1"',
        "apis.orders-api.operations.orders.read: would be created",
        '  name: "orders.read"',
        '  method: "GET"',
        '  path: "/orders/{order_id}"',
    ]
    # PostgreSQL has an order of its own for the names of an object.
    assert (parameters[:16], '"schema" = {"type" = "string"}' in parameters) == ("  parameters: [{", True)
    assert (scope, '"de" = "Bestellungen sehen"' in description) == ('  scope: "orders.read"', True)
    run(configuration() + API + OPERATION)
    assert dry(configuration() + API + OPERATION) == ["Nothing would change."]
    changed = API.replace("api.acme", "new.acme") + OPERATION.replace('scope = "orders.read"', "is_active = false")
    assert dry(configuration() + changed) == [
        "apis.orders-api: would be changed",
        '  base_url: "https://api.acme.example/v1" -> "https://new.acme.example/v1"',
        "apis.orders-api.operations.orders.read: would be changed",
        "  is_active: true -> false",
        '  scope: "orders.read" -> ""',
    ]


def test_a_new_host_in_a_file_gets_no_older_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """P2, N8: the same rule as in the admin's form."""
    apply(configuration() + API, monkeypatch)
    past = timezone.now() - timedelta(days=1)
    BrandAPI.objects.update(host_since=past)
    apply(configuration() + API.replace("/v1", "/v2"), monkeypatch)
    assert BrandAPI.objects.get().host_since == past
    apply(configuration() + API.replace("api.acme", "new.acme"), monkeypatch)
    assert BrandAPI.objects.get().host_since > past
    changed = AuditEvent.objects.filter(kind="brand_api.host_changed").latest("id")
    assert changed.changed_values == {"base_url": ["api.acme.example", "new.acme.example"]}


def test_an_api_of_many_hosts_survives_export_and_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """P2."""
    many = API.replace("api.acme", "*.acme") + 'host_member = "instance_url"\n'
    apply(configuration(token_response_members=["instance_url"]) + many, monkeypatch)
    text = exported()
    assert 'base_url = "https://*.acme.example/v1"\nhost_member = "instance_url"\n' in text
    BrandAPI.objects.all().delete()
    apply(text, monkeypatch)
    assert BrandAPI.objects.get().host_member == "instance_url"
    assert exported() == text


def test_what_the_file_does_not_mention_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that was switched off is not switched on by an old file, and none is deleted."""
    apply(configuration() + API + OPERATION, monkeypatch)
    Operation.objects.update(is_active=False, is_safe_to_repeat=True)
    apply(configuration() + API + OPERATION, monkeypatch)
    assert Operation.objects.values_list("is_active", "is_safe_to_repeat").get() == (False, False)
    apply(configuration(), monkeypatch)
    assert Operation.objects.count() == BrandAPI.objects.count() == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (API.replace('"orders"', '"none"'), "authorization_server: the brand has no authorization server of this key"),
        (API.replace("https:", "http:"), "base_url: The URL must begin with https://."),
        (API.replace("api.acme", "*.acme"), "host_member: Name the member of the token response"),
        (API + 'host_member = "instance_url"', "host_member: Begin the host of the base URL with *."),
        (API + API, "the key is given twice"),
        (API + OPERATION * 2, "operations.orders.read: the brand has one operation of a name"),
        (API + "base_urI = 7", "base_urI: there is no such setting. Do you mean base_url?"),
        (API + "operations = 7", "operations: Expected `array`, got `int`"),
        (
            API + OPERATION.replace("/orders/{order_id}", "/orders/.."),
            "path: The path has an empty segment, // or . or",
        ),
        (API + OPERATION.replace("/{order_id}", ""), "parameters: The path has no {order_id}: write it there"),
        (API + OPERATION.replace('"order_id"', '"Cookie"').replace('"path"', '"header"'), "Cookie cannot be declared"),
        (API + OPERATION + "body_schema = {}", "body_schema: A GET request has no body: leave this empty."),
        (API + POST + 'body_schema = {pattern = "a"}', "body_schema: 'pattern' cannot be used here"),
        (API + POST + "body_schema = {const = 1979-05-27}", "body_schema: Value must be valid JSON."),
        (API + OPERATION + "is_body_required = true", "is_body_required: Write the schema of the body, too."),
        (API + OPERATION.replace('"GET"', '"TRACE"'), "method: Value 'TRACE' is not a valid choice."),
        (API + OPERATION.replace('method = "GET"', ""), "method: it is missing"),
        (API + OPERATION.replace("scope", "scoop"), "scoop: there is no such setting. Do you mean scope?"),
        (API + '[[apis.operations]]\nmethod = "GET"\npath = "/"\n', "operations[0].name: it is missing"),
    ],
)
def test_a_mistake_is_named_where_it_is(text: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = refused(configuration() + text, monkeypatch)
    assert found.startswith(("apis.", "operations."))
    assert problem in found
    assert not BrandAPI.objects.exists()


def test_an_api_and_an_operation_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """P16: another server's tokens were issued before it had this host."""
    two_servers = configuration() + configuration(key="second").removeprefix('[brand]\nslug = "acme"\nname = "Acme"\n')
    apply(two_servers + API + OPERATION, monkeypatch)
    moved = API.replace('authorization_server = "orders"', 'authorization_server = "second"')
    (problem,) = refused(two_servers + moved, monkeypatch)
    assert problem.startswith("apis.orders-api.authorization_server: An API stays with its authorization server.")
    second = API.replace('"orders-api"', '"second-api"')
    (problem,) = refused(two_servers + API + second + OPERATION, monkeypatch)
    assert problem == (
        "apis.second-api.operations.orders.read.api: An operation stays with its API. Add another operation."
    )


def test_problems_of_a_server_do_not_hide_those_of_its_api(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = refused(configuration(token_endpoint="x") + API.replace("https:", "ftp:") + OPERATION, monkeypatch)
    assert [problem.partition(": ")[0] for problem in problems] == [
        "authorization_servers.orders.token_endpoint",
        "apis.orders-api.base_url",
    ]
    assert not Brand.objects.exists()
