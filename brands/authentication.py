"""Bot keys: how one is made, and who is calling.

A key reads `cdk_<public id>_<secret><checksum>`: the public id finds the row, the secret has 256 random bits, and the
checksum lets a secret scanner tell a real key from noise.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import models, transaction
from django.utils import timezone

from brands.audited_changes import BrandEvent, record_change, save_audited
from brands.models import BotKey, Brand
from infrastructure.compiled import CompiledQuery, Parameter
from infrastructure.crypto import Secret, checksum, key_id_of, key_ring, random_hex, random_token

PREFIX: Final = "cdk"
_KEY: Final = re.compile(r"cdk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})([0-9a-f]{8})")
_DIGEST_PURPOSE: Final = "bot-key"
_LAST_USED_RESOLUTION: Final = timedelta(minutes=1)
_LIVE_KEYS: Final = CompiledQuery(
    lambda: (
        BotKey.objects.live(Parameter("now", models.DateTimeField()))
        .filter(public_id=Parameter("public_id", models.CharField()))
        .select_related("brand")
        .order_by()
    )
)


def create_bot_key(
    brand: Brand, label: str, scopes: Iterable[str], expires_at: datetime | None = None, *, user: Any = None
) -> tuple[BotKey, Secret]:
    """Make and save a key, as this admin or as the operator; return the row and the key, which cannot be had again."""
    public_id = random_hex(8)
    secret = random_token(32)
    key = f"{PREFIX}_{public_id}_{secret}{checksum(public_id + secret)}"
    row = BotKey(
        brand=brand,
        label=label,
        public_id=public_id,
        digest=key_ring().digest(_DIGEST_PURPOSE, brand.uuid.bytes, key),
        scopes=sorted(scopes),
        expires_at=expires_at,
    )
    save_audited(row, user)
    return row, Secret(key)


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """What an `Authorization` header presents, well-formed and not yet recognised."""

    public_id: str
    value: str = field(repr=False)

    @classmethod
    def read(cls, authorization_header: str) -> "PresentedKey | None":
        """Read the header; None where it holds no bearer key of ours, mistyped and cut ones among them."""
        scheme, _, presented = authorization_header.partition(" ")
        match = _KEY.fullmatch(presented.strip())
        if scheme.lower() != "bearer" or match is None or checksum(match[1] + match[2]) != match[3]:
            return None
        return cls(match[1], match[0])

    def is_of(self, bot_key: BotKey) -> bool:
        """Tell whether this is the key of a row.

        The digest also covers the brand, so that a key's row moved to another brand by SQL is no key at all.
        """
        return key_ring().recognises(bot_key.digest, _DIGEST_PURPOSE, bot_key.brand.uuid.bytes, self.value)

    def live_key(self, now: datetime) -> BotKey | None:
        """Return the live key that this is, with its brand, and note its use; None for every other one.

        Unknown, wrong, expired and revoked keys look alike (G1).
        """
        bot_key = _LIVE_KEYS.first(public_id=self.public_id, now=now)
        if bot_key is None or not self.is_of(bot_key):
            return None
        self.note_use(bot_key, now)
        return bot_key

    def note_use(self, bot_key: BotKey, now: datetime) -> None:
        """Write the moment at most once a minute: a busy key must not cost a write a read.

        A moment in the future, which a process with a wrong clock has left, is put right. The digest moves to the
        newest key at any use, whatever the moment says: an old key could otherwise never leave the ring.
        """
        changes: dict[str, object] = {}
        if bot_key.last_used_at is None or abs(now - bot_key.last_used_at) >= _LAST_USED_RESOLUTION:
            changes["last_used_at"] = now
        if key_id_of(bytes(bot_key.digest)) != key_ring().newest_id:
            changes["digest"] = key_ring().digest(_DIGEST_PURPOSE, bot_key.brand.uuid.bytes, self.value)
        if changes:
            BotKey.objects.filter(pk=bot_key.pk).update(**changes)


def authenticate(authorization_header: str, now: datetime) -> BotKey | None:
    """Return the live key that an `Authorization` header presents, with its brand; None for every other header."""
    presented = PresentedKey.read(authorization_header)
    return presented.live_key(now) if presented else None


def revoke(bot_key: BotKey, user: Any = None) -> bool:
    """Revoke a key from the next request on; return False where it was revoked before."""
    with transaction.atomic():
        revoked = BotKey.objects.filter(pk=bot_key.pk, revoked_at=None).update(revoked_at=timezone.now()) == 1
        if revoked:
            record_change(bot_key, BrandEvent.BOT_KEY_REVOKED, user)
    return revoked
