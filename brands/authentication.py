"""Create, recognise and revoke bot keys.

A key reads `cdk_<public id>_<secret><checksum>`: the public id finds the row, the secret has 256 random bits, and the
checksum lets a secret scanner tell a real key from noise.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import models, transaction
from django.utils import timezone

from brands.audited_changes import BrandEvent, record_change, save_audited
from brands.models import BotKey, Brand
from infrastructure.compiled import CompiledQuery, CompiledUpdate, Parameter
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
_NOTE_USE: Final = CompiledUpdate(
    lambda: BotKey.objects.filter(pk=Parameter("pk", models.BigIntegerField())),
    last_used_at=Parameter("now", models.DateTimeField()),
)


def create_bot_key(
    brand: Brand,
    label: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    *,
    same_person_checks: Iterable[str] = (),
    calls_per_minute: int | None = None,
    token_reads_per_minute: int | None = None,
    user: Any = None,
) -> tuple[BotKey, Secret]:
    """Create a key on behalf of an admin, or of the operator; return the row and the key, which is not stored.

    Without `same_person_checks` it may use every check that an authorization server accepts. The caller makes sure that
    only the operator sets limits of its own (G12).
    """
    public_id = random_hex(8)
    secret = random_token(32)
    key = f"{PREFIX}_{public_id}_{secret}{checksum(public_id + secret)}"
    row = BotKey(
        brand=brand,
        label=label,
        public_id=public_id,
        digest=key_ring().digest(_DIGEST_PURPOSE, brand.uuid.bytes, key),
        scopes=sorted(scopes),
        same_person_checks=sorted(same_person_checks),
        expires_at=expires_at,
        calls_per_minute=calls_per_minute,
        token_reads_per_minute=token_reads_per_minute,
    )
    save_audited(row, user)
    return row, Secret(key)


class StoredKey(NamedTuple):
    """The columns of a bot key's row by which a presented key is recognised, and its use noted."""

    pk: int
    digest: bytes | memoryview
    brand_uuid: UUID
    last_used_at: datetime | None

    @classmethod
    def of(cls, bot_key: BotKey) -> "StoredKey":
        return cls(bot_key.pk, bot_key.digest, bot_key.brand.uuid, bot_key.last_used_at)


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key from an `Authorization` header, not yet authenticated."""

    public_id: str
    value: str = field(repr=False)

    @classmethod
    def read(cls, authorization_header: str) -> "PresentedKey | None":
        """Parse the header. Return None if it has no bearer key of ours, or a key that is mistyped or truncated."""
        scheme, _, presented = authorization_header.partition(" ")
        match = _KEY.fullmatch(presented.strip())
        if scheme.lower() != "bearer" or match is None or checksum(match[1] + match[2]) != match[3]:
            return None
        return cls(match[1], match[0])

    def is_of(self, stored: StoredKey) -> bool:
        """Whether this key is the key of a row.

        The digest also covers the brand, so a row that was moved to another brand by SQL recognises no key.
        """
        return key_ring().recognises(stored.digest, _DIGEST_PURPOSE, stored.brand_uuid.bytes, self.value)

    def live_key(self, now: datetime) -> BotKey | None:
        """Return the live key with its brand, and record its use.

        Returns None if the key is unknown, wrong, expired or revoked: all of these look alike (G1).
        """
        return self.recognised(_LIVE_KEYS.first(public_id=self.public_id, now=now), now)

    def recognised(self, bot_key: BotKey | None, now: datetime) -> BotKey | None:
        """Return the live key of this public id and record its use; None if there is none, or this key is not it."""
        if bot_key is None or not self.is_of(stored := StoredKey.of(bot_key)):
            return None
        self.note_use(stored, now)
        return bot_key

    def note_use(self, stored: StoredKey, now: datetime) -> None:
        """Record the time at most once a minute, so that a busy key does not cost a write for each read.

        A time in the future, which a process with a wrong clock wrote, is corrected. Any use moves the digest to the
        newest key of the ring. Otherwise the old encryption key could never be removed.
        """
        if stored.last_used_at is None or abs(now - stored.last_used_at) >= _LAST_USED_RESOLUTION:
            _NOTE_USE.run(pk=stored.pk, now=now)
        if key_id_of(bytes(stored.digest)) != key_ring().newest_id:
            digest = key_ring().digest(_DIGEST_PURPOSE, stored.brand_uuid.bytes, self.value)
            BotKey.objects.filter(pk=stored.pk).update(digest=digest)


def authenticate(authorization_header: str, now: datetime) -> BotKey | None:
    """Return the live key in an `Authorization` header, with its brand; None if there is none."""
    presented = PresentedKey.read(authorization_header)
    return presented.live_key(now) if presented else None


def revoke(bot_key: BotKey, user: Any = None) -> bool:
    """Revoke a key, with effect from the next request. Returns False if it was revoked before."""
    with transaction.atomic():
        revoked = BotKey.objects.filter(pk=bot_key.pk, revoked_at=None).update(revoked_at=timezone.now()) == 1
        if revoked:
            record_change(bot_key, BrandEvent.BOT_KEY_REVOKED, user)
    return revoked
