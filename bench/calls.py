"""HTTP requests as bytes, written before the measurement, so that wrk and our own client send the same."""

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
    """Write a request (RFC 9112)."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def proxied(method: str, path: str, *, body: bytes = b"", **headers: str) -> bytes:
    """Write a request to the product as its proxy would forward it, with the headers for TLS and a client address."""
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
    """Requests that read the tokens of random conversations."""
    return lambda count: [token_read(made, number) for number in readable_numbers(made, count)]


def status_reads(made: Made) -> Writer:
    """Requests that read random challenges."""

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
    """Requests that create challenges, each in a new conversation."""

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
    """Write the POST of the sign-in button, as a browser sends it from our page."""
    body = urlencode({"csrfmiddlewaretoken": _CSRF}).encode()
    return proxied(
        "POST",
        f"/c/{link_token}",
        body=body,
        Content_Type="application/x-www-form-urlencoded",
        Cookie=f"__Host-csrf={_CSRF}",
        Origin=PUBLIC_BASE_URL,
    )


def callback(prepared: dict[str, str]) -> bytes:
    query = urlencode({"code": f"{random.getrandbits(128):032x}", "state": prepared["state"], "iss": prepared["iss"]})
    return proxied("GET", f"{prepared['path']}?{query}", Cookie=prepared["cookie"])


def once_each(prepared: Sequence[Any], write: Callable[[Any], bytes]) -> Writer:
    """Send each prepared request once. A round gets the requests that earlier rounds have left."""
    left = list(prepared)

    def write_some(count: int) -> list[bytes]:
        taken, left[:] = left[:count], left[count:]
        return [write(one) for one in taken]

    return write_some


def introspections(rows: int) -> Writer:
    """Requests that introspect random tokens at django-oauth-toolkit."""

    def write(count: int) -> list[bytes]:
        return [_introspection("/introspect/", f"Bearer {cast.opaque_token(0)}", rows) for _ in range(count)]

    return write


def peer_introspections(rows: int, basic: str) -> Writer:
    """Requests that introspect random tokens at oidc-provider."""
    return lambda count: [_introspection("/token/introspection", f"Basic {basic}", rows) for _ in range(count)]


def readable_numbers(made: Made, count: int) -> list[int]:
    """Numbers of random conversations whose token can be read."""
    numbers: list[int] = []
    while len(numbers) < count:
        number = random.randint(1, made["conversations"])
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
    """Read the id of a created challenge from the answer. Raises `KeyError` for any other answer."""
    return str(json.loads(body)["challenge_id"])
