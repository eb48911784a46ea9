"""Divide a request's time by part: `python -m bench.profiling ORDER_FILE WRITTEN_FILE`, inside an installation.

The application is called in this process, without gunicorn, with the same prepared requests: first without profiler,
for the true time, then with Python's profiler, for each part's share of it. The profiler slows Python code more than
waiting for the database, so the database's share is somewhat too small.
"""

import cProfile
import io
import json
import pstats
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any, Final

# A part is found by a text in the file's path or the builtin's name. The first match counts.
PARTS: Final = (
    ("psycopg2", "database: driver and waiting"),
    ("sqlite3", "database: driver and waiting"),
    ("django/db", "Django's ORM"),
    ("/django/", "Django, all else"),
    ("conversations/", "the product"),
    ("accounts/", "the product"),
    ("brands/", "the product"),
    ("infrastructure/", "the product"),
    ("oauth_client/", "the product"),
    ("web/", "the product"),
    ("delegation_site/", "the product"),
    ("cryptography", "cryptography"),
    ("_hashlib", "cryptography"),
    ("logging", "logging"),
    ("jsonlogger", "logging"),
)
_OTHER: Final = "Python and other libraries"


def main() -> None:
    import_module("delegation_site.wsgi")
    orders: dict[str, list[str]] = json.loads(Path(sys.argv[1]).read_text())
    written = {name: _profile([request.encode() for request in requests]) for name, requests in orders.items()}
    Path(sys.argv[2]).write_text(json.dumps(written))


def part_of(file: str, function: str) -> str:
    name = f"{file} {function}"
    return next((part for mark, part in PARTS if mark in name), _OTHER)


def _profile(requests: list[bytes]) -> dict[str, float]:
    """Return microseconds per request, by part and in total."""
    third = len(requests) // 3
    for request in requests[:third]:  # warm up: imports, caches, plans
        _call(request)
    began = time.perf_counter()
    for request in requests[third : third * 2]:
        _call(request)
    total = (time.perf_counter() - began) * 1e6 / third
    profiler = cProfile.Profile()
    profiler.enable()
    for request in requests[third * 2 :]:
        _call(request)
    profiler.disable()
    return {"total": round(total)} | _shares(profiler, total)


def _shares(profiler: cProfile.Profile, total: float) -> dict[str, float]:
    own: Counter[str] = Counter()
    statistics: Any = pstats.Stats(profiler)
    for (file, _, function), (_, _, own_time, _, _) in statistics.stats.items():
        own[part_of(file, function)] += own_time
    whole = sum(own.values())
    return {part: round(seconds / whole * total) for part, seconds in own.most_common()}


def _call(request: bytes) -> None:
    """Call the application like a WSGI server. Raises `RuntimeError` for an error response."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": "localhost",
        "SERVER_PORT": "80", "REMOTE_ADDR": "127.0.0.1", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
    }  # fmt: skip
    for header in headers:
        name, _, value = header.partition(": ")
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    statuses: list[str] = []
    response = sys.modules["delegation_site.wsgi"].application(environ, lambda status, _: statuses.append(status))
    b"".join(response)
    if hasattr(response, "close"):  # optional (PEP 3333)
        response.close()
    if statuses[0] >= "4":
        raise RuntimeError(f"{method} {path} was answered {statuses[0]}")


if __name__ == "__main__":
    main()
