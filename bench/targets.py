"""The targets to compare: each is one kind of request to one server, with a check of the responses."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from bench import calls, cast
from bench.calls import Made, Writer
from bench.client import Pool
from bench.databases import Databases
from bench.product import Server

# More than any server answers in a second, so that requests that can be used once do not run out.
LINKS_PER_SECOND: Final = 1_500
CALLBACKS_PER_SECOND: Final = 900
_OTHERS_PER_SECOND: Final = 2_000
_SAMPLE: Final = 20
_CONNECTIONS: Final = 8
# Node compiles while it serves: in its first three seconds it gave 423, 614 and 893 answers, later 1,400 a second.
_WARM_UP_OF_NODE: Final = 10.0
# At most half of the threads may wait for a brand. With four threads, a third callback would be refused as busy.
_CALLBACKS_AT_ONCE: Final = 2
# And at most a quarter for an API.
_CALLS_AT_ONCE: Final = 1

Sample = Callable[[], list[tuple[bytes, bytes]]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of request to one server.

    `sample` makes requests with the text that each response must contain. `writes_to` is the table to which each
    response adds a row, and `database` the name of its database if that is another than the run's. `warm_up_seconds`:
    how long it is loaded before the first round, if longer than others. `is_limited`: what comes while an earlier
    request is under way may be refused, so the server has to be idle first.
    """

    name: str
    label: str
    server: Server
    write: Writer
    sample: Sample | None = None
    writes_to: str = ""
    is_limited: bool = False
    database: str = ""
    again: bool = True
    connections: int = _CONNECTIONS
    prepared_per_second: int = _OTHERS_PER_SECOND
    warm_up_seconds: float = 0.0


def yardstick(server: Server) -> Target:
    """A1."""
    return _bare_django(server, "yardstick", "bare Django (A1)", b'{"status": "ok"}')


def one_query(server: Server) -> Target:
    """A2."""
    return _bare_django(server, "one_query", "bare Django, one SELECT 1 (A2)", b'{"status": "ok", "one": 1}')


def one_request(server: Server) -> Target:
    """A1 with the request of a call."""
    found = _bare_django(server, "one_request", "bare Django, one request by requests", b"A-9")
    return replace(found, connections=_CALLS_AT_ONCE)


def _bare_django(server: Server, name: str, label: str, answer: bytes) -> Target:
    return Target(
        name=name,
        label=label,
        server=server,
        write=calls.constant,
        sample=lambda: [(request, answer) for request in calls.constant(1)],
    )


def product_targets(server: Server, made: Made) -> list[Target]:
    return [
        Target(
            name="token_read",
            label="GET .../token",
            server=server,
            write=calls.token_reads(made),
            sample=lambda: token_sample(made),
        ),
        Target(
            name="status_read",
            label="GET /challenges/{id}",
            server=server,
            write=calls.status_reads(made),
            sample=lambda: [(request, b'"status":"completed"') for request in calls.status_reads(made)(_SAMPLE)],
        ),
        _api_call(server, made),
        Target(
            name="create",
            label="POST .../challenges",
            server=server,
            write=calls.creations(made),
            writes_to="conversations_challenge",
            again=False,
        ),
        Target(
            name="begin",
            label="POST /c/{link_token}",
            server=server,
            write=calls.once_each(made["links"], calls.begin),
            writes_to="conversations_authorizationrequest",
            again=False,
            prepared_per_second=LINKS_PER_SECOND,
        ),
        Target(
            name="callback",
            label="GET /callback/{id}",
            server=server,
            write=calls.once_each(made["callbacks"], calls.callback),
            writes_to="conversations_accesstoken",
            again=False,
            connections=_CALLBACKS_AT_ONCE,
            prepared_per_second=CALLBACKS_PER_SECOND,
        ),
    ]


def _api_call(server: Server, made: Made) -> Target:
    write = calls.api_calls(made)
    return Target(
        name="call",
        label="POST .../calls/{operation}",
        server=server,
        write=write,
        sample=lambda: [(request, b"A-9") for request in write(_SAMPLE)],
        is_limited=True,
        connections=_CALLS_AT_ONCE,
    )


def introspection(server: Server, rows: int) -> Target:
    """django-oauth-toolkit."""
    write = calls.introspections(rows)
    return Target(
        name="django_oauth_toolkit",
        label="django-oauth-toolkit, introspection",
        server=server,
        write=write,
        sample=lambda: [(request, b'"active": true') for request in write(_SAMPLE)],
    )


def peer_introspection(server: Server, rows: int, basic: str) -> Target:
    """oidc-provider."""
    write = calls.peer_introspections(rows, basic)
    return Target(
        name="oidc_provider",
        label="oidc-provider, introspection",
        warm_up_seconds=_WARM_UP_OF_NODE,
        server=server,
        write=write,
        sample=lambda: [(request, b'"active":true') for request in write(_SAMPLE)],
    )


def token_sample(made: Made) -> list[tuple[bytes, bytes]]:
    """Return token reads, each with the only token that may be in its response."""
    numbers = calls.readable_numbers(made, _SAMPLE)
    return [(calls.token_read(made, number), cast.access_token(number).encode()) for number in numbers]


def wrong_answers(port: int, sample: list[tuple[bytes, bytes]]) -> int:
    """Send a sample; count responses that are not a 200 with the expected text."""

    async def send_all() -> int:
        pool = Pool(port)
        answers = [(await pool.send(request), expected) for request, expected in sample]
        pool.close()
        return sum(answer.status != 200 or expected not in answer.body for answer, expected in answers)

    return asyncio.run(send_all())


def rows_written(databases: Databases, database: str, target: Target) -> int:
    """Count the rows of the target's table; 0 if it writes none."""
    return databases.count(target.database or database, target.writes_to) if target.writes_to else 0
