"""The `Idempotency-Key` header, as draft-ietf-httpapi-idempotency-key-header writes it or bare."""

import re
from typing import Final

import msgspec

from conversations.api.calls import Call
from conversations.api.shapes import ChallengeBody
from conversations.flow.idempotency import IdempotentRequest
from delegation_site.problems import Problem

_BARE: Final = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]{0,254}")
# A String of structured fields (RFC 8941 section 3.3.3): quotes and backslashes are escaped, and nothing else is.
_QUOTED: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')


def idempotent_request(call: Call, body: ChallengeBody) -> IdempotentRequest | None:
    """Return the key that came with this body, None where none came. Raises `Problem`."""
    header = call.request.headers.get("Idempotency-Key")
    if header is None:
        return None
    quoted = _QUOTED.fullmatch(header)
    if quoted is None and not _BARE.fullmatch(header):
        detail = "An Idempotency-Key has 1 to 255 visible ASCII characters, in double quotes or without."
        raise Problem(422, "invalid_idempotency_key", detail)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    # The decoded body written anew: spaces and the order of its members make no other request of it.
    return IdempotentRequest(key, msgspec.json.encode(body))
