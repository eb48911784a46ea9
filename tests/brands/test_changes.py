"""Changes by admins and the operator write audit rows. A changed host is also mailed to the other admins (N8)."""

import io
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.core.management import call_command
from django.db import transaction

from brands.audited_changes import save_audited
from brands.authentication import create_bot_key, revoke
from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.models import AuthorizationServer, BotKey, Brand
from infrastructure.crypto import Secret
from infrastructure.models import AuditEvent
from tests.admin_pages import AdminBrowser, address

pytestmark = pytest.mark.django_db

FILE = """
[brand]
slug = "acme"
name = "Acme"

[[authorization_servers]]
key = "orders"
authorization_endpoint = "https://login.acme.example/authorize"
token_endpoint = "https://{host}/token"
client_id = "consumer-delegation"
client_secret = "{secret}"
scope = "orders.read"
"""


def events() -> list[tuple[str, str, str]]:
    """Return kind, actor and changed fields of every audit event, oldest first."""
    return list(AuditEvent.objects.order_by("id").values_list("kind", "actor", "changed_fields"))


def new_events(before: int) -> list[tuple[str, str, str]]:
    return events()[before:]


@pytest.fixture
def colleagues(acme: Brand, rival: Brand) -> None:
    """Give Acme two more admins with mail addresses, an inactive one and a viewer, and Rival an admin."""
    make = get_user_model().objects.create_user
    for name in ("bea", "carl"):
        acme.admins.add(make(name, email=f"{name}@acme.example", is_staff=True))
    acme.admins.add(make("gone", email="gone@acme.example", is_staff=True, is_active=False))
    acme.viewers.add(make("vera", email="vera@acme.example", is_staff=True))
    rival.admins.add(make("rita", email="rita@rival.example", is_staff=True))


@pytest.fixture
def acme_browser(acme_admin: Any) -> AdminBrowser:
    acme_admin.email = "ada@acme.example"
    acme_admin.save()
    return AdminBrowser(acme_admin)


def test_a_change_names_its_fields_and_of_unlisted_ones_no_value(
    acme_server: AuthorizationServer, acme_admin: Any
) -> None:
    """J13: the row tells who changed what. The attack: what was typed into a wrong field stays in the log for good."""
    before = len(events())
    acme_server.client_id, acme_server.resource = "planted-client-id", ["https://planted.example"]
    acme_server.extra_authorization_parameters = {"planted": "planted"}
    save_audited(acme_server, acme_admin)
    changed = "client_id resource extra_authorization_parameters"
    assert new_events(before) == [("authorization_server.changed", f"admin:{acme_admin.pk}", changed)]
    row = AuditEvent.objects.latest("id")
    assert (row.brand_uuid, row.object_uuid, row.changed_values) == (acme_server.brand.uuid, acme_server.uuid, None)
    assert "planted" not in repr(list(AuditEvent.objects.values()))


def test_scopes_and_switches_are_written_with_both_values_and_of_an_address_the_host(
    acme_server: AuthorizationServer,
) -> None:
    """J13: they say what access was widened or moved."""
    old, new = acme_server.scope, "orders.read orders.write"
    acme_server.scope, acme_server.is_active = new, False
    acme_server.token_endpoint = "https://tokens.acme.example/planted-path?key=planted"
    save_audited(acme_server)
    written = dict(AuditEvent.objects.exclude(changed_values=None).values_list("kind", "changed_values"))
    assert written == {
        "authorization_server.changed": {"scope": [old, new], "is_active": [True, False]},
        "authorization_server.host_changed": {"token_endpoint": ["login.acme.example", "tokens.acme.example"]},
    }
    assert "planted" not in repr(list(AuditEvent.objects.values()))


def test_a_long_value_is_cut(acme_server: AuthorizationServer) -> None:
    """J13: a row of the log stays small."""
    acme_server.scope = " ".join(f"scope-{number}" for number in range(300))
    save_audited(acme_server)
    values = AuditEvent.objects.exclude(changed_values=None).get().changed_values
    assert values is not None
    assert len(values["scope"][1]) == 503


def test_what_did_not_change_is_not_written(acme_server: AuthorizationServer) -> None:
    """Part 5: a form that was opened and saved leaves no event, and overwrites nothing that another admin changed."""
    before = len(events())
    stale = AuthorizationServer.objects.get(pk=acme_server.pk)
    AuthorizationServer.objects.filter(pk=acme_server.pk).update(scope="changed meanwhile")
    stale.scope = "changed meanwhile"
    save_audited(stale)
    assert new_events(before) == []


def test_a_new_secret_is_an_event_of_its_own(acme_server: AuthorizationServer) -> None:
    """Part 5: also where the very same secret was typed again."""
    before = len(events())
    acme_server.set_client_secret(Secret("another"))
    save_audited(acme_server)
    assert new_events(before) == [
        ("authorization_server.secret_changed", "operator", "client_secret_ciphertext"),
    ]


def test_bot_keys_leave_their_events(acme: Brand, acme_admin: Any) -> None:
    """Part 5: created by the operator, renamed and revoked by an admin; the second revocation is none."""
    before = len(events())
    row, _ = create_bot_key(acme, "web chat", [BotKey.Scope.TOKEN_READ])
    row.label = "another chat"
    save_audited(row, acme_admin)
    assert (revoke(row, acme_admin), revoke(row, acme_admin)) == (True, False)
    assert new_events(before) == [
        ("bot_key.created", "operator", ""),
        ("bot_key.changed", f"admin:{acme_admin.pk}", "label"),
        ("bot_key.revoked", f"admin:{acme_admin.pk}", ""),
    ]


def test_the_admin_audits_as_its_user(acme_browser: AdminBrowser, acme_server: AuthorizationServer) -> None:
    """Part 5: through the pages, keys and brand too."""
    before, me = len(events()), f"admin:{acme_browser.user.pk}"
    brand = acme_server.brand
    assert acme_browser.send_changed(address(Brand, "change", brand), name="Acme 2").status_code == 302
    added = acme_browser.send_changed(address(BotKey, "add"), brand=brand.pk, label="new")
    assert added.status_code == 302
    acme_browser.run(BotKey, "revoke_keys", BotKey.objects.get(label="new"))
    page = address(AuthorizationServer, "change", acme_server)
    assert acme_browser.send_changed(page, client_secret="typed", client_id="other").status_code == 302
    assert new_events(before) == [
        ("brand.changed", me, "name"),
        ("bot_key.created", me, ""),
        ("bot_key.revoked", me, ""),
        ("authorization_server.changed", me, "client_id"),
        ("authorization_server.secret_changed", me, "client_secret_ciphertext"),
    ]


def test_who_administers_a_brand_is_audited(acme: Brand, acme_admin: Any, admin_user: Any) -> None:
    """Part 5, J7: the operator's own changes too; and who views it."""
    before = len(events())
    page, me = address(Brand, "change", acme), f"admin:{admin_user.pk}"
    assert AdminBrowser(admin_user).send_changed(page, admins=[]).status_code == 302
    assert AdminBrowser(admin_user).send_changed(page, viewers=[acme_admin.pk]).status_code == 302
    assert new_events(before) == [("brand.changed", me, "admins"), ("brand.changed", me, "viewers")]


def test_a_file_is_applied_by_the_operator(db: None, tmp_path: Path) -> None:
    """Part 5: a new brand and server, then only what the second file changed."""
    file = tmp_path / "acme.toml"
    file.write_text(FILE.format(host="login.acme.example", secret="first"))
    call_command("apply_config", str(file), stdout=io.StringIO())
    assert events() == [("brand.created", "operator", ""), ("authorization_server.created", "operator", "")]
    file.write_text(FILE.format(host="login.acme.example", secret="second").replace("orders.read", "orders.write"))
    call_command("apply_config", str(file), stdout=io.StringIO())
    assert new_events(2) == [
        ("authorization_server.changed", "operator", "scope"),
        ("authorization_server.secret_changed", "operator", "client_secret_ciphertext"),
    ]


def test_a_refused_file_leaves_no_event(acme: Brand) -> None:
    """Part 5: the event is in the transaction of the change."""
    before = events()
    refused = FILE.format(host="user@login.acme.example", secret="x").replace('"Acme"', '"New"')
    with pytest.raises(ConfigurationRefused):
        apply_configuration(read_configuration(refused))
    assert events() == before


@pytest.mark.parametrize(
    "field",
    [
        *("token_endpoint", "revocation_endpoint", "pushed_authorization_request_endpoint", "jwks_uri", "issuer"),
        *("userinfo_endpoint", "introspection_endpoint"),
    ],
)
def test_another_host_is_audited_and_mailed_to_the_other_admins(
    field: str,
    colleagues: None,
    acme_browser: AdminBrowser,
    acme_server: AuthorizationServer,
    django_capture_on_commit_callbacks: Any,
) -> None:
    """N8, J15: to each on their own; not to who did it, who has left, who only views the brand, or another brand."""
    before, me = len(events()), f"admin:{acme_browser.user.pk}"
    old = getattr(acme_server, field).removeprefix("https://").split("/")[0] or "(none)"
    page = address(AuthorizationServer, "change", acme_server)
    with django_capture_on_commit_callbacks(execute=True):
        changed = {field: "https://elsewhere.example", "client_secret": "typed-again"}
        assert acme_browser.send_changed(page, **changed).status_code == 302
    assert new_events(before) == [
        ("authorization_server.changed", me, field),
        ("authorization_server.secret_changed", me, "client_secret_ciphertext"),
        ("authorization_server.host_changed", me, field),
    ]
    assert [message.to for message in mail.outbox] == [["bea@acme.example"], ["carl@acme.example"]]
    assert {message.subject for message in mail.outbox} == {"Acme: the host of authorization server orders was changed"}
    assert {message.from_email for message in mail.outbox} == {"delegation@delegation.test"}
    ((first, _, change, *_, last),) = {tuple(message.body.splitlines()) for message in mail.outbox}
    assert first.startswith("acme-admin ")
    assert change == f"{field}: {old} -> elsewhere.example"
    assert last == f"https://delegation.test{page}"


def test_another_path_of_the_same_host_is_not_mailed(
    colleagues: None, acme_server: AuthorizationServer, django_capture_on_commit_callbacks: Any
) -> None:
    """N8: it is audited as any other change."""
    before = len(events())
    acme_server.token_endpoint = "https://login.acme.example/another"
    with django_capture_on_commit_callbacks(execute=True):
        save_audited(acme_server)
    assert new_events(before) == [("authorization_server.changed", "operator", "token_endpoint")]
    assert mail.outbox == []


def test_a_file_that_moves_a_host_is_mailed_to_every_admin(
    colleagues: None, acme_browser: AdminBrowser, django_capture_on_commit_callbacks: Any
) -> None:
    """N8: the operator did it, so nobody is left out."""
    with django_capture_on_commit_callbacks(execute=True):
        apply_configuration(read_configuration(FILE.format(host="login.acme.example", secret="x")))
        apply_configuration(read_configuration(FILE.format(host="elsewhere.example", secret="x")))
    assert [message.to for message in mail.outbox] == [
        ["ada@acme.example"],
        ["bea@acme.example"],
        ["carl@acme.example"],
    ]
    assert mail.outbox[0].body.startswith("the operator changed ")


def test_a_mail_server_that_is_down_takes_nothing_back(
    colleagues: None,
    acme_server: AuthorizationServer,
    django_capture_on_commit_callbacks: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """N8: the change stands, its audit row with it, and the fault is in the log."""

    def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(EmailBackend, "send_messages", refuse)
    acme_server.token_endpoint = "https://elsewhere.example/token"
    with django_capture_on_commit_callbacks(execute=True):
        save_audited(acme_server)
    acme_server.refresh_from_db()
    assert acme_server.token_endpoint == "https://elsewhere.example/token"
    assert AuditEvent.objects.filter(kind="authorization_server.host_changed").count() == 1


def test_a_line_break_in_a_brands_name_adds_no_header_to_the_mail(
    colleagues: None, acme_server: AuthorizationServer, django_capture_on_commit_callbacks: Any
) -> None:
    """N8: a line break in a name would make the mail fail, and nobody would notice the change."""
    Brand.objects.filter(pk=acme_server.brand.pk).update(name="Acme\nBcc: rita@rival.example")
    server = AuthorizationServer.objects.get(pk=acme_server.pk)
    server.token_endpoint = "https://elsewhere.example/token"
    with django_capture_on_commit_callbacks(execute=True):
        save_audited(server)
    assert len(mail.outbox) == 2
    assert mail.outbox[0].message()["Bcc"] is None


@pytest.mark.django_db(transaction=True)
def test_a_letter_that_cannot_be_sent_takes_no_line_of_the_log_along(
    colleagues: None,
    acme_server: AuthorizationServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Part 5. The bug: what waited behind it for the commit was not written."""

    def break_down(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(EmailBackend, "send_messages", break_down)
    before = len(events())
    caplog.set_level("INFO", "consumer_delegation.audit")
    caplog.clear()
    with transaction.atomic():
        for host in ("elsewhere.example", "somewhere.example"):
            acme_server.token_endpoint = f"https://{host}/token"
            save_audited(acme_server)
    lines = [record.message for record in caplog.records if record.name == "consumer_delegation.audit"]
    assert lines == [kind for kind, _, _ in new_events(before)]
    assert lines == ["authorization_server.changed", "authorization_server.host_changed"] * 2
