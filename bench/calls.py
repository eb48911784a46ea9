"""Build the requests as bytes before the measurement, the same for wrk and for our own client."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from bench import cast
from bench.product import HOST, PUBLIC_BASE_URL

_CSRF: Final = "a" * 32
Made = dict[str, Any]
Writer = Callable[[int], list[bytes]]


def raw(method: str, path: str, *, host: str = HOST, body: bytes = b"", **headers: str) -> bytes:
    """Build an HTTP/1.1 request (RFC 9112)."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def proxied(method: str, path: str, *, body: bytes = b"", **headers: str) -> bytes:
    """Build a request as the product's proxy forwards it, with `X-Forwarded-For` and `X-Forwarded-Proto`."""
    address = f"10.{random.getrandbits(8)}.{random.getrandbits(8)}.{random.getrandbits(8)}"
    seen = {"X_Forwarded_Proto": "https", "X_Forwarded_For": address}
    return raw(method, path, body=body, **seen, **headers)


def constant(count: int) -> list[bytes]:
    """Requests to the yardstick."""
    return [raw("GET", "/")] * count


def token_read(made: Made, number: int) -> bytes:
    path = f"/api/v1/conversations/{cast.conversation_id(number)}/token"
    return proxied("GET", path, Authorization=bearer(made, cast.brand_of(number)))


def token_reads(made: Made) -> Writer:
    """Read the tokens of random conversations."""
    return lambda count: [token_read(made, number) for number in readable_numbers(made, count)]


def api_calls(made: Made, operation: str = "orders.list") -> Writer:
    """Call an operation of the brand's API in random conversations."""

    def write(count: int) -> list[bytes]:
        body, headers = json.dumps({"arguments": {"limit": 10}}).encode(), {"Content_Type": "application/json"}
        return [
            proxied(
                "POST",
                f"/api/v1/conversations/{cast.conversation_id(number)}/calls/{operation}",
                body=body,
                Authorization=bearer(made, cast.brand_of(number)),
                **headers,
            )
            for number in readable_numbers(made, count)
        ]

    return write


def status_reads(made: Made) -> Writer:
    """Read random challenges."""

    def write(count: int) -> list[bytes]:
        return [
            proxied(
                "GET",
                f"/api/v1/challenges/{cast.challenge_uuid(number)}",
                Authorization=bearer(made, cast.brand_of(number)),
            )
            for number in readable_numbers(made, count)
        ]

    return write


def creations(made: Made) -> Writer:
    """Create challenges, each in a new conversation."""

    def write(count: int) -> list[bytes]:
        body = json.dumps({"purpose": "to see your orders"}).encode()
        headers = {"Content_Type": "application/json"}
        return [
            proxied(
                "POST",
                f"/api/v1/conversations/new:{random.getrandbits(96):024x}/challenges",
                body=body,
                Authorization=bearer(made, cast.ACME),
                **headers,
            )
            for _ in range(count)
        ]

    return write


def begin(link_token: str) -> bytes:
    """The form post of a challenge's button, as a browser sends it."""
    body = urlencode({"csrfmiddlewaretoken": _CSRF}).encode()
    return proxied(
        "POST",
        f"/c/{link_token}",
        body=body,
        Content_Type="application/x-www-form-urlencoded",
        Cookie=f"__Host-csrf={_CSRF}",
        Origin=PUBLIC_BASE_URL,
    )


def callback(attempt: dict[str, str]) -> bytes:
    query = urlencode({"code": f"{random.getrandbits(128):032x}", "state": attempt["state"], "iss": attempt["iss"]})
    return proxied("GET", f"{attempt['path']}?{query}", Cookie=attempt["cookie"])


def once_each(prepared: Sequence[Any], write: Callable[[Any], bytes]) -> Writer:
    """Use each prepared request once. A round gets those that earlier rounds have left."""
    left = list(prepared)

    def write_some(count: int) -> list[bytes]:
        taken, left[:] = left[:count], left[count:]
        return [write(one) for one in taken]

    return write_some


def introspections(rows: int) -> Writer:
    """Introspect random tokens at django-oauth-toolkit."""

    def write(count: int) -> list[bytes]:
        return [_introspection("/introspect/", f"Bearer {cast.opaque_token(0)}", rows) for _ in range(count)]

    return write


def peer_introspections(rows: int, basic: str) -> Writer:
    """Introspect random tokens at oidc-provider."""
    return lambda count: [_introspection("/token/introspection", f"Basic {basic}", rows) for _ in range(count)]


def readable_numbers(made: Made, count: int) -> list[int]:
    """Choose the numbers of random conversations whose token can be read."""
    numbers: list[int] = []
    conversations, copied = made["conversations"], made.get("copied", False)  # an older build's seeding copies none
    while len(numbers) < count:
        number = cast.original_of(random.randint(1, conversations), conversations, copied=copied)
        if cast.has_live_token(number, made["share_ended"]):
            numbers.append(number)
    return numbers


def _introspection(path: str, authorization: str, rows: int) -> bytes:
    form = {"token": cast.opaque_token(random.randint(1, rows)), "token_type_hint": "access_token"}
    headers = {"Content_Type": "application/x-www-form-urlencoded", "Authorization": authorization}
    return raw("POST", path, host="localhost", body=urlencode(form).encode(), **headers)


def bearer(made: Made, slug: str) -> str:
    return f"Bearer {random.choice(made['keys'][slug])}"


def challenge_id(body: bytes) -> str:
    """Return the id of the created challenge. Raises `KeyError` if the response contains none."""
    return str(json.loads(body)["challenge_id"])
