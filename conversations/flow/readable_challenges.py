"""Read a challenge for a bot: one query finds it with the bot key that asks. Nothing is written.

It finds only what may be read. For everything else several queries find the reason (`conversations.api.lookups`).
"""

from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from django.db import models
from django.db.models import Q
from django.db.models.functions import JSONArray

from brands.authentication import PresentedKey, StoredKey
from conversations.flow.authorization_status import ChallengePlace, representation_of
from conversations.models import Challenge
from infrastructure.compiled import CompiledRows, Parameter
from infrastructure.crypto import Secret, key_ring
from infrastructure.json_rows import RowDecoder, as_text


class ChallengeRow(msgspec.Struct, array_like=True, frozen=True):
    """A challenge and the bot key that asks for it, as columns of a row. No model instance is built."""

    pk: int
    uuid: UUID
    status: str
    error: str
    last_error: str
    same_person_check: str
    scope: str
    acr_values: str
    max_age: int | None
    purpose: str
    purposes: str
    locale: str
    issued_at: datetime
    started_at: datetime | None
    confirmation_needed_at: datetime | None
    completed_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime
    conversation_uuid: UUID
    external_id: str
    session: int
    server_key: str
    brand_pk: int
    brand_uuid: UUID
    key_pk: int
    key_scopes: str
    key_last_used_at: datetime | None
    key_calls_per_minute: int | None

    @property
    def purpose_by_locale(self) -> Any:
        """Decode the column. Raises `msgspec.DecodeError`."""
        return msgspec.json.decode(self.purposes)


_BRAND: Final = "conversation__brand__"
_BOT_KEY: Final = f"{_BRAND}bot_keys__"
# In the order of `ChallengeRow`.
_ROW: Final = JSONArray(
    "id", "uuid", "status", "error", "last_error", "same_person_check", "scope", "acr_values", "max_age", "purpose",
    as_text("purpose_by_locale"), "locale",
    "issued_at", "started_at", "confirmation_needed_at", "completed_at", "ended_at", "expires_at",
    "conversation__uuid", "conversation__external_id", "conversation__session", "authorization_server__key",
    f"{_BRAND}id", f"{_BRAND}uuid",
    f"{_BOT_KEY}id", as_text(f"{_BOT_KEY}scopes"), f"{_BOT_KEY}last_used_at", f"{_BOT_KEY}calls_per_minute",
)  # fmt: skip
_NOW: Final = Parameter("now", models.DateTimeField())
_QUERY: Final = CompiledRows(
    lambda: (
        Challenge.objects.filter(
            # What `BotKeyQuerySet.live` asks for.
            Q(**{f"{_BOT_KEY}expires_at": None}) | Q(**{f"{_BOT_KEY}expires_at__gt": _NOW}),
            **{
                "uuid": Parameter("uuid", models.UUIDField()),
                f"{_BRAND}is_active": True,
                f"{_BOT_KEY}public_id": Parameter("public_id", models.CharField()),
                f"{_BOT_KEY}revoked_at": None,
            },
        )
        .annotate(row=as_text(_ROW))
        .order_by()
        .values_list("row", "context_ciphertext", f"{_BOT_KEY}digest")
    )
)
_decoder: Final = RowDecoder(ChallengeRow)


class ReadableChallenge(NamedTuple):
    """A row with its ciphertext and the digest of the key, which are no text."""

    row: ChallengeRow
    context_ciphertext: bytes | memoryview | None
    key_digest: bytes | memoryview

    @property
    def key(self) -> StoredKey:
        return StoredKey(self.row.key_pk, self.key_digest, self.row.brand_uuid, self.row.key_last_used_at)

    def representation(self, now: datetime) -> dict[str, Any]:
        """As `challenge_representation`. Raises `DecryptionError`, and `msgspec.DecodeError` for broken purposes."""
        row = self.row
        place = ChallengePlace(row.external_id, row.session, row.server_key)
        return representation_of(row, place, self._reveal_context(), now)

    def _reveal_context(self) -> Secret | None:
        if self.context_ciphertext is None:
            return None
        row = self.row
        bound_to = Challenge.location(
            "context_ciphertext", row.uuid, brand=row.brand_uuid, conversation=row.conversation_uuid
        )
        return key_ring().decrypt(self.context_ciphertext, bound_to)


def challenge_by_one_query(presented: PresentedKey, uuid: UUID, now: datetime) -> ReadableChallenge | None:
    """Return the challenge if this bot key is live and of its brand; None in every other case.

    The caller checks the bot key's scopes, and records its use.
    """
    rows = _QUERY.rows(public_id=presented.public_id, uuid=uuid, now=now)
    if not rows:
        return None
    text, *others = rows[0]
    found = ReadableChallenge(_decoder.decode(text), *others)
    return found if presented.is_of(found.key) else None
