"""What is seeded, by number: which brand a conversation belongs to, what it is called, what its token reads.

Known here and not only in the database, so that requests are written, and answers checked, without asking it.
"""

import base64
import hashlib
from typing import Final
from uuid import UUID

# Acme has nine of ten conversations; the others share the rest.
BRANDS: Final = ("acme", *(f"brand-{number}" for number in range(1, 10)))
ACME: Final = BRANDS[0]
RIVAL: Final = BRANDS[1]
# One key may call 6,000 times a minute; a benchmark needs more than one bot has.
KEYS_OF_A_BRAND: Final = 30
SERVER_KEY: Final = "orders"
SCOPE: Final = "orders.read orders.write"
TOKEN_LENGTH: Final = 1_500
_PADDING: Final = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(24))


def brand_of(number: int) -> str:
    """Return the slug of the brand that a seeded conversation belongs to."""
    return ACME if number % 10 else BRANDS[1 + number // 10 % (len(BRANDS) - 1)]


def conversation_id(number: int) -> str:
    return f"whatsapp:49{number:011d}"


def challenge_uuid(number: int) -> UUID:
    """Return the id of the conversation's completed challenge: spread over the index as random ones are."""
    return UUID(bytes=hashlib.md5(b"challenge %d" % number, usedforsecurity=False).digest(), version=4)


def access_token(number: int) -> str:
    """Return the token: its own number in front, so that an answer with another conversation's is seen."""
    return f"{number}.{_PADDING}"[:TOKEN_LENGTH]


def has_live_token(number: int, share_ended: int) -> bool:
    """Tell whether the token can be read; of `share_ended` conversations one has been left long ago (0: none)."""
    return not share_ended or number % share_ended != 0


def opaque_token(number: int) -> str:
    """Return a token as other authorization servers issue them: short and opaque; number 0 is a resource server's."""
    digest = hashlib.sha256(b"opaque %d" % number).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
