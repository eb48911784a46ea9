"""gunicorn with our own configuration: it starts on a safe environment and on no other, and logs no secret."""

import re
import socket
import subprocess
from pathlib import Path

import pytest
import requests

from tests.installation import ROOT, Installation
from tests.served import COMMAND, KEY, installation_at_a_free_port, serving

PLANTED = ("PLANTED-code", "PLANTED-state", "PLANTED-referrer", "PLANTED-cookie", "PLANTED-key")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return installation_at_a_free_port(tmp_path, THREADS="2", ACCESS_LOG="1")


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("ENCRYPTION_KEYS", "key-1:AAAA", "delegation.E001"),
        ("SECRET_KEY", KEY.removeprefix("key-1:"), "delegation.E002"),
        ("PUBLIC_BASE_URL", "http://delegation.example", "delegation.E003"),
        ("OAUTHLIB_INSECURE_TRANSPORT", "1", "delegation.E005"),
        ("OUTBOUND_CA_FILE", "not-there.pem", "delegation.E007"),
    ],
)
def test_it_does_not_start_on_a_dangerous_environment(
    installation: Installation, setting: str, value: str, found: str
) -> None:
    """N10, K3: a failing system check alone would not stop a WSGI server."""
    installation.settings |= {"ALLOWED_HOSTS": "127.0.0.1", setting: value}
    result = subprocess.run(
        COMMAND, cwd=ROOT, env=installation.environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert result.returncode == 1
    assert re.findall(r"delegation\.E\d+", result.stdout + result.stderr) == [found]
    assert "Traceback" not in result.stderr


def test_it_says_at_the_start_how_many_database_connections_it_needs(installation: Installation) -> None:
    """The bug: nobody said it, and a small `max_connections` left no connection for the worker."""
    installation.settings |= {"THREADS": "7", "WORKERS": "3"}
    said = installation.python("from delegation_site import gunicorn; print(gunicorn.connections_in_words())")
    assert said == "up to 21 database connections for this group (WORKERS 3 x THREADS 7)"


def test_it_runs_as_many_threads_as_the_limits_of_waiting_are_made_of(installation: Installation) -> None:
    """The bug: THREADS in `.env` reached the limits and not gunicorn: all of its 16 threads could wait for brands."""
    installation.settings |= {"THREADS": "7"}
    assert installation.python("from delegation_site import gunicorn; print(gunicorn.threads)") == "7"


def test_workers_share_what_was_loaded_before_they_are_forked(installation: Installation) -> None:
    """The bug: each worker loaded the application anew, and the collector wrote into what they shared."""
    installation.migrate()
    first = "from types import SimpleNamespace as N; import gc; from delegation_site import gunicorn; loaded = []"
    start = (
        "gunicorn.on_starting(N(app=N(wsgi=lambda: loaded.append('application')), log=N(info=print, warning=print)))"
    )
    found = installation.python(f"{first}; {start}; print(loaded, gc.get_freeze_count() > 100_000)")
    assert found.splitlines()[-1] == "['application'] True"


@pytest.mark.parametrize(("url", "is_loaded"), [("", "False"), ("redis://127.0.0.1:1/0", "True")])
def test_the_client_of_redis_is_loaded_only_where_it_is_used(
    installation: Installation, url: str, is_loaded: str
) -> None:
    """It takes four megabytes."""
    installation.settings |= {"REDIS_URL": url}
    code = (
        "import delegation_site.wsgi; from django.core.cache import cache; cache.close(); print('redis' in sys.modules)"
    )
    assert installation.python(code) == is_loaded


def test_the_parser_is_the_one_that_was_tested(installation: Installation) -> None:
    """Gunicorn would take an old `gunicorn_h1c` that happens to be installed."""
    assert installation.python("from delegation_site import gunicorn; print(gunicorn.http_parser)") == "python"


def test_public_local_endpoints_and_debug_do_not_start_either(installation: Installation) -> None:
    """N10."""
    installation.settings |= {"PUBLIC_BASE_URL": "https://delegation.example", "DEBUG": "1"}
    installation.settings |= {"ALLOW_LOCAL_ENDPOINTS": "1"}
    result = subprocess.run(
        COMMAND, cwd=ROOT, env=installation.environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert result.returncode == 1
    assert re.findall(r"delegation\.E\d+", result.stderr) == ["delegation.E004", "delegation.E008"]


def test_it_serves_and_its_logs_hold_no_query_no_referrer_no_cookie_and_no_key(
    installation: Installation, tmp_path: Path
) -> None:
    """H3, H9: gunicorn's default format logs the request line and the referrer; its default opens a control socket."""
    installation.migrate()
    base = installation.settings["PUBLIC_BASE_URL"]
    headers = {
        "Referer": f"{base}/c/x?PLANTED-referrer",
        "Cookie": "__Host-attempt-x=PLANTED-cookie",
        "Authorization": "Bearer PLANTED-key",
        "User-Agent": "PLANTED-referrer",
    }
    paths = ["/callback/x?code=PLANTED-code&state=PLANTED-state", "/api/v1/challenges/x?key=PLANTED-key",
             "/nowhere?code=PLANTED-code", "/callback/x?code=PLANTED-code&code=PLANTED-state"]  # fmt: skip
    with serving(installation) as printed:
        ready = requests.get(f"{base}/health/ready", timeout=60)
        answers = [
            requests.get(base + path, headers=headers, timeout=60, allow_redirects=False).status_code for path in paths
        ]
        sockets = [path.name for path in tmp_path.rglob("*") if path.is_socket()]
    assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
    assert answers == [303, 401, 404, 303]
    assert sockets == []
    (output,) = printed
    assert output.count('"method":"GET"') >= 3
    assert "/callback/" not in output
    assert [value for value in PLANTED if value in output] == []


def test_a_request_cannot_move_the_beginning_of_its_path(installation: Installation) -> None:
    """G8, G10: gunicorn takes SCRIPT_NAME from a header if its peer is on this machine, as our proxy is."""
    installation.migrate()
    base = installation.settings["PUBLIC_BASE_URL"]
    with serving(installation):
        moved = requests.get(f"{base}/prefix/health/live", headers={"SCRIPT_NAME": "/prefix"}, timeout=60)
        plain = requests.get(f"{base}/health/live", headers={"PATH_INFO": "/admin/"}, timeout=60)
    assert (moved.status_code, plain.status_code) == (404, 200)


def test_it_says_that_it_is_not_ready_where_the_database_does_not_answer(installation: Installation) -> None:
    """The process lives, so that it can be asked."""
    nowhere = installation.folder / "nowhere" / "there.sqlite3"
    installation.settings |= {"DATABASE_URL": f"sqlite:///{nowhere}"}
    base = installation.settings["PUBLIC_BASE_URL"]
    with serving(installation):
        live = requests.get(f"{base}/health/live", timeout=60)
        ready = requests.get(f"{base}/health/ready", timeout=60)
    assert (live.status_code, ready.status_code, ready.json()["code"]) == (200, 503, "database_unavailable")


@pytest.mark.parametrize(
    "line",
    [
        b"GET /callback/x?code=AB PLANTED-code&state=PLANTED-state HTTP/1.1",
        b"GET //c/PLANTED-code\x00 HTTP/1.1",
        b"/c/PLANTED-code",
        b"get /C/PLANTED-code HTTP/9",
        b"GET /en/c/PLANTED-code HTTP/1.1\r\nCookie PLANTED-cookie",
        b"GET /c/x HTTP/1.1\r\nExpect: PLANTED-key",
    ],
)
def test_a_request_that_cannot_be_read_is_named_without_its_line(installation: Installation, line: bytes) -> None:
    """H1, H3. The bug: gunicorn wrote the line down, query and all."""
    installation.migrate()
    host, _, port = installation.settings["BIND"].partition(":")
    with serving(installation) as printed, socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(line + b"\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 4")
    assert "[WARNING] Invalid request from ip=127.0.0.1: " in printed[0]
    assert [value for value in PLANTED if value in printed[0]] == []


def test_a_run_of_ordinary_calls_warns_of_nothing(installation: Installation) -> None:
    """The bugs: gunicorn warned of each HEAD of a page, since Django sends its body; and each 404 was a warning."""
    installation.migrate()
    installation.manage("worker", "--once")  # a probe warns if no worker has ever run
    base = installation.settings["PUBLIC_BASE_URL"]
    paths = ["/", "/nowhere", "/c/x", "/r/x", "/admin/", "/admin/account/login/", "/api/docs",
             "/api/v1/openapi.json", "/health/ready", "/health/live", "/static/consumer.css"]  # fmt: skip
    lengths = {}
    with serving(installation) as printed:
        for path in paths:
            head = requests.head(base + path, timeout=60)
            got = requests.get(base + path, timeout=60, allow_redirects=False)
            lengths[path] = (head.status_code, head.headers.get("Content-Length"), head.content)
            assert lengths[path] == (got.status_code, got.headers.get("Content-Length"), b""), path
    assert re.findall('"levelname": "(?!INFO)[A-Z]+".*|\\[(?:WARNING|ERROR)\\].*', printed[0]) == []
