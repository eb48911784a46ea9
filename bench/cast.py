"""Compute the seeded data of a conversation from its number: brand, ids and access token.

So requests can be built, and responses checked, without reading the database.
"""

import base64
import hashlib
from typing import Final
from uuid import UUID

# Acme has nine of ten conversations; the other brands share the rest.
BRANDS: Final = ("acme", *(f"brand-{number}" for number in range(1, 10)))
ACME: Final = BRANDS[0]
RIVAL: Final = BRANDS[1]
# One key may call 6,000 times a minute, and the benchmark calls more often.
KEYS_OF_A_BRAND: Final = 30
SERVER_KEY: Final = "orders"
# Operations of each brand's API, and where they are below its address.
OPERATIONS: Final = {"orders.list": "/orders", "orders.hang": "/hanging/orders"}
SCOPE: Final = "orders.read orders.write"
TOKEN_LENGTH: Final = 1_500
# All that a number decides (brand, ended, old) repeats after so many conversations.
PERIOD: Final = 180
# Of a large database one conversation of so many has ciphertexts of its own, which are those that are read.
COPIES: Final = 40
_PADDING: Final = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(24))


def brand_of(number: int) -> str:
    """Return the slug of a conversation's brand."""
    return ACME if number % 10 else BRANDS[1 + number // 10 % (len(BRANDS) - 1)]


def conversation_id(number: int) -> str:
    return f"whatsapp:49{number:011d}"


def challenge_uuid(number: int) -> UUID:
    """Return the id of the conversation's completed challenge. It looks random, so that it is spread over the index."""
    return UUID(bytes=hashlib.md5(b"challenge %d" % number, usedforsecurity=False).digest(), version=4)


def access_token(number: int) -> str:
    """Return the access token. It begins with the number, so that another conversation's token is noticed."""
    return f"{number}.{_PADDING}"[:TOKEN_LENGTH]


def has_live_token(number: int, share_ended: int) -> bool:
    """Whether the token can be read. One of `share_ended` conversations ended long ago (0: none)."""
    return not share_ended or number % share_ended != 0


def opaque_token(number: int) -> str:
    """Return a short opaque token, as other authorization servers issue. Number 0 belongs to a resource server."""
    digest = hashlib.sha256(b"opaque %d" % number).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def original_of(number: int, conversations: int, *, copied: bool) -> int:
    """Return the conversation whose rows this one repeats: itself, unless the rows of most are `copied`.

    Originals are of all kinds, and no two of them are neighbours in a table. An incomplete last stretch has only them.
    """
    stretch = PERIOD * COPIES
    if not copied or number > conversations // stretch * stretch:
        return number
    turn, place = divmod((number - 1) % stretch, PERIOD)
    return number + PERIOD * (place * 7 % COPIES - turn)
