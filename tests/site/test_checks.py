"""System checks: what makes an installation dangerous is an error with an id, and a safe one has none (K3, N10)."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

from delegation_site import checks

KEY_1 = "key-1:3hSxq0CkB7dT9rYwVbN2mZ5fJ8gLpQeRtUiOaXcKvMs="
KEY_2 = "key-2:Zr0C2f0XQmYb7tq1sJ6uPpVdKxw4hN8aLo5iE3gTzUk="
PRODUCTION = {
    "SECRET_KEY": "production-shaped-2xJ9vQm4WZr7sLtKpYdNbEcHfUgAoRiT5qMhVyXw",
    "ENCRYPTION_KEYS": KEY_1,
    "PUBLIC_BASE_URL": "https://delegation.example",
    "ALLOW_LOCAL_ENDPOINTS": False,
    "OUTBOUND_CA_FILE": "",
    "DEBUG": False,
    "REQUIRE_ADMIN_MFA": True,
    "REDIS_URL": "",
    "TRUSTED_PROXY_COUNT": 1,
    "METRICS_FOLDER": "",
    "METRICS_BIND": ("127.0.0.1", 9464),
}


@pytest.fixture(autouse=True)
def production(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test with the settings of an installation that is in order."""
    change(settings, PRODUCTION)
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "infrastructure.postgresql")


def change(settings: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(settings, name, value)


def raised() -> list[str]:
    """Return the ids of our own checks that complain, as `check --deploy` would find them."""
    found = [str(message.id) for message in run_checks(include_deployment_checks=True)]
    return [name for name in found if name.startswith("delegation.")]


def test_an_installation_in_order_raises_none() -> None:
    assert raised() == []


@pytest.mark.parametrize(
    "keys",
    [
        "",
        ",",
        KEY_1.removeprefix("key-1:"),
        "key-1:",
        "key-1:not base64",
        "key-1:c2hvcnQ=",
        f"{KEY_1},{KEY_2.replace('key-2', 'key-1')}",
        f"{KEY_1},{KEY_1.replace('key-1', 'key-2')}",
        "key-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "key-1:Y2hhbmdlbWVjaGFuZ2VtZWNoYW5nZW1lY2hhbmdlbWU=",
        f"Key 1:{KEY_1.removeprefix('key-1:')}",
    ],
)
def test_a_weak_key_ring_is_e001(settings: Any, keys: str) -> None:
    """K3: empty, short, duplicate, default, or without an id. The message names no key."""
    settings.ENCRYPTION_KEYS = keys
    (message,) = checks.check_encryption_keys()
    assert raised() == ["delegation.E001"]
    assert [value for value in keys.replace(",", ":").split(":") if len(value) > 20 and value in str(message)] == []


def test_the_hint_of_e001_prints_what_can_be_used_as_it_stands(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = KEY_1.removeprefix("key-1:")
    (message,) = checks.check_encryption_keys()
    _, command = str(message.hint).split("with: ")
    made = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)
    settings.ENCRYPTION_KEYS = made.stdout.strip()
    assert raised() == []


def test_two_good_keys_raise_none(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = f"{KEY_2},{KEY_1}"
    assert raised() == []


@pytest.mark.parametrize("secret_key", [KEY_1, KEY_1.removeprefix("key-1:")])
def test_one_value_for_both_kinds_of_key_is_e002(settings: Any, secret_key: str) -> None:
    """K3."""
    settings.SECRET_KEY = secret_key
    assert raised() == ["delegation.E002"]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "delegation.example",
        "http://delegation.example",
        "https://delegation.example/path",
        "https://delegation.example?query",
        "https://delegation.example#fragment",
        "https://user:password@delegation.example",
        "https://",
        "http://localhost.example",
        "ftp://localhost",
        "http://delegation.test",
        "http://test",
        "http://localhost.test",
        "http://notlocalhost",
        "http://0.0.0.0:8000",
        "http://128.0.0.1",
        "http://127.1",
        "http://[::ffff:127.0.0.1]",
        "http://[::2]",
        "https://[0:0:0:0:0:0:0:1]",
        "https://[::1",
        "https://127.1",
        "https://delegation.example//",
        "https://delegation.example?",
        "https://delegation.example#",
        "https://delegation.example:",
        "https://delegation.example:0",
        "https://delegation.example:0443",
        "https://delegation.example:65536",
        "https://delegation.example:port",
        "https://@delegation.example",
        "https://user@delegation.example",
        " https://delegation.example",
        "https://delegation.example ",
        "https://delegation .example",
        "https://delega\ttion.example",
        "https://delegation.example\n",
        "https://delegation.example.",
        "https://-delegation.example",
        "https://delegation..example",
        "https://delegation_example",
        "https://délégation.example",
        "https://delegation.example\\evil.example",
        "https:delegation.example",
        "https:/delegation.example",
        "//delegation.example",
    ],
)
def test_a_base_url_that_is_no_tls_origin_is_e003(settings: Any, address: str) -> None:
    """B16, B22. The bug: http and a name that ends in .test passed; no browser keeps our cookies there."""
    settings.PUBLIC_BASE_URL = address
    assert raised() == ["delegation.E003"]


@pytest.mark.parametrize(
    "address", ["https://delegation.example", "https://delegation.example:8443", "http://localhost:8000",
                "http://127.0.0.1:8000", "http://127.8.9.10", "http://[::1]:8000", "https://delegation.test",
                "http://delegation.localhost", "https://xn--dlgation-b1ab.example", "https://203.0.113.7", "https://[2001:db8::1]:8443"]
)  # fmt: skip
def test_an_origin_over_tls_or_on_loopback_raises_none(settings: Any, address: str) -> None:
    settings.PUBLIC_BASE_URL = address
    assert raised() == []


def test_local_endpoints_of_a_public_installation_are_e004(settings: Any) -> None:
    """N1: whatever DEBUG says."""
    settings.ALLOW_LOCAL_ENDPOINTS = True
    assert raised() == ["delegation.E004"]
    settings.PUBLIC_BASE_URL = "http://localhost:8000"
    assert raised() == []


@pytest.mark.parametrize("name", ["OAUTHLIB_INSECURE_TRANSPORT", "OAUTHLIB_RELAX_TOKEN_SCOPE"])
@pytest.mark.parametrize("value", ["1", "0", ""])
def test_a_switch_of_oauthlib_is_e005(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """N10: oauthlib asks whether it is set, not what it says."""
    monkeypatch.setenv(name, value)
    assert raised() == ["delegation.E005"]


def test_a_second_database_driver_is_e006(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: object() if name == "psycopg" else None)
    assert raised() == ["delegation.E006"]


def test_a_ca_file_that_cannot_be_read_is_e007(settings: Any, tmp_path: Any) -> None:
    settings.OUTBOUND_CA_FILE = str(tmp_path / "brands.pem")
    assert raised() == ["delegation.E007"]
    (tmp_path / "brands.pem").write_text("")
    assert raised() == []


def test_debug_of_a_public_installation_is_e008(settings: Any) -> None:
    settings.DEBUG = True
    assert raised() == ["delegation.E008"]
    settings.PUBLIC_BASE_URL = "http://localhost:8000"
    assert raised() == []


def test_a_password_alone_in_production_is_w005(settings: Any) -> None:
    """G10: a warning, since an operator may have a second factor of their own in front; tests and demos have none."""
    settings.REQUIRE_ADMIN_MFA = False
    assert raised() == ["delegation.W005"]
    change(settings, {"PUBLIC_BASE_URL": "http://localhost:8000", "DEBUG": True})
    assert raised() == []
    change(settings, {"DEBUG": False, "ALLOW_LOCAL_ENDPOINTS": True})
    assert raised() == []


@pytest.mark.parametrize(
    "address",
    [
        "nonsense", "127.0.0.1:6379", "http://127.0.0.1:6379", "reddis://127.0.0.1", "redis:127.0.0.1",
        "redis:/127.0.0.1", "REDIS://127.0.0.1", "redis+sentinel://127.0.0.1", " redis://127.0.0.1",
        "redis://127.0.0.1 ", "redis://127.0.0.1\n", "redis://redis example",
        "redis://", "redis:///0", "redis://:PLANTED@", "redis://:PLANTED@:6379",
        "redis://127.0.0.1:port", "redis://127.0.0.1:0", "redis://127.0.0.1:65536", "redis://127.0.0.1:-1",
        "redis://[::1", "redis://127.0.0.1/zero", "redis://127.0.0.1/-1", "redis://127.0.0.1/0/1", "redis://127.0.0.1?db=x",
        "redis://127.0.0.1?db=", "redis://127.0.0.1/1.5", "redis://:PLAN/TED@127.0.0.1:6379", "redis://:PLAN#TED@127.0.0.1",
        "redis://:12#PLANTED@127.0.0.1:6379/0", "redis://:PLAN?TED@127.0.0.1", "redis://127.0.0.1#0",
        "redis://127.0.0.1?decode_responses=true", "redis://127.0.0.1?nonsense=1", "redis://127.0.0.1?ssl_nonsense=1",
        "rediss://127.0.0.1?ssl_cert_reqs=nonsense", "redis://one.example,two.example", "redis://127.0.0.1;redis://[::1]",
        "unix://", "unix:///", "unix://run/redis.sock", "unix:/run/redis.sock", "unix:///run/redis.sock?db=x",
    ],
)  # fmt: skip
def test_no_address_of_redis_is_e024(settings: Any, address: str) -> None:
    """G8, K3. The bug: it passed, and each page that counts was a 500. No part of it is said: it holds a password."""
    settings.REDIS_URL = address
    (message,) = checks.check_redis_url()
    assert raised() == ["delegation.E024"]
    said = f"{message.msg} {message.obj}"
    assert [part for part in ("PLAN", "TED", "12") if part in said] == []


@pytest.mark.parametrize(
    "address",
    ["", "redis://127.0.0.1", "redis://127.0.0.1/", "redis://redis:6379/15", "redis://[::1]:6379/0", "redis://a_redis/0",
     "redis://:p%2Fa%23ss@redis.example:6379/0", "rediss://ada:secret@redis.example:6380/0?ssl_cert_reqs=required",
     "redis://127.0.0.1?db=3", "redis://:a,b;c@127.0.0.1", "unix:///run/redis.sock", "unix://ada:secret@/run/redis.sock?db=1"],
)  # fmt: skip
def test_an_address_of_redis_raises_none(settings: Any, address: str) -> None:
    settings.REDIS_URL = address
    assert raised() == []


def test_several_mistakes_are_named_together(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    change(settings, {"ENCRYPTION_KEYS": "", "ALLOW_LOCAL_ENDPOINTS": True})
    assert sorted(raised()) == ["delegation.E001", "delegation.E004", "delegation.E005"]


@pytest.mark.parametrize(
    "entry",
    ["https://acme.example", "acme.example:8443", "acme.example/", " acme.example", "acme example", "*.acme.example",
     "acme..example", "::1", "[::1", "user@acme.example"],
)  # fmt: skip
def test_an_allowed_host_that_nothing_can_match_is_refused(settings: Any, entry: str) -> None:
    """N10. The bug: it passed the checks, and every call read 400."""
    settings.ALLOWED_HOSTS = ["acme.example", entry]
    assert raised() == ["delegation.E025"]


def test_each_writing_of_a_host_that_can_be_matched_is_taken(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["Acme.example", ".acme.example", "web_1", "10.0.0.5", "[::1]", "*", "localhost"]
    assert raised() == []


def test_sqlite_in_production_is_w006(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: a DATABASE_URL that did not arrive, for instance because of a typing error, passed silently."""
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    assert raised() == ["delegation.W006"]


@pytest.mark.parametrize(
    "values",
    [
        {"PUBLIC_BASE_URL": "http://localhost:8000"},
        {"PUBLIC_BASE_URL": "http://localhost:8000", "DEBUG": True},
        {"PUBLIC_BASE_URL": "https://delegation.test", "ALLOW_LOCAL_ENDPOINTS": True},
    ],
)
def test_sqlite_of_a_demo_or_a_test_is_no_warning(
    settings: Any, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    change(settings, values)
    assert raised() == []


@pytest.mark.parametrize(("origin", "found"), [
    ("https://delegation.example", ["delegation.W009"]),
    ("https://delegation.test", []),
    ("https://localhost:8443", []),
    ("http://localhost:8000", []),
])  # fmt: skip
def test_a_proxy_that_is_not_counted_is_w009(settings: Any, origin: str, found: list[str]) -> None:
    """G8. The bug: an installation by the book said nothing, and all clients shared one address in the limits."""
    change(settings, {"PUBLIC_BASE_URL": origin, "TRUSTED_PROXY_COUNT": 0})
    assert raised() == found


@pytest.mark.parametrize("folder", ["metrics", "/not/there", "{file}", "."])
def test_metrics_need_a_folder_that_can_be_written(settings: Any, tmp_path: Path, folder: str) -> None:
    """N10: the first request that is counted would fail."""
    (file := tmp_path / "file").touch()
    settings.METRICS_FOLDER = folder.format(file=file)
    assert raised() == ["delegation.E027"]
    settings.METRICS_FOLDER = str(tmp_path)
    assert raised() == []


@pytest.mark.parametrize(("host", "found"), [
    ("0.0.0.0", ["delegation.W007"]),  # noqa: S104  # that is the mistake
    ("::", ["delegation.W007"]),
    ("10.0.0.5", ["delegation.W007"]),
    ("localhost", []),
    ("127.0.0.2", []),
    ("::1", []),
])  # fmt: skip
def test_metrics_at_a_public_address_are_a_warning(settings: Any, tmp_path: Path, host: str, found: list[str]) -> None:
    """H12: there is no password."""
    change(settings, {"METRICS_FOLDER": str(tmp_path), "METRICS_BIND": (host, 9464)})
    assert raised() == found
    settings.METRICS_FOLDER = ""
    assert raised() == []
