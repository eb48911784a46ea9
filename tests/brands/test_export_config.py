"""The export of a brand: a file without secrets that `apply_config` takes, by command and in the admin."""

import base64
import io
import re
import tomllib
from datetime import timedelta
from typing import Any, Final

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from brands.configuration_export import export_configuration, toml
from brands.configuration_file import apply_configuration, read_configuration
from brands.configuration_tables import AuthorizationServerTable
from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
from infrastructure.crypto import Secret
from tests import snapshot
from tests.admin_pages import AdminBrowser, House, address
from tests.cast import client_of_ours, declare_api, declare_operation, make_server

pytestmark = pytest.mark.django_db

CLIENT_SECRET: Final = 'planted-client-secret "quoted" \'é'
WEBHOOK_SECRET: Final = "whsec_" + base64.b64encode(b"planted secret of an endpoint...").decode()
NAME: Final = 'Acme "Größe" \\ שלום 🛒\n\t\x7f\u202e\u2028 end'
LOGIN: Final = "https://login.acme.example"
# A value for each setting, other than its default.
EVERY_SETTING: Final[dict[str, Any]] = {
    "client_id": "id with 'quotes', \"more\", é and\na line",
    "issuer": LOGIN,
    "authorization_endpoint": f"{LOGIN}/authorize?tenant=a%20b",
    "token_endpoint": f"{LOGIN}/token",
    "revocation_endpoint": f"{LOGIN}/revoke",
    "pushed_authorization_request_endpoint": f"{LOGIN}/par",
    "jwks_uri": f"{LOGIN}/jwks",
    "authorization_response_iss_parameter_supported": True,
    "token_endpoint_auth_method": "client_secret_post",
    "basic_encoding": "raw",
    "send_client_id_with_basic": True,
    "scope": "openid orders.read #[x]='y'",
    "scope_separator": "comma_in_response",
    "required_scope": "orders.read",
    "resource": ["https://api.acme.example/", "urn:orders"],
    "scope_descriptions": {
        "orders.read": {"en": 'see "your" orders', "de": "Bestellungen sehen", "he": "לראות"},
        "#[x]='y'": "see\\do [everything] = 🛒",
    },
    "same_person_checks": ["expected_subject", "completion_code"],
    "subject_claim": "https://acme.example/subject",
    "subject_member": "/data/id",
    "expected_claims_policy": "flag",
    "chat_page_url": "https://acme.example/chat",
    "prompt": "",
    "max_age": 600,
    "id_token_signing_alg_values": ["ES256", "RS256"],
    "denial_codes": "17 user_cancelled",
    "accept_scope_in_authorization_response": True,
    "accept_form_encoded_tokens": True,
    "accept_missing_token_type": True,
    "accepted_token_type": "User Access Token",
    "accept_zero_expires_in": True,
    "trusted_audiences": ['"orders"\\'],
    "token_response_members": ["instance_url"],
    "extra_authorization_parameters": {"audience": 'a "b" \\ é 🛒', "grant_options[]": "per-user"},
    "default_token_lifetime": 60,
    "max_token_lifetime": 7200,
    "challenge_lifetime": 600,
}
PUBLIC_CLIENT: Final = {
    "token_endpoint_auth_method": "none",
    "issuer": "https://other.acme.example",
    "jwks_uri": "",
    "pushed_authorization_request_endpoint": "",
    "authorization_response_iss_parameter_supported": False,
    "ignored_metadata": ["pushed_authorization_request_endpoint", "authorization_response_iss_parameter_supported"],
    "id_token_signing_alg_values": [],
    "scope": "",
    "same_person_checks": ["none"],
    "is_active": False,
    "userinfo_endpoint": f"{LOGIN}/me",
}
# Settings that cannot stand beside all the others; none that has openid has the first two.
IN_OTHER_ROWS: Final = {"userinfo_endpoint", "introspection_endpoint", "dpop_bound_access_tokens"}


@pytest.fixture
def furnished(acme: Brand) -> Brand:
    """Acme with every setting at another value than its default, and with rows that are switched off."""
    looks = {"name": NAME, "accent_colour": "#0a7d55", "support_contact": "mailto:help@acme.example"}
    sessions = {"conversation_ids": "reused", "close_idle_after": 30}
    Brand.objects.filter(pk=acme.pk).update(**looks, **sessions, token_read_purpose_required=True)
    acme.refresh_from_db()
    make_server(acme, "every-setting", CLIENT_SECRET, **EVERY_SETTING)
    make_server(acme, "public", "", **PUBLIC_CLIENT)
    asked = {"issuer": LOGIN, "introspection_endpoint": f"{LOGIN}/introspect", "dpop_bound_access_tokens": True}
    signed = make_server(acme, "signed", "", token_endpoint_auth_method="private_key_jwt", **asked)
    signed.update_signing_key()
    signed.rotate_signing_key(timezone.now() + timedelta(hours=1))
    signed.save()
    for path, active in (("hooks/T0/secret-looking-path", True), ("off", False)):
        endpoint = WebhookEndpoint(brand=acme, url=f"https://bot.acme.example/{path}", is_active=active)
        endpoint.label, endpoint.events = 'the "first"\n\\', ["challenge.*", "token.ended"]
        create_webhook_endpoint(endpoint, secret=Secret(WEBHOOK_SECRET))
    return acme


def exported(brand: str = "acme") -> str:
    printed = io.StringIO()
    call_command("export_config", brand, stdout=printed)
    return printed.getvalue()


def with_secrets(text: str) -> tuple[str, dict[str, str]]:
    """Follow the comments of an export: add the lines that they name, and set the variables."""
    text = re.sub(r"^# (\w+_env = )", r"\1", text, flags=re.MULTILINE)
    clients = re.findall(r'^client_secret_env = "(\w+)"$', text, re.MULTILINE)
    webhooks = re.findall(r'^secret_env = "(\w+)"$', text, re.MULTILINE)
    return text, dict.fromkeys(clients, CLIENT_SECRET) | dict.fromkeys(webhooks, WEBHOOK_SECRET)


def settings_of(row: Any) -> dict[str, Any]:
    """A row's values without ids, moments, ciphertexts and keys."""
    left_out = ("id", "uuid", "brand", "brand_id", "callback_id", "created_at", "signing_key_jwk")
    values = type(row)._base_manager.filter(pk=row.pk).values().get()
    parts = ("ciphertext", "previous")
    return {
        name: value
        for name, value in values.items()
        if name not in left_out and not any(part in name for part in parts)
    }


def all_settings() -> list[dict[str, Any]]:
    servers, endpoints = AuthorizationServer.objects.order_by("key"), WebhookEndpoint.objects.order_by("url")
    return [settings_of(row) for row in [*Brand.objects.all(), *servers, *endpoints]]


def test_the_values_of_this_module_leave_no_setting_out(furnished: Brand) -> None:
    assert set(EVERY_SETTING) | IN_OTHER_ROWS == set(AuthorizationServerTable.stored_settings())
    server = AuthorizationServer.objects.get(key="every-setting")
    defaults = {name: AuthorizationServer._meta.get_field(name).get_default() for name in EVERY_SETTING}  # type: ignore[union-attr]
    assert [name for name, value in defaults.items() if getattr(server, name) == value] == []
    for row in (furnished, *furnished.authorization_servers.all(), *furnished.webhook_endpoints.all()):
        row.full_clean()


def test_an_export_that_is_applied_again_changes_nothing(furnished: Brand) -> None:
    """Not a column and no audit row: also where rows are switched off, and in the middle of a key rotation."""
    before = snapshot.stored()
    apply_configuration(read_configuration(exported()), {})
    assert snapshot.stored() == before


def test_an_export_with_its_secrets_makes_the_same_brand_elsewhere(furnished: Brand) -> None:
    text, before = exported(), all_settings()
    for rows in (WebhookEndpoint.objects, AuthorizationServer.objects, Brand.objects):
        rows.all().delete()

    completed, environment = with_secrets(text)
    apply_configuration(read_configuration(completed), environment)

    assert all_settings() == before
    assert exported() == text
    servers = {server.key: server for server in AuthorizationServer.objects.select_related("brand")}
    assert servers["every-setting"].reveal_credentials().client_secret == Secret(CLIENT_SECRET)
    assert servers["signed"].reveal_credentials().signing_key is not None
    endpoints = WebhookEndpoint.objects.select_related("brand")
    assert {endpoint.reveal_secret().reveal() for endpoint in endpoints} == {WEBHOOK_SECRET}


def test_without_its_secret_the_export_is_refused_elsewhere_by_name(furnished: Brand) -> None:
    text = exported().replace('slug = "acme"', 'slug = "another"')
    with pytest.raises(CommandError) as raised:
        _apply(text)
    assert str(raised.value).split("\n") == [
        "authorization_servers.every-setting.client_secret: this client authentication needs a secret"
    ]


def _apply(text: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        call_command("apply_config", "-", stdout=io.StringIO())


def test_an_export_holds_no_secret(furnished: Brand) -> None:
    """H7: neither in clear nor as ciphertext, and no private or public key."""
    text = exported()
    values = [CLIENT_SECRET, toml(CLIENT_SECRET), WEBHOOK_SECRET, WEBHOOK_SECRET.removeprefix("whsec_")]
    assert [value for value in values if value in text] == []
    names = set(re.findall(r"^(\w+) = ", text, re.MULTILINE))
    assert not {"client_secret", "secret", "client_secret_env", "secret_env"} & names
    assert not [name for name in names if "ciphertext" in name or "jwk" in name.removesuffix("jwks_uri")]
    assert '# client_secret_env = "CLIENT_SECRET_ACME_EVERY_SETTING"\n' in text
    assert '# secret_env = "WEBHOOK_SECRET_ACME_1"\n' in text


def test_a_plain_brand_is_a_short_file(acme: Brand) -> None:
    make_server(acme, token_endpoint_auth_method="none", secret="")
    tables = tomllib.loads(exported())
    assert tables["brand"] == {
        "slug": "acme", "name": "Acme", "token_read_purpose_required": False, "conversation_ids": "unique",
        "close_idle_after": 0, "accent_colour": "", "support_contact": "",
    }  # fmt: skip
    assert len(tables["authorization_servers"][0]) < 12


def test_a_brand_without_anything_is_exported(acme: Brand) -> None:
    assert list(tomllib.loads(exported())) == ["brand"]
    before = snapshot.stored()
    apply_configuration(read_configuration(exported()), {})
    assert snapshot.stored() == before


def test_an_unknown_brand_is_named() -> None:
    with pytest.raises(CommandError, match="There is no brand nobody"):
        exported("nobody")


@pytest.mark.parametrize(
    "text", ["".join(map(chr, range(1, 0x500))), "\u2028\u2029\u202e\u200d\ufeff\U000e0001🛒", '"""', "\\"]
)
def test_every_text_survives_toml_on_one_printable_line(text: str) -> None:
    """The attack: a brand's admin hides text from the operator's editor, or sends codes to the terminal."""
    written = toml({"a": [text, True, 7], text: text})
    assert tomllib.loads(f"x = {written}")["x"] == {"a": [text, True, 7], text: text}
    assert written.isprintable()


# In the admin.


def export_of(brand: Brand) -> str:
    return reverse("brand_export", args=[brand.pk])


def test_a_brands_page_links_to_its_export(furnished: Brand, acme_admin: Any) -> None:
    browser = AdminBrowser(acme_admin)
    assert f'href="{export_of(furnished)}"' in browser.get(address(Brand, "change", furnished)).content.decode()
    answer = browser.get(export_of(furnished))
    assert answer.content.decode() == export_configuration(furnished)
    assert answer["Content-Disposition"] == 'attachment; filename="acme.toml"'
    assert answer["Cache-Control"] == "no-store"
    assert answer["Content-Type"] == "application/toml; charset=utf-8"


def test_another_brands_export_is_not_found(houses: tuple[House, House]) -> None:
    """J1, J8: as if there were no such brand, in both directions."""
    for owner, stranger in (houses, houses[::-1]):
        missing = stranger.admin.get(reverse("brand_export", args=[999_999_999]))
        answer = stranger.admin.get(export_of(owner.brand))
        assert (answer.status_code, missing.status_code) == (404, 404)
        assert [mark for mark in owner.marks if mark in answer.content.decode()] == []


def test_no_export_in_the_admin_holds_a_secret(houses: tuple[House, House], operator: AdminBrowser) -> None:
    """H7, J9: of a brand with rows of every kind, for its admin and the operator."""
    for house in houses:
        for browser in (house.admin, operator):
            text = browser.get(export_of(house.brand)).content.decode()
            assert house.server.key in text
            assert [name for name, value in house.secrets.items() if value in text] == []


def test_an_export_is_for_signed_in_admins_and_only_read(acme: Brand, acme_admin: Any) -> None:
    anonymous = client_of_ours().get(export_of(acme), secure=True)
    assert (anonymous.status_code, anonymous["Location"].split("?")[0]) == (302, "/admin/login/")
    before = snapshot.stored()
    browser = AdminBrowser(acme_admin)
    assert browser.post(export_of(acme)).status_code == 405
    acme.admins.clear()
    assert AdminBrowser(acme_admin).get(export_of(acme)).status_code == 404
    assert snapshot.stored()["brands_brand"] == before["brands_brand"]


def test_an_export_asks_the_database_a_fixed_number_of_times(
    furnished: Brand, django_assert_max_num_queries: Any
) -> None:
    for server in furnished.authorization_servers.all():
        declare_operation(declare_api(server, server.key), f"{server.key}.list")
    with django_assert_max_num_queries(4):
        export_configuration(furnished)
