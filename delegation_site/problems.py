"""Problem details (RFC 9457): the one shape of every error of the bot API."""

from typing import Any

import msgspec
from django.http import HttpResponse


class Problem(Exception):
    """An error that ends an API call; `code` is stable, `detail` says what to do next, in one sentence.

    `next_operation` is the call of the contract that helps; empty where the request, the key or the configuration has
    to change first.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        next_operation: str = "",
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.detail, self.members = status, code, detail, members
        self.next_operation, self.headers = next_operation, headers or {}

    def response(self, next_call: dict[str, str] | None = None) -> HttpResponse:
        """Return the problem as `application/problem+json`; `next` is the call to make, or null where none helps."""
        document = {
            "type": f"urn:consumer-delegation:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "next": next_call,
            **self.members,
        }
        return json_response(
            document, status=self.status, content_type="application/problem+json", headers=self.headers
        )


def rate_limited(retry_after: int, detail: str = "Too many calls. Wait as long as Retry-After says.") -> Problem:
    """Return the problem of every limit (G8); `Retry-After` is in whole seconds (RFC 9110 section 10.2.3)."""
    return Problem(429, "rate_limited", detail, headers={"Retry-After": str(retry_after)})


def json_response(
    body: Any, *, status: int = 200, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> HttpResponse:
    """Encode a body as JSON; moments become RFC 3339 in UTC."""
    return HttpResponse(msgspec.json.encode(body), status=status, content_type=content_type, headers=headers)
