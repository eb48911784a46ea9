"""Outbound calls for the tests of the transport."""

from typing import Any, Final

import requests

from oauth_client import transport

# The beginning of an unfinished answer.
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def post(url: str, **options: Any) -> requests.Response:
    """Post as the token exchange does."""
    with transport.GuardedSession() as session:
        return session.post(url, data={"code": "planted-code"}, **options)
