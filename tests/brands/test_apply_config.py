"""`manage.py apply_config` applies all of a file or nothing, and no message contains a secret."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from brands.configuration_file import apply_configuration, read_configuration
from brands.models import AuthorizationServer, Brand

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parent.parent.parent
SECRET = "planted-configured-secret-4d1b"
BRAND = '[brand]\nslug = "acme"\nname = "Acme"\n'
ENDPOINTS = {
    "authorization_endpoint": "https://login.acme.example/authorize",
    "token_endpoint": "https://login.acme.example/token",
    "client_id": "consumer-delegation",
}
WITH_SECRET = ENDPOINTS | {"client_secret": SECRET}
OPENID = {
    "scope": "openid orders",
    "issuer": "https://login.acme.example",
    "jwks_uri": "https://login.acme.example/jwks",
}


def server_table(key: str = "orders", **values: Any) -> str:
    lines = [f"{name} = {_toml(value)}" for name, value in {"key": key, **values}.items()]
    return "\n[[authorization_servers]]\n" + "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)


def configuration(**changes: Any) -> str:
    """Return a file with one server. A value of None removes the name."""
    values = {name: value for name, value in (WITH_SECRET | changes).items() if value is not None}
    return BRAND + server_table(**values)


def apply(text: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Apply a text from standard input; return the command's output."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
    printed = io.StringIO()
    call_command("apply_config", "-", stdout=printed)
    return dict(json.loads(printed.getvalue()))


def refused(text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Apply a text that must be refused; return the problems. Checks that nothing changed and no secret is quoted."""
    before = everything()
    with pytest.raises(CommandError) as raised:
        apply(text, monkeypatch)
    assert everything() == before
    assert SECRET not in str(raised.value)
    assert raised.value.returncode == 1
    return str(raised.value).split("\n")


def everything() -> list[list[Any]]:
    return [list(model._base_manager.order_by("pk").values()) for model in (Brand, AuthorizationServer)]


def secret_of(key: str = "orders") -> str | None:
    secret = AuthorizationServer.objects.get(key=key).reveal_credentials().client_secret
    return secret.reveal() if secret else None


def test_a_file_makes_a_brand_and_prints_where_it_sends_its_consumers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = apply(configuration(scope="openid orders", issuer="https://login.acme.example",
                                  jwks_uri="https://login.acme.example/jwks"), monkeypatch)  # fmt: skip
    server = AuthorizationServer.objects.select_related("brand").get()
    assert printed == {"brand": "acme", "authorization_servers": {"orders": {"redirect_uri": server.redirect_uri}}}
    assert server.redirect_uri == f"https://delegation.test/callback/{server.callback_id}"
    assert (server.brand.name, server.scope, secret_of()) == ("Acme", "openid orders", SECRET)


def test_the_same_file_again_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = configuration(client_secret=None, token_endpoint_auth_method="none")
    first = apply(text, monkeypatch)
    before = everything()
    assert apply(text, monkeypatch) == first
    assert everything() == before


def test_a_changed_file_updates_and_what_it_leaves_out_takes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    first = apply(configuration(challenge_lifetime=600, max_age=None, prompt="login"), monkeypatch)
    changed = configuration(client_secret=None, client_id="another").replace('name = "Acme"', 'name = "Acme Ltd"')
    assert apply(changed, monkeypatch) == first
    server = AuthorizationServer.objects.select_related("brand").get()
    default = AuthorizationServer._meta.get_field("challenge_lifetime").default
    assert (server.brand.name, server.client_id, server.challenge_lifetime) == ("Acme Ltd", "another", default)
    assert secret_of() == SECRET


def test_the_look_is_set_where_the_file_speaks_of_it_and_kept_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logo can only be uploaded, so a brand's look is its admins' wherever a file says nothing."""
    look = 'accent_colour = "#0a7d55"\nsupport_contact = "mailto:help@acme.example"\n'
    words = {'"orders.read"': "see your orders"}
    apply(BRAND + look + server_table(**WITH_SECRET, scope="orders.read", scope_descriptions=words), monkeypatch)
    apply(configuration(), monkeypatch)
    brand = Brand.objects.get()
    assert (brand.accent_colour, brand.support_contact) == ("#0a7d55", "mailto:help@acme.example")
    assert AuthorizationServer.objects.get().scope_descriptions == {}
    found = refused(BRAND + 'accent_colour = "green"\nsupport_contact = "javascript:alert(1)"\n', monkeypatch)
    assert sorted(problem.split(":")[0] for problem in found) == ["brand.accent_colour", "brand.support_contact"]


def test_a_file_takes_a_support_contact_as_people_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for written, kept in (("help@acme.example", "mailto:help@acme.example"), ("+49 30 123456", "tel:+4930123456")):
        apply(BRAND + f'support_contact = "{written}"\n', monkeypatch)
        assert Brand.objects.get().support_contact == kept


def test_a_file_lists_the_codes_of_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    """B14."""
    apply(configuration(denial_codes="17 user_cancelled"), monkeypatch)
    assert AuthorizationServer.objects.get().denial_codes == "17 user_cancelled"
    (problem,) = refused(configuration(denial_codes="17,18"), monkeypatch)
    assert problem.startswith("authorization_servers.orders.denial_codes: Separate codes by one space")


def test_several_servers_are_printed_by_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = apply(configuration() + server_table("returns", **WITH_SECRET), monkeypatch)
    assert list(printed["authorization_servers"]) == ["orders", "returns"]
    alone = apply(BRAND, monkeypatch)
    assert alone == {"brand": "acme", "authorization_servers": {}}
    assert AuthorizationServer.objects.count() == 2


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(configuration())
    printed = io.StringIO()
    call_command("apply_config", str(tmp_path / "acme.toml"), stdout=printed)
    assert json.loads(printed.getvalue())["brand"] == "acme"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "acme.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=r"acme\.toml cannot be read: \w+Error\."):
        call_command("apply_config", str(path))


def test_bytes_that_are_no_text_are_refused_on_standard_input_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    with pytest.raises(CommandError, match="standard input cannot be read: UnicodeDecodeError"):
        call_command("apply_config", "-")


def test_a_secret_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_CLIENT_SECRET", SECRET)
    apply(configuration(client_secret=None, client_secret_env="ACME_CLIENT_SECRET"), monkeypatch)
    assert secret_of() == SECRET


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"client_secret": None, "client_secret_env": "NOT_THERE"},
            "authorization_servers.orders.client_secret_env: the environment variable NOT_THERE is not set",
        ),
        (
            {"client_secret_env": "NOT_THERE"},
            "authorization_servers.orders.client_secret_env: give this or client_secret, not both",
        ),
        (
            {"client_secret": None},
            "authorization_servers.orders.client_secret: this client authentication needs a secret",
        ),
        (
            {"client_secret": ""},
            "authorization_servers.orders.client_secret: this client authentication needs a secret",
        ),
    ],
)
def test_a_secret_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], problem: str
) -> None:
    assert refused(configuration(**changes), monkeypatch) == [problem]


@pytest.mark.parametrize("field", ["token_endpoint", "jwks_uri", "issuer"])
def test_another_host_demands_the_secret_again(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """N8: a file from somebody else must not send the stored secret elsewhere."""
    apply(configuration(), monkeypatch)
    moved = {field: "https://login.elsewhere.example/x"}
    (problem,) = refused(configuration(client_secret=None, **moved), monkeypatch)
    assert problem.startswith("authorization_servers.orders.client_secret: ")
    apply(configuration(**moved), monkeypatch)
    assert getattr(AuthorizationServer.objects.get(), field) == moved[field]


def test_a_public_client_keeps_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(configuration(), monkeypatch)
    moved = {"token_endpoint": "https://login.elsewhere.example/token"}
    apply(configuration(client_secret=None, token_endpoint_auth_method="none", **moved), monkeypatch)
    assert secret_of() is None


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"authorization_endpoint": "http://login.acme.example/a"}, ["authorization_endpoint"]),
        ({"token_endpoint": "https://10.0.0.1/token", "client_id": ""}, ["client_id", "token_endpoint"]),
        ({"scope": "openid orders"}, ["issuer", "jwks_uri"]),
        ({"required_scope": "orders"}, ["required_scope"]),
        ({"token_endpoint_auth_method": "tls_client_auth"}, ["token_endpoint_auth_method"]),
        ({"basic_encoding": "other"}, ["basic_encoding"]),
        ({"same_person_checks": ["completion_code", "none"]}, ["same_person_checks"]),
        ({"same_person_checks": ["completion_code", "completion_code"]}, ["same_person_checks"]),
        ({"same_person_checks": ["palm_reading"]}, ["same_person_checks"]),
        ({"same_person_checks": []}, ["same_person_checks"]),
        ({"same_person_checks": ["expected_subject"]}, ["same_person_checks"]),
        ({"same_person_checks": ["chat_page"]}, ["chat_page_url"]),
        ({"id_token_signing_alg_values": ["none"]}, ["id_token_signing_alg_values"]),
        (OPENID | {"id_token_signing_alg_values": []}, ["id_token_signing_alg_values"]),
        ({"extra_authorization_parameters": {"state": "x"}}, ["extra_authorization_parameters"]),
        ({"challenge_lifetime": 299}, ["challenge_lifetime"]),
        ({"challenge_lifetime": 3601}, ["challenge_lifetime"]),
        ({"default_token_lifetime": 0}, ["default_token_lifetime"]),
        ({"default_token_lifetime": 3601}, ["default_token_lifetime"]),
        ({"max_token_lifetime": 604801}, ["max_token_lifetime"]),
        ({"max_age": -1}, ["max_age"]),
        ({"key": "Orders!"}, ["key"]),
    ],
)  # fmt: skip
def test_each_bad_field_is_named_and_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], fields: list[str]
) -> None:
    values = WITH_SECRET | {"key": "orders"} | changes
    problems = refused(BRAND + server_table(**values), monkeypatch)
    prefix = f"authorization_servers.{values['key']}."
    assert sorted({problem.split(": ")[0] for problem in problems}) == [prefix + field for field in fields]


def test_a_second_server_that_is_bad_leaves_the_first_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(configuration(), monkeypatch)
    good = configuration(client_id="changed")
    bad = server_table("returns", **(WITH_SECRET | {"token_endpoint": "http://x"}))
    assert [problem.split(": ")[0] for problem in refused(good + bad, monkeypatch)] == [
        "authorization_servers.returns.token_endpoint"
    ]


def test_everything_that_is_wrong_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: a wrong brand hid the servers, a server the webhooks, and so a file was mended in four goes."""
    monkeypatch.delenv("NOT_SET", raising=False)
    bad_brand = BRAND + 'accent_colour = "mauve"\n'
    servers = server_table("one", **(WITH_SECRET | {"max_age": -1})) + server_table("one", **WITH_SECRET)
    servers += server_table("two", **(ENDPOINTS | {"token_endpoint": "http://x", "client_secret_env": "NOT_SET"}))
    webhooks = '[[webhooks]]\nurl = "http://hooks.acme.example/"\n'

    of_servers = {
        "authorization_servers.one",
        "authorization_servers.one.max_age",
        "authorization_servers.two.client_secret_env",
        "authorization_servers.two.token_endpoint",
    }
    named = {problem.split(": ")[0] for problem in refused(bad_brand + servers + webhooks, monkeypatch)}
    assert named >= {"brand.accent_colour", *of_servers}
    named = {problem.split(": ")[0] for problem in refused(BRAND + servers + webhooks, monkeypatch)}
    assert named >= {"webhooks.http://hooks.acme.example/.url", *of_servers}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (configuration() + server_table(**WITH_SECRET), "authorization_servers.orders: the key is given twice"),
        (configuration().replace('slug = "acme"', 'slug = "Acme Ltd"'), "brand.slug: Use lower-case letters"),
        (configuration().replace('name = "Acme"', 'name = ""'), "brand.name: This field cannot be blank."),
        (configuration(client_sekret=SECRET), "authorization_servers.orders.client_sekret: there is no such setting"),
        (BRAND + 'secret = "x"\n', "brand.secret: there is no such setting"),
        (
            configuration(client_secret=5),
            "authorization_servers.orders.client_secret: Expected `str | null`, got `int`",
        ),
        (configuration(client_id=None), "authorization_servers.orders.client_id: it is missing"),
        (f'{BRAND}client_secret = "{SECRET}', "Unterminated string"),
        ('[brand]\nname = "Acme"\n', "brand.slug: it is missing"),
        (BRAND.replace("Acme", "Acme\\u0000"), "brand.name: Expected `str` matching regex"),
        (configuration(client_id="a\u0000b"), "authorization_servers.orders.client_id: Expected `str` matching regex"),
        # Python's reader of TOML raises other errors for these two, which ended the command with a traceback.
        (configuration() + f"max_age = {'9' * 5000}\n", "the file contains a number that is too long"),
        (configuration() + f"scope = {'[' * 5000}\n", "the file contains a number that is too long, or is nested"),
    ],
)
def test_what_is_no_configuration_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, problem: str) -> None:
    (found,) = refused(text, monkeypatch)
    assert found.startswith(problem)


def test_the_command_itself_exits_1_and_speaks_on_standard_error() -> None:
    """Before the database is asked: the process, its status and its two streams."""
    result = subprocess.run(
        [sys.executable, "manage.py", "apply_config", "-"],
        cwd=ROOT, input=f'{BRAND}client_secret = "{SECRET}', capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (1, "")
    assert "Unterminated string" in result.stderr
    assert (SECRET in result.stderr, "Traceback" in result.stderr) == (False, False)


def test_a_file_decides_whether_reads_name_their_purpose(db: None) -> None:
    """What is left out takes the default, also where the row had another value."""
    for line, required in (("token_read_purpose_required = true", True), ("", False)):
        apply_configuration(read_configuration(f"{BRAND}{line}\n"))
        assert Brand.objects.get().token_read_purpose_required is required
