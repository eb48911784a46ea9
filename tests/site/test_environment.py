"""What is missing in the environment, or cannot be used, is named with an id and without a value; nothing starts."""

import subprocess
import sys
from typing import Any, Final

import pytest

from delegation_site.environment import Environment, canonical_origin, origin_host
from tests.installation import ROOT, Installation
from tests.served import COMMAND, KEY, installation_at_a_free_port

PLANTED: Final = "PLANTED-password"
WAYS_OF_STARTING: Final = [
    ["manage.py", "check"],
    ["manage.py", "migrate"],
    ["manage.py", "worker", "--once"],
    ["manage.py", "runserver", "--noreload", "127.0.0.1:0"],
    COMMAND[1:],
    ["-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:0", "delegation_site.wsgi"],
    ["-c", "import delegation_site.wsgi"],
]


def found(mistakes: list[str]) -> list[str]:
    return [mistake[1 : mistake.index(")")] for mistake in mistakes]


def started(installation: Installation, way: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *way], cwd=ROOT, env=installation.environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def installation(tmp_path: Any) -> Installation:
    return installation_at_a_free_port(tmp_path)


@pytest.mark.parametrize("way", WAYS_OF_STARTING, ids=" ".join)
def test_what_is_missing_is_named_in_every_way_of_starting(installation: Installation, way: list[str]) -> None:
    """N10, K8. The bug: a traceback of Django's settings, and no id."""
    installation.settings |= {"SECRET_KEY": "", "THREADS": "0", "DATABASE_URL": f"postgres://ada:{PLANTED}@db:port/x"}
    installation.settings |= {"ENCRYPTION_KEYS_FROM": "file:/nowhere"}
    result = started(installation, way)
    printed = result.stdout + result.stderr
    assert result.returncode != 0
    for words in (
        "(delegation.E009) SECRET_KEY is missing or empty.",
        "(delegation.E020) THREADS must be a whole number from 1 to 1000.",
        "(delegation.E021) DATABASE_URL is not a database URL",
        "(delegation.E040) ENCRYPTION_KEYS has a value for the key key-1, not its id alone.",
    ):
        assert words in printed
    assert [word for word in ("Traceback", PLANTED, KEY.partition(":")[2]) if word in printed] == []


@pytest.mark.parametrize("way", WAYS_OF_STARTING, ids=" ".join)
def test_what_is_dangerous_is_named_in_every_way_of_starting(installation: Installation, way: list[str]) -> None:
    """N10. The bugs: another WSGI server than ours started, `runserver` showed a traceback and went on."""
    address = f"redis://:{PLANTED}/x@127.0.0.1:6379"
    installation.settings |= {"PUBLIC_BASE_URL": "http://delegation.test", "REDIS_URL": address}
    result = started(installation, way)
    printed = result.stdout + result.stderr
    assert result.returncode != 0
    assert "(delegation.E003) PUBLIC_BASE_URL must be an https origin" in printed
    assert "(delegation.E024) REDIS_URL cannot be used" in printed
    assert [word for word in ("Traceback", PLANTED) if word in printed] == []


@pytest.mark.parametrize("value", [None, "", "  "])
@pytest.mark.parametrize(
    ("name", "number"), [("SECRET_KEY", "E009"), ("ENCRYPTION_KEYS", "E001"), ("PUBLIC_BASE_URL", "E003")]
)
def test_what_has_no_default_is_required(
    monkeypatch: pytest.MonkeyPatch, name: str, number: str, value: str | None
) -> None:
    """N10, K3: missing, empty or blank."""
    monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    environment = Environment()
    environment.required(name)
    assert found(environment.mistakes) == [f"delegation.{number}"]


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "1e1", "0x10", "1001", "9" * 400, "١٦", "1 6", "+4"])
def test_a_number_out_of_bounds_is_e020(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """N10. The bug: THREADS=0 passed the checks, and gunicorn refused it."""
    monkeypatch.setenv("THREADS", value)
    environment = Environment()
    assert environment.number("THREADS", default=16, least=1, most=1_000) == 16
    assert found(environment.mistakes) == ["delegation.E020"]


@pytest.mark.parametrize(("value", "number"), [("", 16), (" 4 ", 4), ("007", 7), ("1000", 1_000)])
def test_an_empty_number_is_the_default(monkeypatch: pytest.MonkeyPatch, value: str, number: int) -> None:
    monkeypatch.setenv("THREADS", value)
    environment = Environment()
    assert environment.number("THREADS", default=16, least=1, most=1_000) == number
    assert environment.mistakes == []


@pytest.mark.parametrize("value", ["yess", "-", "2", "none", "0.0", "off,on", "1 0", "\N{FULLWIDTH DIGIT ONE}", "null"])
def test_a_switch_that_is_neither_on_nor_off_is_e026(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """N10, G10. The bug: whatever was not clearly on was off, also for what protects when it is on."""
    monkeypatch.setenv("REQUIRE_ADMIN_MFA", value)
    environment = Environment()
    environment.flag("REQUIRE_ADMIN_MFA", default=True)
    assert found(environment.mistakes) == ["delegation.E026"]
    assert value not in environment.mistakes[0].removeprefix("(delegation.E026)").replace("1 or 0", "")


@pytest.mark.parametrize(
    ("value", "is_on"),
    [*((value, True) for value in ("1", "on", "TRUE", "yes", "y", " 1 ", "ok")),
     *((value, False) for value in ("0", "off", "False", "no", "n"))],
)  # fmt: skip
def test_a_switch_is_read_in_each_usual_writing(monkeypatch: pytest.MonkeyPatch, value: str, is_on: bool) -> None:
    monkeypatch.setenv("DEBUG", value)
    environment = Environment()
    assert [environment.flag("DEBUG", default=default) for default in (True, False)] == [is_on, is_on]
    assert environment.mistakes == []


@pytest.mark.parametrize("value", [None, "", " "])
def test_an_empty_switch_is_its_default(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """G10: `REQUIRE_ADMIN_MFA=` in a file does not switch it off."""
    monkeypatch.delenv("DEBUG") if value is None else monkeypatch.setenv("DEBUG", value)
    assert [Environment().flag("DEBUG", default=default) for default in (True, False)] == [True, False]


@pytest.mark.parametrize(
    ("more", "expected"),
    [({}, "True"), ({"REQUIRE_ADMIN_MFA": "0"}, "False"), ({"REQUIRE_ADMIN_MFA": ""}, "True"),
     ({"PUBLIC_BASE_URL": "http://localhost:8000"}, "True"),
     ({"PUBLIC_BASE_URL": "http://localhost:8000", "DEBUG": "1"}, "False"),
     ({"PUBLIC_BASE_URL": "http://localhost:8000", "ALLOW_LOCAL_ENDPOINTS": "1"}, "False"),
     ({"PUBLIC_BASE_URL": "http://localhost:8000", "DEBUG": "1", "REQUIRE_ADMIN_MFA": "1"}, "True")],
)  # fmt: skip
def test_a_second_factor_is_required_unless_it_is_a_trial(tmp_path: Any, more: dict[str, str], expected: str) -> None:
    """G10: an operator who sets nothing has the safe choice."""
    installation = Installation(tmp_path, KEY, more)
    assert installation.python("from django.conf import settings; print(settings.REQUIRE_ADMIN_MFA)") == expected


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "nonsense", f"ada:{PLANTED}@db.example/name", f"postgress://ada:{PLANTED}@db.example/name",
        f"mysql://ada:{PLANTED}@db.example/name", f"postgres//ada:{PLANTED}@db.example/name",
        "postgres:/db.example/name",
        f"postgres://ada:{PLANTED}@db.example:port/name", f"postgres://ada:{PLANTED}@db.example:99999/name",
        f"postgres://ada:{PLANTED}@db.example:0/name", f"postgres://ada:{PLANTED}@db.example:-1/name",
        f"postgres://ada:{PLANTED}@db.example", f"postgres://ada:{PLANTED}@db.example/", "postgres://",
        f"postgres://ada:{PLANTED}@[db.example/name", f" postgres://ada:{PLANTED}@db.example/name", "sqlite://",
        f"postgres://ada:{PLANTED}/x@db.example:5432/name",
    ],
)  # fmt: skip
def test_no_address_of_a_database_is_e021(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], value: str
) -> None:
    """N10, H1. The bug: a traceback, or a warning that printed the password. An empty one is not taken for SQLite."""
    monkeypatch.setenv("DATABASE_URL", value)
    environment = Environment()
    environment.database("DATABASE_URL", default="sqlite:///db.sqlite3")
    assert found(environment.mistakes) == ["delegation.E021"]
    assert PLANTED not in "".join(environment.mistakes) + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("postgres://ada:secret@db.example:5432/delegation", "delegation"),
        ("postgresql://db.example/delegation?sslmode=require", "delegation"),
        ("postgres://ada:p%2Fa%23@db.example/delegation", "delegation"),
        ("postgres://ada@/delegation?host=/run/postgresql", "delegation"),
        ("postgres:////run/postgresql/delegation", "delegation"),
        ("postgres://ada:secret@one.example:5432,two.example:5433/delegation", "delegation"),
        ("sqlite:////srv/delegation/db.sqlite3", "/srv/delegation/db.sqlite3"),
    ],
)
def test_an_address_of_a_database_is_taken(monkeypatch: pytest.MonkeyPatch, value: str, name: str) -> None:
    monkeypatch.setenv("DATABASE_URL", value)
    environment = Environment()
    assert environment.database("DATABASE_URL", default="")["NAME"] == name
    assert environment.mistakes == []


@pytest.mark.parametrize(
    "value",
    ["nonsense", f"mail://ada:{PLANTED}@mail.example", f"smtp+tls://ada:{PLANTED}@mail.example:port", "smtp://",
     f"smtp+tls://ada:{PLANTED}@mail.example:99999", f"smtp+tls:/ada:{PLANTED}@mail.example", f"smtp://[{PLANTED}",
     f"smtps+tls://ada:{PLANTED}@mail.example:587", f"smtp+tls://ada:{PLANTED}/x@mail.example:587"],
)  # fmt: skip
def test_no_address_of_a_mail_server_is_e022(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EMAIL_URL", value)
    environment = Environment()
    environment.email("EMAIL_URL", default="consolemail://")
    assert found(environment.mistakes) == ["delegation.E022"]
    assert PLANTED not in "".join(environment.mistakes)


@pytest.mark.parametrize(
    "value", ["", "smtp+tls://ada:secret@mail.example:587", "smtp://mail.example", "memorymail://"]
)
def test_an_address_of_a_mail_server_is_taken(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EMAIL_URL", value)
    environment = Environment()
    assert "EMAIL_BACKEND" in environment.email("EMAIL_URL", default="consolemail://")
    assert environment.mistakes == []


@pytest.mark.parametrize(
    "value", ["127.0.0.1:port", "127.0.0.1:0", "127.0.0.1:99999", "http://127.0.0.1:8000", "unix:", "[::1:8000",
              "127.0.0.1:8000,", "127.0.0.1:8000 ", "fd://three", "127.0.0.1:-1", "::1:8000"]
)  # fmt: skip
def test_nowhere_to_listen_is_e023(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BIND", value)
    environment = Environment()
    environment.addresses("BIND", default="127.0.0.1:8000")
    assert found(environment.mistakes) == ["delegation.E023"]


@pytest.mark.parametrize(
    ("value", "addresses"),
    [("", ["127.0.0.1:8000"]), ("0.0.0.0:80", ["0.0.0.0:80"]), ("unix:/run/delegation.sock",) * 2, ("[::1]:8000",) * 2,
     ("localhost", ["localhost"]), (":8000", [":8000"]), ("fd://3", ["fd://3"]),
     ("127.0.0.1:1,127.0.0.1:2", ["127.0.0.1:1", "127.0.0.1:2"])],
)  # fmt: skip
def test_an_empty_address_is_loopback(monkeypatch: pytest.MonkeyPatch, value: str, addresses: Any) -> None:
    """The bug: an empty BIND was gunicorn's own default, every address of the machine."""
    monkeypatch.setenv("BIND", value)
    environment = Environment()
    assert environment.addresses("BIND", default="127.0.0.1:8000") == ([value] if addresses == value else addresses)
    assert environment.mistakes == []


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("https://delegation.example/", "https://delegation.example"),
        ("HTTPS://Delegation.EXAMPLE", "https://delegation.example"),
        ("https://delegation.example:443", "https://delegation.example"),
        ("https://delegation.example:8443/", "https://delegation.example:8443"),
        ("http://localhost:80/", "http://localhost"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://xn--dlegation-b1a.example", "https://xn--dlegation-b1a.example"),
    ],
)
def test_an_origin_is_read_as_browsers_write_it(written: str, canonical: str) -> None:
    """B16: links, redirect URIs and the `Origin` of a form are compared as texts."""
    assert canonical_origin(written) == canonical
    assert origin_host(canonical) is not None


def test_the_host_of_an_ipv6_origin_is_answered(tmp_path: Any) -> None:
    """The bug: ALLOWED_HOSTS had ::1 without its brackets, and every request was a 400."""
    installation = Installation(tmp_path, KEY, {"PUBLIC_BASE_URL": "http://[::1]:8000"})
    assert installation.python("from django.conf import settings; print(settings.ALLOWED_HOSTS)") == "['[::1]']"


@pytest.mark.parametrize(
    "value",
    ["9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x",
     "127.0.0.1:\N{ARABIC-INDIC DIGIT THREE}", "::1:9464", "[127.0.0.1]:9464", "delegation.example:9464",
     "127.0.0.1:9464,[::1]:9464", "unix:/run/x.sock",
     "127.0.0.1:99999999999"],
)  # fmt: skip
def test_an_address_of_metrics_that_cannot_be_used_is_a_mistake(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """N10: a name could lead to another address than the one that was meant."""
    monkeypatch.setenv("METRICS_BIND", value)
    environment = Environment()
    assert environment.address("METRICS_BIND", default="127.0.0.1:9464") == ("127.0.0.1", 9464)
    assert found(environment.mistakes) == ["delegation.E023"]


@pytest.mark.parametrize(
    ("value", "address"),
    [("", ("127.0.0.1", 9464)), ("[::1]:1", ("::1", 1)), ("localhost:65535", ("localhost", 65535)),
     ("10.0.0.5:80", ("10.0.0.5", 80))],
)  # fmt: skip
def test_an_address_of_metrics_is_read(monkeypatch: pytest.MonkeyPatch, value: str, address: Any) -> None:
    monkeypatch.setenv("METRICS_BIND", value)
    environment = Environment()
    assert environment.address("METRICS_BIND", default="127.0.0.1:9464") == address
    assert environment.mistakes == []
