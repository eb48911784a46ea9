"""Seeded data, computed from a conversation's number: its brand, its id, its token.

So requests can be written, and answers checked, without asking the database.
"""

import base64
import hashlib
from typing import Final
from uuid import UUID

# Nine of ten conversations are Acme's. The other brands share the rest.
BRANDS: Final = ("acme", *(f"brand-{number}" for number in range(1, 10)))
ACME: Final = BRANDS[0]
RIVAL: Final = BRANDS[1]
# One key may make 6,000 calls a minute. The benchmark needs more.
KEYS_OF_A_BRAND: Final = 30
SERVER_KEY: Final = "orders"
SCOPE: Final = "orders.read orders.write"
TOKEN_LENGTH: Final = 1_500
_PADDING: Final = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(24))


def brand_of(number: int) -> str:
    """The slug of the brand that a seeded conversation belongs to."""
    return ACME if number % 10 else BRANDS[1 + number // 10 % (len(BRANDS) - 1)]


def conversation_id(number: int) -> str:
    return f"whatsapp:49{number:011d}"


def challenge_uuid(number: int) -> UUID:
    """The id of the conversation's completed challenge. It looks random, so that ids spread over the index."""
    return UUID(bytes=hashlib.md5(b"challenge %d" % number, usedforsecurity=False).digest(), version=4)


def access_token(number: int) -> str:
    """The token begins with the conversation's number, so that an answer with another token is detected."""
    return f"{number}.{_PADDING}"[:TOKEN_LENGTH]


def has_live_token(number: int, share_ended: int) -> bool:
    """Whether the token can be read. In `share_ended` conversations (0: none) it has ended long ago."""
    return not share_ended or number % share_ended != 0


def opaque_token(number: int) -> str:
    """A short opaque token, as other authorization servers issue them. Number 0 is the resource server's."""
    digest = hashlib.sha256(b"opaque %d" % number).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
