"""When form and file require the client secret again, or replace the signing key at once (N8)."""

import json
from typing import Any

import pytest

from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.models import AuthorizationServer, Brand
from brands.server_rules import CredentialHosts
from tests.admin_pages import AdminBrowser, address
from tests.cast import ACME_SECRET, make_server

pytestmark = pytest.mark.django_db

HERE, ELSEWHERE = "https://login.acme.example", "https://login.elsewhere.example"
PAR = "pushed_authorization_request_endpoint"
USERINFO, INTROSPECTION = "userinfo_endpoint", "introspection_endpoint"
STORED = {
    "issuer": HERE,
    "authorization_endpoint": f"{HERE}/authorize",
    "token_endpoint": f"{HERE}/token",
    "revocation_endpoint": "",
    PAR: "",
    USERINFO: "",
    INTROSPECTION: "",
    "jwks_uri": "",
}
# What is stored on top of the above, what is changed, and whether the credentials are asked anew.
Case = tuple[dict[str, str], dict[str, str], bool]
CASES: dict[str, Case] = {
    "nothing": ({}, {}, False),
    "a revocation endpoint on the same host": ({}, {"revocation_endpoint": f"{HERE}/revoke"}, False),
    "a PAR endpoint on the same host": ({}, {PAR: f"{HERE}/par"}, False),
    "a key set on the same host": ({}, {"jwks_uri": f"{HERE}/jwks"}, False),
    "three at once on the same host": (
        {}, {"revocation_endpoint": f"{HERE}/r", PAR: f"{HERE}/p", "jwks_uri": f"{HERE}/j"}, False,
    ),
    "the same host in capitals": ({}, {"revocation_endpoint": "https://LOGIN.Acme.example/revoke"}, False),
    "the same host with its port": ({}, {"revocation_endpoint": "https://login.acme.example:443/revoke"}, False),
    "another path and query": ({}, {"token_endpoint": f"{HERE}/v2/token?tenant=acme"}, False),
    "an endpoint taken away": ({"revocation_endpoint": f"{ELSEWHERE}/revoke"}, {"revocation_endpoint": ""}, False),
    "a key set taken away": ({"jwks_uri": f"{ELSEWHERE}/jwks"}, {"jwks_uri": ""}, False),
    "one to a host that receives already": (
        {"revocation_endpoint": f"{ELSEWHERE}/revoke"}, {"token_endpoint": f"{ELSEWHERE}/token"}, False,
    ),
    "two that change places": (
        {"revocation_endpoint": f"{ELSEWHERE}/revoke"},
        {"token_endpoint": f"{ELSEWHERE}/token", "revocation_endpoint": f"{HERE}/revoke"}, False,
    ),
    "an introspection endpoint on the same host": ({}, {INTROSPECTION: f"{HERE}/introspect"}, False),
    "a userinfo endpoint on the same host": ({}, {USERINFO: f"{HERE}/userinfo"}, False),
    "a userinfo endpoint on a host that revokes": (
        {"revocation_endpoint": f"{ELSEWHERE}/revoke"}, {USERINFO: f"{ELSEWHERE}/userinfo"}, False,
    ),
    "another path of the userinfo endpoint's host": (
        {USERINFO: f"{ELSEWHERE}/me"}, {USERINFO: f"{ELSEWHERE}/userinfo"}, False,
    ),
    "a userinfo endpoint taken away": ({USERINFO: f"{ELSEWHERE}/me"}, {USERINFO: ""}, False),
    "another authorization endpoint": ({}, {"authorization_endpoint": f"{ELSEWHERE}/authorize"}, False),
    "an issuer taken away": ({}, {"issuer": ""}, False),
    "a key set on the issuer's host": ({"issuer": ELSEWHERE}, {"jwks_uri": f"{ELSEWHERE}/jwks"}, False),
    "another key set of the same host": ({"jwks_uri": f"{ELSEWHERE}/a"}, {"jwks_uri": f"{ELSEWHERE}/b"}, False),
    "another token endpoint": ({}, {"token_endpoint": f"{ELSEWHERE}/token"}, True),
    "another revocation endpoint": ({}, {"revocation_endpoint": f"{ELSEWHERE}/revoke"}, True),
    "another PAR endpoint": ({}, {PAR: f"{ELSEWHERE}/par"}, True),
    "another introspection endpoint": ({}, {INTROSPECTION: f"{ELSEWHERE}/introspect"}, True),
    "another userinfo endpoint": ({}, {USERINFO: f"{ELSEWHERE}/userinfo"}, True),
    "a userinfo endpoint where only keys come from": (
        {"jwks_uri": f"{ELSEWHERE}/jwks"}, {USERINFO: f"{ELSEWHERE}/userinfo"}, True,
    ),
    "a userinfo endpoint where only the issuer is": ({"issuer": ELSEWHERE}, {USERINFO: f"{ELSEWHERE}/userinfo"}, True),
    "a userinfo endpoint where consumers are sent": (
        {"authorization_endpoint": f"{ELSEWHERE}/authorize"}, {USERINFO: f"{ELSEWHERE}/userinfo"}, True,
    ),
    "a token endpoint where only tokens are shown": (
        {USERINFO: f"{ELSEWHERE}/userinfo"}, {"token_endpoint": f"{ELSEWHERE}/token"}, True,
    ),
    "keys from where only tokens are shown": (
        {USERINFO: f"{ELSEWHERE}/userinfo"}, {"jwks_uri": f"{ELSEWHERE}/jwks"}, True,
    ),
    "introspection where only tokens are shown": (
        {USERINFO: f"{ELSEWHERE}/userinfo"}, {USERINFO: "", INTROSPECTION: f"{ELSEWHERE}/introspect"}, True,
    ),
    "a host below it": ({}, {"revocation_endpoint": "https://a.login.acme.example/revoke"}, True),
    "a host that begins with it": ({}, {PAR: "https://login.acme.example.evil.example/par"}, True),
    "another port of loopback": (
        {"token_endpoint": "http://localhost:8001/token"}, {"revocation_endpoint": "http://localhost:8002/r"}, True,
    ),
    "plain http of loopback": (
        {"token_endpoint": "https://localhost/token"}, {"revocation_endpoint": "http://localhost/revoke"}, True,
    ),
    "another key set": ({}, {"jwks_uri": f"{ELSEWHERE}/jwks"}, True),
    "a key set where consumers are sent": (
        {"authorization_endpoint": f"{ELSEWHERE}/authorize"}, {"jwks_uri": f"{ELSEWHERE}/jwks"}, True,
    ),
    "an endpoint where only keys come from": (
        {"jwks_uri": f"{ELSEWHERE}/jwks"}, {"token_endpoint": f"{ELSEWHERE}/token"}, True,
    ),
    "an endpoint where only the issuer is": ({"issuer": ELSEWHERE}, {PAR: f"{ELSEWHERE}/par"}, True),
    "an endpoint where only the chat page is": (
        {"chat_page_url": f"{ELSEWHERE}/chat"}, {PAR: f"{ELSEWHERE}/par"}, True,
    ),
    "another issuer": ({}, {"issuer": ELSEWHERE}, True),
    "another issuer of the same host": ({"issuer": f"{HERE}/tenant-a"}, {"issuer": f"{HERE}/tenant-b"}, True),
    "an issuer with one slash more": ({}, {"issuer": f"{HERE}/"}, True),
    "the first issuer, on that host": ({"issuer": ""}, {"issuer": HERE}, True),
    "the first issuer, elsewhere": ({"issuer": ""}, {"issuer": ELSEWHERE}, True),
}  # fmt: skip


# private_key_jwt needs an issuer, before and after.
OF_KEYS = [
    name for name, (stored, changed, _) in CASES.items() if "" not in {stored.get("issuer"), changed.get("issuer")}
]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    stored, changed, asks = CASES[request.param]
    return STORED | stored, changed, asks


@pytest.fixture
def form(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


def send(form: AdminBrowser, **changes: str) -> dict[str, list[str]]:
    """Send the server's form; return its errors, none if it was saved."""
    answer = form.send_changed(address(AuthorizationServer, "change", AuthorizationServer.objects.get()), **changes)
    return {} if answer.status_code == 302 else dict(answer.context["adminform"].form.errors)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_the_form_asks_for_the_secret_where_a_new_host_would_get_it(
    case: Case, acme: Brand, form: AdminBrowser
) -> None:
    """N8. The bug: one more endpoint on the host that had the secret asked for it, too."""
    stored, changed, asks = case
    make_server(acme, **stored)
    asked = {"client_secret": ["A host or the issuer is new: type the client secret again."]}
    assert send(form, **changed) == (asked if asks else {})
    assert send(form, **changed, client_secret="typed again") == {}


@pytest.mark.parametrize("case", OF_KEYS, indirect=True)
def test_the_form_replaces_a_key_where_a_new_host_would_get_what_it_signs(
    case: Case, acme: Brand, form: AdminBrowser
) -> None:
    """N8, C7. The bug: one more endpoint on the same host replaced it, and sign-ins failed until it was fetched."""
    stored, changed, asks = case
    server = make_server(acme, secret="", token_endpoint_auth_method="private_key_jwt", **stored)
    server.update_signing_key()
    server.save()
    assert send(form, **changed) == {}
    assert (AuthorizationServer.objects.get().signing_key_jwk != server.signing_key_jwk) is asks


def apply(**values: str) -> list[str]:
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    text = (
        '[brand]\nslug = "acme"\nname = "Acme"\n[[authorization_servers]]\nkey = "orders"\nclient_id = "acme-client"\n'
    )
    try:
        apply_configuration(read_configuration(text + "\n".join(lines)), {})
    except ConfigurationRefused as refused:
        return refused.problems
    return []


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_file_carries_the_secret_where_a_new_host_would_get_it(case: Case, acme: Brand) -> None:
    """N8."""
    stored, changed, asks = case
    assert apply(**stored, client_secret=ACME_SECRET) == []
    fields = [problem.partition(": ")[0] for problem in apply(**stored | changed)]
    assert fields == (["authorization_servers.orders.client_secret"] if asks else [])
    assert apply(**stored | changed, client_secret=ACME_SECRET) == []


@pytest.mark.parametrize("case", OF_KEYS, indirect=True)
def test_a_file_replaces_a_key_where_a_new_host_would_get_what_it_signs(case: Case, acme: Brand) -> None:
    """N8, C7."""
    stored, changed, asks = case
    assert apply(**stored, token_endpoint_auth_method="private_key_jwt") == []
    before = AuthorizationServer.objects.get().signing_key_jwk
    assert apply(**stored | changed, token_endpoint_auth_method="private_key_jwt") == []
    assert (AuthorizationServer.objects.get().signing_key_jwk != before) is asks


def test_a_host_that_was_taken_away_is_new_when_it_comes_back(acme: Brand, form: AdminBrowser) -> None:
    """N8: its owner may have changed since; only what is stored now counts."""
    make_server(acme, **STORED | {"revocation_endpoint": f"{ELSEWHERE}/revoke"})
    assert send(form, revocation_endpoint="") == {}
    assert list(send(form, revocation_endpoint=f"{ELSEWHERE}/revoke")) == ["client_secret"]


def test_no_row_of_steps_leads_the_secret_to_a_host_of_ones_own(acme: Brand, form: AdminBrowser) -> None:
    """N8: what may be moved freely (authorization endpoint, chat page) vouches for nothing."""
    make_server(acme, **STORED)
    assert send(form, authorization_endpoint=f"{ELSEWHERE}/a", chat_page_url=f"{ELSEWHERE}/chat") == {}
    for field in ("token_endpoint", "revocation_endpoint", PAR, USERINFO, INTROSPECTION, "jwks_uri", "issuer"):
        assert list(send(form, **{field: f"{ELSEWHERE}/x"})) == ["client_secret"]


def test_two_steps_lead_to_another_tenant_no_more_than_one_does(acme: Brand, form: AdminBrowser) -> None:
    """N8. The bug: the issuer was taken away, and the first one of a server without any passed for no other one."""
    make_server(acme, **STORED | {"issuer": f"{HERE}/tenant-a"})
    assert send(form, issuer="") == {}
    assert list(send(form, issuer=f"{HERE}/tenant-b")) == ["client_secret"]


def test_a_trailing_dot_is_the_same_host(acme: Brand) -> None:
    """N8: validators refuse it, but a row that SQL has written must not count as another host either."""
    server = make_server(acme, **STORED)
    given_for = CredentialHosts.of(server)
    server.token_endpoint = "https://login.acme.example./token"
    assert not given_for.need_new_credentials(server)


@pytest.mark.parametrize("unreadable", ["https://[::1", "nowhere", "https://login.acme.example:99999/"])
def test_what_is_no_address_needs_new_credentials(acme: Brand, unreadable: str) -> None:
    """N8: it fails closed, whatever the validators say of it."""
    server = make_server(acme, **STORED)
    for field in ("token_endpoint", "jwks_uri", "issuer", USERINFO, INTROSPECTION):
        given_for = CredentialHosts.of(server)
        setattr(server, field, unreadable)
        assert given_for.need_new_credentials(server)
        server.refresh_from_db()
