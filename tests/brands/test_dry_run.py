"""`manage.py apply_config --dry-run`: what a file would change, all of its problems at once, and nothing is stored."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection

from brands.models import Brand
from tests import snapshot
from tests.brands.test_apply_config import BRAND, ENDPOINTS, SECRET, WITH_SECRET, configuration, server_table
from tests.brands.test_apply_config_webhooks import GIVEN, URL, webhook
from tests.brands.test_export_config import exported, furnished
from tests.fake_authorization_server import mounted
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db
__all__ = ["furnished"]

ISSUER = "https://login.acme.example"


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A function that runs the command on a text. Returns the printed lines."""

    def run(text: str, *options: str) -> list[str]:
        printed = io.StringIO()
        (tmp_path / "acme.toml").write_text(text, encoding="utf-8")
        call_command("apply_config", str(tmp_path / "acme.toml"), *options, stdout=printed)
        return printed.getvalue().splitlines()

    return run


@pytest.fixture
def dry(run: Any) -> Any:
    """The same as a dry run. Checks that not a cell of the database has changed."""

    def dry(text: str) -> list[str]:
        before = snapshot.stored()
        try:
            return list(run(text, "--dry-run"))
        finally:
            assert snapshot.stored() == before

    return dry


@pytest.fixture
def problems(dry: Any) -> Any:
    """What a dry run says of a file that must be refused."""

    def problems(text: str) -> list[str]:
        with pytest.raises(CommandError) as raised:
            dry(text)
        assert raised.value.returncode == 1
        return str(raised.value).split("\n")

    return problems


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    fake = ModernAuthorizationServer()
    with mounted(fake):
        yield fake


def test_a_new_brand_is_described_and_not_created(dry: Any) -> None:
    assert dry(configuration(scope="orders.read", max_age=None) + webhook(label='"production"')) == [
        "brand: would be created",
        '  name: "Acme"',
        "authorization_servers.orders: would be created",
        '  authorization_endpoint: "https://login.acme.example/authorize"',
        '  token_endpoint: "https://login.acme.example/token"',
        '  client_id: "consumer-delegation"',
        "  client_secret: would be set",
        '  scope: "orders.read"',
        f"webhooks.{URL}: would be created",
        '  label: "production"',
        "  secret: would be set",
    ]
    assert not Brand.objects.exists()


def test_each_changed_field_is_shown_with_both_values(run: Any, dry: Any) -> None:
    run(configuration(scope="openid orders", issuer=ISSUER, jwks_uri=f"{ISSUER}/jwks", max_age=60) + webhook())
    changed = configuration(client_secret="another", scope="orders.read", resource=["urn:orders"])
    lines = dry(changed.replace('name = "Acme"', 'name = "Acmé \\u202e"') + webhook(events='["token.*"]'))
    assert lines == [
        "brand: would be changed",
        '  name: "Acme" -> "Acmé \\u202e"',
        "authorization_servers.orders: would be changed",
        '  issuer: "https://login.acme.example" -> ""',
        '  jwks_uri: "https://login.acme.example/jwks" -> ""',
        "  client_secret: would be replaced",
        '  scope: "openid orders" -> "orders.read"',
        '  resource: [] -> ["urn:orders"]',
        "  max_age: 60 -> (none)",
        f"webhooks.{URL}: would be changed",
        '  events: ["*"] -> ["token.*"]',
    ]


def test_what_is_announced_is_what_happens(run: Any, dry: Any, furnished: Brand) -> None:
    """From one brand with every setting to one with defaults: afterwards nothing is left to change."""
    text = BRAND + server_table("every-setting", **WITH_SECRET) + server_table("public", **WITH_SECRET)
    assert dry(text) != ["Nothing would change."]
    run(text)
    assert dry(text) == ["Nothing would change."]


def test_the_same_file_would_change_nothing(dry: Any, run: Any, furnished: Brand) -> None:
    assert dry(exported()) == ["Nothing would change."]
    run(configuration().replace('slug = "acme"', 'slug = "another"'))
    assert dry(exported("another")) == ["Nothing would change."]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("client_secret_basic", ["client_secret: would be replaced"]),
        ("none", ["client_secret: would be removed"]),
        ("private_key_jwt", ["client_secret: would be removed", "signing_key: would be set"]),
    ],
)
def test_a_secret_is_named_and_never_shown(
    run: Any, dry: Any, monkeypatch: pytest.MonkeyPatch, method: str, said: list[str]
) -> None:
    """H7: neither an old secret nor a new one, in clear or as ciphertext."""
    monkeypatch.setenv("HOOK_SECRET", GIVEN)
    run(configuration() + webhook())
    new = {"client_secret": "planted-new"} if method == "client_secret_basic" else {"client_secret": None}
    changed = configuration(token_endpoint_auth_method=method, issuer=ISSUER, **new)
    lines = dry(changed + webhook(secret_env='"HOOK_SECRET"'))
    assert [line.strip() for line in lines if "would be" in line and line.startswith(" ")] == [
        *said,
        "secret: would be replaced",
        "previous_secret: would be set",
        "previous_secret_expires_at: would be set",
    ]
    assert [value for value in (SECRET, "planted-new", GIVEN, "b'", "whsec_", "memory") if value in str(lines)] == []


def test_switching_off_and_on_is_shown(run: Any, dry: Any) -> None:
    off = {"is_active": False}
    assert "  is_active: false" in dry(configuration(**off) + webhook(is_active="false"))
    run(configuration(**off) + webhook(is_active="false"))
    run(configuration() + webhook())  # a file that says nothing leaves it off
    on = configuration(is_active=True).replace('name = "Acme"', 'name = "Acme"\nis_active = false')
    assert dry(on + webhook(is_active="true")) == [
        "brand: would be changed",
        "  is_active: true -> false",
        "authorization_servers.orders: would be changed",
        "  is_active: false -> true",
        f"webhooks.{URL}: would be changed",
        "  is_active: false -> true",
    ]


def test_a_dry_run_sends_no_mail_and_logs_no_event(
    run: Any, dry: Any, acme_admin: Any, django_capture_on_commit_callbacks: Any
) -> None:
    """N8: the mail about another host belongs to the change, and a dry run is none."""
    acme_admin.email = "ada@acme.example"
    acme_admin.save()
    run(configuration())
    moved = configuration(token_endpoint="https://elsewhere.example/token") + webhook()
    with django_capture_on_commit_callbacks(execute=True) as called:
        assert dry(moved)[0] == "authorization_servers.orders: would be changed"
    assert (called, mail.outbox) == ([], [])
    with django_capture_on_commit_callbacks(execute=True):
        run(moved)
    assert len(mail.outbox) == 2


def test_metadata_is_fetched_as_usual_outside_the_transaction(
    dry: Any, login: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C6: what would be filled in is shown."""
    depth, seen = len(connection.savepoint_ids), []
    send = ModernAuthorizationServer.send

    def watched(fake: ModernAuthorizationServer, request: Any, **options: Any) -> Any:
        seen.append(len(connection.savepoint_ids) - depth)
        return send(fake, request, **options)

    monkeypatch.setattr(ModernAuthorizationServer, "send", watched)
    lines = dry(BRAND + server_table(client_id="x", client_secret=SECRET, issuer=ISSUER))
    assert f'  token_endpoint: "{ISSUER}/token"' in lines
    assert f'  pushed_authorization_request_endpoint: "{ISSUER}/par"' in lines
    assert seen == [0]


def test_why_there_is_no_metadata_is_said_beside_all_else(
    problems: Any, run: Any, login: ModernAuthorizationServer
) -> None:
    """The bug: other mistakes of the file were told only after this one was corrected."""
    login.metadata_path = "/nowhere"
    table = server_table(client_id="x", client_secret=SECRET, issuer=ISSUER, challenge_lifetime=1, prompt="never")
    assert problems(BRAND + table + webhook(url='"http://x.example/"')) == [
        "authorization_servers.orders.issuer: No metadata was found for this issuer. Enter the endpoints yourself.",
        "authorization_servers.orders.prompt: Value 'never' is not a valid choice.",
        "authorization_servers.orders.challenge_lifetime: Ensure this value is greater than or equal to 300.",
        "webhooks.http://x.example/.url: The URL must begin with https://.",
    ]


# Everything that is wrong, at once. The bug: each run named one cause, so a file took one run for each of its mistakes.

WRONG = """
colour = "red"

[brand]
slug = "Acme Ltd"
naem = "Acme"
accent_colour = "mauve"

[[authorization_servers]]
key = "orders"
client_id = 5
client_sekret = "planted-configured-secret-4d1b"
authorization_endpoint = "http://login.acme.example/authorize"
token_endpoint = "https://login.acme.example/token"
max_age = "soon"
resource = "urn:orders"
scope_descriptions = {"orders.read" = 5}

[[authorization_servers]]
client_id = "no-key"

[[authorization_servers]]
key = "returns"
client_id = "returns"
client_secret_env = "NOT_SET_ANYWHERE"
authorization_endpoint = "https://login.acme.example/authorize"
token_endpoint = "https://10.0.0.1/token"
required_scope = "not-asked-for"

[[webhooks]]
url = "https://bot.acme.example/hooks"
events = ["challenge.complete"]
secret_env = "NOT_SET_ANYWHERE"
lable = "typo"

[[webhooks]]
label = "no address"
"""
PLACES = [
    "colour",
    "brand.naem",
    "brand.name",
    "authorization_servers.orders.client_sekret",
    "authorization_servers.orders.client_secret",
    "authorization_servers.orders.client_id",
    "authorization_servers.orders.resource",
    "authorization_servers.orders.scope_descriptions",
    "authorization_servers.orders.max_age",
    "authorization_servers[1].key",
    "webhooks.https://bot.acme.example/hooks.lable",
    "webhooks[1].url",
    "brand.slug",
    "brand.accent_colour",
    "authorization_servers.orders.authorization_endpoint",
    "authorization_servers.returns.client_secret_env",
    "authorization_servers.returns.token_endpoint",
    "authorization_servers.returns.required_scope",
    "webhooks.https://bot.acme.example/hooks.events",
    "webhooks.https://bot.acme.example/hooks.secret_env",
]


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize("stored", [False, True])
def test_all_mistakes_of_a_file_are_named_at_once(
    run: Any, acme: Brand, options: tuple[str, ...], stored: bool
) -> None:
    text = WRONG.replace("Acme Ltd", "acme") if stored else WRONG
    before = snapshot.stored()
    with pytest.raises(CommandError) as raised:
        run(text, *options)
    found = str(raised.value).split("\n")
    expected = [place for place in PLACES if not (stored and place == "brand.slug")]
    assert sorted(problem.split(": ")[0] for problem in found) == sorted(expected)
    assert SECRET not in str(raised.value)
    assert snapshot.stored() == before


def test_a_lost_value_is_not_blamed_on_other_lines(problems: Any) -> None:
    """Its own line is wrong. That another field needs it cannot be known."""
    needs_others: dict[str, Any] = {"scope": 5, "required_scope": "orders", "issuer": 7, "prompt": "never"}
    without_endpoints = {"client_id": "x", "client_secret": SECRET} | needs_others
    assert [problem.split(": ")[0] for problem in problems(BRAND + server_table(**without_endpoints))] == [
        "authorization_servers.orders.issuer",
        "authorization_servers.orders.scope",
        "authorization_servers.orders.prompt",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["brand.slug: it is missing", "brand.name: it is missing"]),
        ('brand = "acme"', ["brand: this is not a table"]),
        (BRAND + "[authorization_servers]\nkey = 'x'", ["authorization_servers: write each one as a table"]),
        ("authorization_servers = [5]\n" + BRAND, ["authorization_servers[0]: this is not a table"]),
        ("webhooks = 5\n" + BRAND, ["webhooks: write each one as a table [[webhooks]]"]),
        (BRAND + webhook(url="2026-11-28"), ["webhooks[0].url: Expected `str`, got `date`"]),
        (BRAND + webhook(url='"https://x.example/\\u0000"'), ["webhooks.https://x.example/\\u0000.url: Expected"]),
        (configuration(issuer="https://x.example/\x00"), ["authorization_servers.orders.issuer: Expected `str`"]),
        (configuration(client_sekret="x"), ["authorization_servers.orders.client_sekret: there is no such"]),
        (configuration(scope_descriptions={'"a\\u0000"': "x"}), ["authorization_servers.orders.scope_descriptions: "]),
        # The attack: a name in a file of somebody else's fakes a line, or sends codes to the terminal.
        (configuration(key="a\nb\x1b[2J\u202e"), ["authorization_servers.a\\u000ab\\u001b[2J\\u202e.key: Use lower"]),
        (configuration(key=""), ["authorization_servers..key: This field cannot be blank."]),
        (configuration() + "challenge_lifetime = 99999999999999999999\n",
         ["authorization_servers.orders.challenge_lifetime: "]),
        (BRAND + server_table(**ENDPOINTS, unreadable=["key"], client_secret="x"),
         ["authorization_servers.orders.unreadable: there is no such setting"]),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_refused_in_words(problems: Any, text: str, expected: list[str]) -> None:
    """The bug: an address with a NUL character ended the command with a traceback on PostgreSQL."""
    found = problems(text)
    assert len(found) == len(expected), found
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning)
