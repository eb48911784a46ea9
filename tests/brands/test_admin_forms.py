"""The forms of servers and bot keys: accepted input, secrets that are never shown again, and errors at their fields."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey
from tests.admin_pages import AdminBrowser, House, address, filled_in
from tests.cast import Bot, make_bot
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db

NEW_SECRET = "planted-new-secret-5f1c"
SINGLE_SPACES = (
    "Separate codes by one space, e.g. access_denied user_cancelled. At most 20 codes, each of at most 64 characters."
)
PARAMETERS = "extra_authorization_parameters"
# Whatever the client secret, or a key that replaces it, is sent to or trusted through.
HOSTS_OF_THE_SECRET = sorted(
    field.name
    for field in AuthorizationServer._meta.concrete_fields
    if (field.name.endswith("_endpoint") or field.name in {"issuer", "jwks_uri"})
    and field.name != "authorization_endpoint"
)


@pytest.fixture
def acme_house(houses: tuple[House, House]) -> House:
    return houses[0]


@pytest.fixture
def form_url(acme_house: House) -> str:
    return address(AuthorizationServer, "change", acme_house.server)


def errors_of(answer: Any) -> dict[str, list[str]]:
    """Return the messages at each field. Fails if the form was accepted or has an error without a field."""
    assert answer.status_code == 200, answer["Location"]
    errors = answer.context["adminform"].form.errors
    assert "__all__" not in errors, errors
    text = answer.content.decode()
    assert [name for name in errors if f'id="id_{name}_error"' not in text] == []
    return {name: list(messages) for name, messages in errors.items()}


def secret_of(server: AuthorizationServer) -> str | None:
    secret = AuthorizationServer.objects.get(pk=server.pk).reveal_credentials().client_secret
    return secret.reveal() if secret else None


def test_the_redirect_uri_that_was_copied_is_the_one_that_is_saved(acme_house: House) -> None:
    """The bug: of two new servers in two tabs, both showed one address, and the second got another one in silence."""
    add, admin = address(AuthorizationServer, "add"), acme_house.admin
    addresses = {name: f"https://login.acme.example/{name}" for name in ("authorization_endpoint", "token_endpoint")}

    def send(page: Any, key: str) -> Any:
        found = re.search(r'name="shown_callback_id" value="([^"]+)"', page.content.decode())
        assert found
        assert f"/callback/{found[1]}" in page.content.decode()
        named = {"brand": acme_house.brand.pk, "key": key, "client_id": key, "client_secret": NEW_SECRET}
        data = filled_in(page.context["adminform"].form) | named | addresses | {"shown_callback_id": found[1]}
        return admin.post(add, data), found[1]

    tabs = [admin.get(add), admin.get(add)]
    saved, first = send(tabs[0], "first")
    assert saved.status_code == 302
    refused, shown = send(tabs[1], "second")
    said = "Another new server has taken the redirect URI that this page showed. Register the one that it shows now, "
    assert refused.context["adminform"].form.non_field_errors() == [said + "and save again."]
    saved, second = send(refused, "second")
    assert saved.status_code == 302
    rows = AuthorizationServer.objects.filter(key__in=["first", "second"])
    stored = dict(rows.values_list("key", "callback_id"))
    assert stored == {"first": first, "second": second}
    assert shown == first


def test_a_client_secret_is_never_shown_again(acme_house: House, form_url: str) -> None:
    """H7: not in the form, not when the form comes back with an error, not in the history."""
    url, pages = form_url, []
    refused = acme_house.admin.send_changed(url, client_secret=NEW_SECRET, token_endpoint="http://nowhere")
    assert errors_of(refused) == {"token_endpoint": ["The URL must begin with https://."]}
    accepted = acme_house.admin.send_changed(url, client_secret=NEW_SECRET)
    assert accepted.status_code == 302
    assert secret_of(acme_house.server) == NEW_SECRET
    pages += [refused, acme_house.admin.get(url), acme_house.admin.get(accepted["Location"])]
    pages += [acme_house.admin.get(address(AuthorizationServer, "history", acme_house.server))]
    pages += [acme_house.admin.get("/admin/")]
    assert [page.request["PATH_INFO"] for page in pages if NEW_SECRET in page.content.decode()] == []
    entry = LogEntry.objects.get()
    assert entry.change_message == '[{"changed": {"fields": ["Client secret"]}}]'
    assert NEW_SECRET not in everything_stored()


def test_an_empty_secret_keeps_the_stored_one(acme_house: House, form_url: str) -> None:
    assert acme_house.admin.send_changed(form_url, client_id="another").status_code == 302
    assert secret_of(acme_house.server) == acme_house.secrets["client secret"]


@pytest.mark.parametrize("field", HOSTS_OF_THE_SECRET)
def test_another_host_demands_the_secret_again(acme_house: House, form_url: str, field: str) -> None:
    """N8: otherwise whoever may edit an endpoint could have the stored secret sent to a host of their own."""
    moved = {field: "https://login.elsewhere.example/x", "scope": "orders.read"}
    answer = acme_house.admin.send_changed(form_url, **moved)
    assert errors_of(answer) == {"client_secret": ["A host or the issuer is new: type the client secret again."]}
    stored = AuthorizationServer.objects.get(pk=acme_house.server.pk)
    assert getattr(stored, field) != moved[field]
    answer = acme_house.admin.send_changed(form_url, **moved, client_secret=NEW_SECRET)
    assert answer.status_code == 302
    assert secret_of(acme_house.server) == NEW_SECRET


def test_another_path_of_the_same_host_does_not(acme_house: House, form_url: str) -> None:
    """N8."""
    answer = acme_house.admin.send_changed(form_url, token_endpoint="https://login.acme.example/v2/token")
    assert answer.status_code == 302
    assert secret_of(acme_house.server) == acme_house.secrets["client secret"]


def test_a_public_client_keeps_no_secret_and_needs_none_for_another_host(acme_house: House, form_url: str) -> None:
    changes = {"token_endpoint_auth_method": "none", "token_endpoint": "https://login.elsewhere.example/token"}
    assert acme_house.admin.send_changed(form_url, **changes).status_code == 302
    assert secret_of(acme_house.server) is None
    back = acme_house.admin.send_changed(form_url, token_endpoint_auth_method="client_secret_post")
    assert errors_of(back) == {"client_secret": ["This client authentication needs a secret."]}


def test_the_redirect_uri_stands_there_to_be_copied(acme_house: House, form_url: str) -> None:
    assert acme_house.server.redirect_uri in acme_house.admin.get(form_url).content.decode()


def test_the_form_says_what_each_same_person_check_allows(acme_house: House, form_url: str) -> None:
    text = " ".join(acme_house.admin.get(form_url).content.decode().split())
    assert "a stranger who gets a customer to open a forwarded link reads that customer's data" in text
    assert "None: whoever holds the link signs in for this chat, also when it was forwarded to them" in text


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"same_person_checks": ["completion_code", "none"]}, {"same_person_checks": None}),
        (
            {"same_person_checks": ["completion_code"], "default_check": "none"},
            {"default_check": ["The default must be one of the accepted checks."]},
        ),
        ({"same_person_checks": []}, {"same_person_checks": ["This field is required."]}),
        ({"authorization_endpoint": "https://10.0.0.1/a"}, {"authorization_endpoint": None}),
        ({"token_endpoint": "https://user:password@login.acme.example/t"}, {"token_endpoint": None}),
        ({"jwks_uri": "", "client_secret": NEW_SECRET}, {"jwks_uri": None}),
        ({"id_token_signing_alg_values": []}, {"id_token_signing_alg_values": ["This field is required."]}),
        ({"required_scope": "orders.write"}, {"required_scope": None}),
        ({"scope": "openid  orders"}, {"scope": None}),
        ({"denial_codes": "17, user_cancelled"}, {"denial_codes": [SINGLE_SPACES]}),
        ({"denial_codes": "17  18"}, {"denial_codes": [SINGLE_SPACES]}),
        ({"denial_codes": "a" * 65}, {"denial_codes": [SINGLE_SPACES]}),
        ({"denial_codes": " ".join(["x"] * 21)}, {"denial_codes": [SINGLE_SPACES]}),
        ({"denial_codes": "<b>"}, {"denial_codes": [SINGLE_SPACES]}),
        ({PARAMETERS: '{"state": "x"}'}, {PARAMETERS: ["state is not allowed here: it is set automatically."]}),
        ({PARAMETERS: "{"}, {PARAMETERS: ["Enter a valid JSON."]}),
        ({"challenge_lifetime": "10"}, {"challenge_lifetime": ["Ensure this value is greater than or equal to 300."]}),
        ({"max_token_lifetime": "604801"}, {"max_token_lifetime": None}),
        ({"max_age": "-1"}, {"max_age": None}),
    ],
)  # fmt: skip
def test_a_mistake_is_named_at_its_field(
    acme_house: House, form_url: str, changes: dict[str, Any], errors: dict[str, list[str] | None]
) -> None:
    found = errors_of(acme_house.admin.send_changed(form_url, **changes))
    assert set(found) == set(errors)
    assert {name: found[name] for name, messages in errors.items() if messages} == {
        name: messages for name, messages in errors.items() if messages
    }


def test_the_codes_of_a_denial_are_kept_as_typed(acme_house: House, form_url: str) -> None:
    """B14: numbers, capitals and URNs are codes, too."""
    typed = "user_cancelled 17 SIG-17 urn:signicat:error:usercancel"
    assert acme_house.admin.send_changed(form_url, denial_codes=f" {typed} ").status_code == 302
    assert AuthorizationServer.objects.get(pk=acme_house.server.pk).denial_codes == typed


def test_the_default_check_comes_first(acme_house: House, form_url: str) -> None:
    assert acme_house.admin.send_changed(form_url, same_person_checks=["none"], default_check="none").status_code == 302
    stored = AuthorizationServer.objects.get(pk=acme_house.server.pk)
    assert (stored.same_person_checks, stored.default_same_person_check) == (["none"], "none")


def test_an_emptied_field_of_extra_parameters_is_no_parameters(acme_house: House, form_url: str) -> None:
    assert acme_house.admin.send_changed(form_url, extra_authorization_parameters="").status_code == 302
    assert AuthorizationServer.objects.get(pk=acme_house.server.pk).extra_authorization_parameters == {}


def test_a_server_is_added_with_its_secret_and_its_key_once(acme_house: House) -> None:
    typed = {
        "brand": acme_house.brand.pk,
        "key": "returns",
        "authorization_endpoint": "https://login.acme.example/authorize",
        "token_endpoint": "https://login.acme.example/token",
        "client_id": "returns-client",
    }
    add = address(AuthorizationServer, "add")
    assert errors_of(acme_house.admin.send_changed(add, **typed)) == {
        "client_secret": ["This client authentication needs a secret."]
    }
    assert acme_house.admin.send_changed(add, **typed, client_secret=NEW_SECRET).status_code == 302
    server = AuthorizationServer.objects.get(key="returns")
    assert (server.brand, secret_of(server), server.same_person_checks) == (
        acme_house.brand,
        NEW_SECRET,
        ["completion_code"],
    )
    again = acme_house.admin.send_changed(add, **typed, client_secret=NEW_SECRET)
    assert errors_of(again) == {"key": ["This brand already has a server of this short name."]}


def new_key(house: House, **changes: Any) -> Any:
    return house.admin.send_changed(address(BotKey, "add"), **({"brand": house.brand.pk, "label": "fresh"} | changes))


def test_a_bot_key_is_shown_once_and_never_again(acme_house: House, acme_bot: Bot) -> None:
    """G1: in the one message after it was made; the database, sessions included, never holds it."""
    added = new_key(acme_house)
    assert added.status_code == 302
    shown = acme_house.admin.get(added["Location"])
    key = str(next(iter(shown.context["messages"]))).split("<code>")[1].split("</code>")[0]
    assert f"<code>{key}</code>" in shown.content.decode()
    row = BotKey.objects.get(label="fresh")
    acme_bot.key = key
    assert acme_bot.in_chat("GET")[0] == 404
    pages = [added["Location"], address(BotKey, "change", row), address(BotKey, "history", row), "/admin/"]
    texts = [acme_house.admin.get(page).content.decode() for page in pages]
    secret = key.rsplit("_", 1)[1]
    assert [page for page, text in zip(pages, texts, strict=True) if secret in text] == []
    assert secret not in everything_stored()


def test_reading_tokens_has_to_be_ticked_by_hand(acme_house: House, acme_bot: Bot) -> None:
    """G3."""
    new_key(acme_house)
    assert BotKey.objects.get(label="fresh").scopes == ["challenge:create", "challenge:read"]
    text = " ".join(acme_house.admin.get(address(BotKey, "add")).content.decode().split())
    assert 'value="token:read" id="id_scopes_2">' in text
    assert 'value="challenge:read" id="id_scopes_1" checked>' in text


def test_a_key_is_narrowed_to_the_checks_that_were_ticked(acme_house: House) -> None:
    """A16: with none ticked it may use all. The key's page says so, and does not let it be changed."""
    new_key(acme_house)
    row = BotKey.objects.get(label="fresh")
    assert row.same_person_checks == []
    page = acme_house.admin.get(address(BotKey, "change", row)).content.decode()
    assert "all that the authorization server accepts" in page
    new_key(acme_house, label="narrow", same_person_checks=["completion_code"])
    narrow = BotKey.objects.get(label="narrow")
    acme_house.admin.send_changed(address(BotKey, "change", narrow), label="renamed", same_person_checks=["none"])
    narrow.refresh_from_db()
    assert (narrow.label, narrow.same_person_checks) == ("renamed", ["completion_code"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scopes": ["token:write"]}, "scopes"),
        ({"same_person_checks": ["code"]}, "same_person_checks"),
        ({"scopes": []}, "scopes"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "expires_at"),
        ({"label": "x" * 81}, "label"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(acme_house: House, changes: dict[str, Any], field: str) -> None:
    """G3."""
    before = BotKey.objects.count()
    answer = acme_house.admin.send_changed(
        address(BotKey, "add"), **({"brand": acme_house.brand.pk, "label": "fresh"} | changes)
    )
    assert set(errors_of(answer)) == {field}
    assert BotKey.objects.count() == before


def test_a_keys_label_and_end_can_be_changed_and_its_powers_cannot(acme_house: House, acme_bot: Bot) -> None:
    """G3, G4: an end in the past ends it at once."""
    row = BotKey.objects.get(label="acme-bot")
    url = address(BotKey, "change", row)
    assert acme_house.admin.send_changed(url, label="renamed", scopes=["token:read"], digest="x").status_code == 302
    changed = BotKey.objects.get(pk=row.pk)
    assert (changed.label, changed.scopes, bytes(changed.digest)) == ("renamed", row.scopes, bytes(row.digest))
    assert acme_bot.in_chat("GET")[0] == 404
    over = timezone.now() - timedelta(days=2)
    acme_house.admin.send_changed(url, expires_at_0=f"{over:%Y-%m-%d}", expires_at_1="00:00")
    assert acme_bot.in_chat("GET")[0] == 401


def test_a_revoked_key_is_refused_from_the_next_call_on(acme_house: House, acme_bot: Bot, rival_bot: Bot) -> None:
    """G4: and the history says who revoked it; another brand's key is not reached."""
    second = make_bot(acme_house.brand)
    mine, theirs = BotKey.objects.filter(label="acme-bot").first(), BotKey.objects.get(label="rival-bot")
    assert mine is not None
    page = acme_house.admin.run(BotKey, "revoke_keys", mine, theirs)
    assert [str(message) for message in page.context["messages"]] == ["1 key revoked."]
    assert [bot.in_chat("GET")[0] for bot in (acme_bot, second, rival_bot)] == [401, 404, 404]
    history = acme_house.admin.get(address(BotKey, "history", mine)).content.decode()
    assert "Revoked." in history


def test_the_operator_makes_keys_for_any_brand(acme_house: House, operator: AdminBrowser) -> None:
    operator.send_changed(address(BotKey, "add"), brand=acme_house.brand.pk, label="by the operator")
    assert BotKey.objects.get(label="by the operator").brand == acme_house.brand


def test_every_setting_of_what_comes_back_says_what_it_is_for(acme_house: House, form_url: str) -> None:
    """The bug: "Accept form encoded tokens" stood there alone, for people who have never read RFC 6749."""
    form = acme_house.admin.get(form_url).context["adminform"]
    (fields,) = [options["fields"] for name, options in form.fieldsets if name == "What comes back"]
    assert [name for name in (*fields, "basic_encoding", "resource") if not form.form.fields[name].help_text] == []


# Names that are a person's words already.
PLAIN = {"brand", "prompt", "scope_separator", "required_scope", "default_check", "denial_codes", "trusted_audiences"}


def test_no_label_reads_like_code(operator: AdminBrowser) -> None:
    """The bug: "Token endpoint auth method". The label is a person's words, and the RFC's name is beside them."""
    fields = operator.get(address(AuthorizationServer, "add")).context["adminform"].form.fields
    as_code = {name for name, field in fields.items() if field.label.lower() == name.replace("_", " ")}
    assert as_code <= PLAIN | {"client_id", "client_secret"}
    wire = {"jwks_uri": "jwks_uri", "client_id": "client_id", "max_age": "max_age", "resource": "resource"}
    wire |= {name: name for name in ("token_endpoint_auth_method", "authorization_endpoint", "token_endpoint")}
    wire |= {name: name for name in ("revocation_endpoint", "pushed_authorization_request_endpoint", "scope")}
    wire |= {"key": "key", "issuer": "iss", "accepted_token_type": "token_type", "prompt": "prompt"}
    said = {name: f"{fields[name].label} {fields[name].help_text}" for name in wire}
    assert [name for name, word in wire.items() if word not in said[name]] == []


def test_a_number_of_seconds_is_shown_whole_on_a_phone(acme_house: House, form_url: str) -> None:
    """The bug: 86400 was cut off after four digits."""
    widgets = {
        name: acme_house.admin.get(form_url).context["adminform"].form.fields[name].widget.attrs["class"]
        for name in ("max_age", "default_token_lifetime", "max_token_lifetime", "challenge_lifetime")
    }
    assert set(widgets.values()) == {"vBigIntegerField"}


def test_the_four_steps_are_open_and_all_else_is_folded(acme_house: House, form_url: str) -> None:
    sections = list(acme_house.admin.get(form_url).context["adminform"])
    assert [section.name[:2] for section in sections if not section.is_collapsible] == ["1.", "2.", "3.", "4."]


def test_a_folded_section_with_an_error_is_open(acme_house: House, form_url: str) -> None:
    refused = acme_house.admin.send_changed(form_url, revocation_endpoint="http://nowhere", client_secret=NEW_SECRET)
    assert errors_of(refused) == {"revocation_endpoint": ["The URL must begin with https://."]}
    opened = [section.name for section in refused.context["adminform"] if not section.is_collapsible]
    assert [name for name in opened if not name[0].isdigit()] == ["Endpoints, if the issuer publishes none"]
