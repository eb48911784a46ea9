"""Refuse an HTTP response of which it is not clear where it ends: its rest would be read as the answer to another call.

The standard library reads such responses in its own way, and other programs in another one (RFC 9112 section 6.3).
"""

import re
from http import HTTPStatus
from typing import Any, Final

from oauth_client.outbound_errors import EndpointUnreachable

# The header may come twice with one value (RFC 9110 section 8.6).
_LENGTH: Final = re.compile(r"\s*([0-9]{1,19})\s*(?:,\s*\1\s*)*")
# The library knows no other coding.
_CODINGS: Final = {"", "chunked"}


def refuse_unclear_end(response: Any) -> None:
    """Raise `EndpointUnreachable` for an interim response, an unknown transfer coding, or a length that is no number.

    `response` is urllib3's, before its body is read.
    """
    # The final response may come later.
    if response.status < HTTPStatus.OK:
        raise EndpointUnreachable("the server sent no final response")
    coding = response.headers.get("Transfer-Encoding", "")
    length = response.headers.get("Content-Length", "0")
    if coding.strip().lower() not in _CODINGS or not _LENGTH.fullmatch(length):
        raise EndpointUnreachable("the end of the server's response is not clear")
