"""Metadata that an admin chose to ignore stays ignored, in the form and in files, also when applied again (C6)."""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.doctor import Verdict, examine
from brands.models import AuthorizationServer, Brand
from infrastructure.models import AuditEvent
from oauth_client.validators import IGNORABLE_METADATA
from tests.admin_pages import AdminBrowser, address
from tests.cast import ACME_SECRET, Bot, Browser, code_on, make_server
from tests.fake_authorization_server import mounted
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db

ISSUER = "https://login.acme.example"
ISS = "authorization_response_iss_parameter_supported"
PAR, REVOCATION = "pushed_authorization_request_endpoint", "revocation_endpoint"
ANNOUNCED = {"jwks_uri": f"{ISSUER}/jwks", REVOCATION: f"{ISSUER}/revoke", PAR: f"{ISSUER}/par", ISS: True}
OFF = {"jwks_uri": "", REVOCATION: "", PAR: "", ISS: False}
# What a save fills in; *Discover* alone fills in who says who signed in (`test_discover_button`).
ALL = [name for name in IGNORABLE_METADATA if name in ANNOUNCED]


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    """A server whose metadata announces everything. It also accepts requests that were not pushed."""
    fake = ModernAuthorizationServer("login.acme.example", "acme-client", ACME_SECRET, pushed_only=False)
    with mounted(fake):
        yield fake


@pytest.fixture
def form(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


def stored() -> AuthorizationServer:
    return AuthorizationServer.objects.select_related("brand").get()


def row() -> dict[str, Any]:
    return dict(AuthorizationServer.objects.values().get())


# The file.


def apply(**values: Any) -> AuthorizationServer:
    values = {"key": "orders", "client_id": "acme-client", "issuer": ISSUER, "client_secret": ACME_SECRET} | values
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    text = '[brand]\nslug = "acme"\nname = "Acme"\n[[authorization_servers]]\n' + "\n".join(lines)
    apply_configuration(read_configuration(text), {})
    return stored()


@pytest.mark.parametrize("name", ALL)
def test_what_a_file_sets_to_nothing_stays_off_at_the_first_run(name: str, login: ModernAuthorizationServer) -> None:
    """C6. The bug: the first run took it from the metadata all the same, and the second one switched it off."""
    server = apply(**{name: OFF[name]})
    assert {other: getattr(server, other) for other in ALL} == ANNOUNCED | {name: OFF[name]}
    assert server.ignored_metadata == [name]


COMBINATIONS = list(product(("left out", "off", "typed"), repeat=len(ALL)))


@pytest.mark.parametrize("said", COMBINATIONS, ids=[" ".join(said).replace("left ", "") for said in COMBINATIONS])
def test_the_first_and_the_second_run_give_the_same_row(
    said: tuple[str, ...], login: ModernAuthorizationServer
) -> None:
    """C6: whatever the file says of each, the ciphertext of the secret included; and nothing is audited twice."""
    values = {"off": OFF, "typed": ANNOUNCED}
    typed = {name: values[word][name] for name, word in zip(ALL, said, strict=True) if word in values}
    apply(**typed)
    first, events = row(), AuditEvent.objects.count()
    apply(**typed)
    assert row() == first
    assert AuditEvent.objects.count() == events
    assert first["ignored_metadata"] == [name for name, word in zip(ALL, said, strict=True) if word == "off"]


@pytest.mark.parametrize(
    "values",
    [
        {"authorization_endpoint": "", "token_endpoint": ""},
        {"token_endpoint": ""},
        {"authorization_endpoint": f"{ISSUER}/authorize"},
        {"authorization_endpoint": f"{ISSUER}/a", "token_endpoint": f"{ISSUER}/t"},
        {"authorization_endpoint": f"{ISSUER}/a", "token_endpoint": f"{ISSUER}/t", **OFF},
        {"id_token_signing_alg_values": []},
        {"scope": "openid", "id_token_signing_alg_values": ["RS256"]},
    ],
)
def test_other_files_give_the_same_row_twice_as_well(values: dict[str, Any], login: ModernAuthorizationServer) -> None:
    """C6. The bug: an endpoint that was left empty was filled in at the first run, and refused at the second."""
    apply(**values)
    first = row()
    apply(**values)
    assert row() == first


def test_off_and_left_out_later_is_off_until_it_is_written_down_again(login: ModernAuthorizationServer) -> None:
    """C6: a row of the same issuer keeps what it has."""
    apply(**{PAR: ""})
    assert (apply().ignored_metadata, stored().pushed_authorization_request_endpoint) == ([PAR], "")
    assert (apply(**{PAR: f"{ISSUER}/par"}).ignored_metadata, stored().pushed_authorization_request_endpoint) == (
        [],
        f"{ISSUER}/par",
    )


def test_another_issuer_is_another_servers_metadata(login: ModernAuthorizationServer) -> None:
    apply(**{PAR: ""})
    login.metadata_changes = {"issuer": f"{ISSUER}/tenant"}
    login.metadata_path = "/tenant/.well-known/openid-configuration"
    server = apply(issuer=f"{ISSUER}/tenant")
    assert (server.ignored_metadata, server.pushed_authorization_request_endpoint) == ([], f"{ISSUER}/par")


def test_what_an_admin_has_ticked_a_file_that_leaves_it_out_keeps(
    login: ModernAuthorizationServer, operator: AdminBrowser
) -> None:
    apply()
    operator.send_changed(address(AuthorizationServer, "change", stored()), ignored_metadata=[PAR])
    first = row()
    apply()
    assert (row(), first[PAR]) == (first, "")


def test_without_keys_only_hs256_can_verify_an_id_token(login: ModernAuthorizationServer) -> None:
    """E16: with HS256 the client secret does; a key set was demanded there as well."""
    login.metadata_changes = {"id_token_signing_alg_values_supported": ["RS256", "HS256"]}
    for algorithms in (["RS256"], ["RS256", "HS256"]):
        with pytest.raises(ConfigurationRefused) as refused:
            apply(scope="openid", jwks_uri="", id_token_signing_alg_values=algorithms)
        assert [problem.partition(": ")[0] for problem in refused.value.problems] == [
            "authorization_servers.orders.jwks_uri"
        ]
    server = apply(scope="openid", jwks_uri="", id_token_signing_alg_values=["HS256"])
    assert (server.jwks_uri, server.ignored_metadata) == ("", ["jwks_uri"])
    assert apply(scope="openid", jwks_uri="", id_token_signing_alg_values=["HS256"]).jwks_uri == ""


# The admin's form.


def add(form: AdminBrowser, brand: Brand, **values: Any) -> Any:
    typed = {"brand": brand.pk, "key": "orders", "client_id": "acme-client", "client_secret": ACME_SECRET}
    return form.send_changed(address(AuthorizationServer, "add"), **typed, issuer=ISSUER, **values)


def change(form: AdminBrowser, **values: Any) -> dict[str, list[str]]:
    answer = form.send_changed(address(AuthorizationServer, "change", stored()), **values)
    return {} if answer.status_code == 302 else dict(answer.context["adminform"].form.errors)


@pytest.mark.parametrize("name", ALL)
def test_a_tick_keeps_it_off_from_the_beginning(
    name: str, acme: Brand, form: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """C6."""
    assert add(form, acme, ignored_metadata=[name]).status_code == 302
    server = stored()
    assert {other: getattr(server, other) for other in ALL} == ANNOUNCED | {name: OFF[name]}


@pytest.mark.parametrize("name", ALL)
def test_a_tick_empties_its_field_and_outlives_another_look_up(
    name: str, acme: Brand, form: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """C6. The bug: whatever was emptied or switched off came back with the next look-up of the metadata."""
    add(form, acme)
    assert change(form, ignored_metadata=[name]) == {}
    assert getattr(stored(), name) == OFF[name]
    assert change(form, token_endpoint="") == {}
    server = stored()
    assert len(login.metadata_requests) == 2
    assert {other: getattr(server, other) for other in ALL} == ANNOUNCED | {name: OFF[name]}


def test_unticked_it_is_filled_in_again(acme: Brand, form: AdminBrowser, login: ModernAuthorizationServer) -> None:
    add(form, acme, ignored_metadata=ALL)
    assert change(form, ignored_metadata=[], token_endpoint="") == {}
    server = stored()
    assert {name: getattr(server, name) for name in ALL} == ANNOUNCED


def test_an_address_that_is_typed_and_ticked_is_a_mistake_at_its_field(
    acme: Brand, form: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    add(form, acme, ignored_metadata=[PAR, ISS])
    said = ["It is ticked as not to be used: untick it, or leave this empty."]
    assert change(form, **{PAR: f"{ISSUER}/par", ISS: "on"}) == {PAR: said, ISS: said}
    assert change(form, ignored_metadata=[], **{PAR: f"{ISSUER}/par"}) == {}


def test_the_key_set_of_openid_cannot_be_ticked_off(
    acme: Brand, form: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """E16."""
    add(form, acme, scope="openid")
    assert list(change(form, ignored_metadata=["jwks_uri"])) == ["jwks_uri"]


@pytest.mark.parametrize("names", [["token_endpoint"], ["issuer"], ["x"]])
def test_what_is_needed_cannot_be_ticked_off(
    names: list[str], acme: Brand, form: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    assert list(add(form, acme, ignored_metadata=names).context["adminform"].form.errors) == ["ignored_metadata"]
    with pytest.raises(ValidationError):
        AuthorizationServer(ignored_metadata=names).clean_fields(exclude=["brand"])


def test_a_stolen_session_switches_nothing_off(
    acme: Brand, form: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """G10: no revocation at the end of a token, and no iss against mix-up."""
    add(form, acme)
    form.sign_in_again(seconds_ago=11 * 60)
    assert "Confirm that it is you" in str(change(form, ignored_metadata=[REVOCATION, ISS]))
    assert stored().revocation_endpoint == ANNOUNCED[REVOCATION]


# A client that may not push.


@pytest.mark.parametrize("error", ["unauthorized_client", "access_denied"])
def test_a_client_that_may_not_push_signs_in_without_it(
    error: str, acme: Brand, acme_bot: Bot, ada: Browser, form: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """B21: the doctor says what mends it."""
    add(form, acme, scope="orders.read")
    login.redirect_uri = stored().redirect_uri
    login.next_push_answer = (400, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode())
    (problem,) = [finding for finding in examine(stored()) if finding.verdict == Verdict.PROBLEM]
    assert (problem.code, problem.field) == ("push_refused", PAR)
    assert problem.meaning == f"It refused our request: HTTP status 400, error {error}."
    assert problem.remedy.startswith("If this client may not push, tick the endpoint under what is not used")
    assert change(form, ignored_metadata=[PAR]) == {}
    pushes = len(login.pushes)
    code = code_on(ada.sign_in(acme_bot.challenge()["url"], login))
    assert acme_bot.complete(code)[0] == 200
    assert len(login.pushes) == pushes


def test_the_doctor_notes_what_is_left_off_and_finds_no_fault_in_it(
    acme: Brand, login: ModernAuthorizationServer
) -> None:
    server = make_server(acme, **login.fields() | OFF, ignored_metadata=ALL)
    login.redirect_uri = server.redirect_uri
    found = list(examine(server))
    assert [finding for finding in found if finding.verdict == Verdict.PROBLEM] == []
    notes = [(finding.code, finding.field) for finding in found if finding.verdict == Verdict.NOTE]
    assert notes == [("announced_not_used", name) for name in ALL]
