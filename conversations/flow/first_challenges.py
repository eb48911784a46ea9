"""The first challenge of a chat: one query finds all that it needs, one message stores all that it is.

It finds only what can be created. For everything else several queries find the reason (`challenges`).
"""

from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from django.db import models, transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import JSONArray

from brands.authentication import PresentedKey, StoredKey
from brands.models import BotKey
from conversations.flow.events import webhooks_of
from conversations.flow.idempotency import IdempotentRequest, digests_of
from conversations.flow.new_challenges import Judged, Wishes, new_challenge, record_issued
from conversations.models import Challenge, Conversation, IdempotencyKey
from infrastructure.compiled import CompiledInsert, CompiledRows, Parameter, unsaved
from infrastructure.crypto import Secret, key_ring
from infrastructure.json_rows import RowDecoder, as_text


class ServerRow(msgspec.Struct, array_like=True, frozen=True):
    """An active authorization server of a bot key's brand, with brand and key. No model instance is built."""

    pk: int
    key: str
    scope: str
    required_scope: str
    accepted_checks: str
    challenge_lifetime: int
    brand_pk: int
    brand_uuid: UUID
    brand_name: str
    key_pk: int
    key_scopes: str
    checks_of_key: str
    key_last_used_at: datetime | None
    key_calls_per_minute: int | None

    @property
    def same_person_checks(self) -> list[str]:
        """Decode the column. Raises `msgspec.DecodeError` for what is no list of names."""
        return msgspec.json.decode(self.accepted_checks, type=list[str])


class FirstChallenge(NamedTuple):
    """What the first challenge of a chat needs: the brand's active servers, and the digest of the bot key."""

    servers: list[ServerRow]
    key_digest: bytes | memoryview

    @property
    def key(self) -> StoredKey:
        row = self.servers[0]
        return StoredKey(row.key_pk, self.key_digest, row.brand_uuid, row.key_last_used_at)


_BRAND: Final = "brand__"
_SERVER: Final = f"{_BRAND}authorization_servers__"
# In the order of `ServerRow`.
_ROW: Final = JSONArray(
    f"{_SERVER}id", f"{_SERVER}key", f"{_SERVER}scope", f"{_SERVER}required_scope",
    as_text(f"{_SERVER}same_person_checks"), f"{_SERVER}challenge_lifetime",
    f"{_BRAND}id", f"{_BRAND}uuid", f"{_BRAND}name",
    "id", as_text("scopes"), as_text("same_person_checks"), "last_used_at",
    "calls_per_minute",
)  # fmt: skip
_QUERY: Final = CompiledRows(
    lambda: (
        BotKey.objects.live(Parameter("now", models.DateTimeField()))
        .filter(
            ~webhooks_of("brand_id"),
            ~Exists(
                Conversation.objects.filter(
                    brand_id=OuterRef("brand_id"), external_id=Parameter("external_id", models.CharField())
                )
            ),
            **{"public_id": Parameter("public_id", models.CharField()), f"{_SERVER}is_active": True},
        )
        .annotate(row=as_text(_ROW))
        .order_by()
        .values_list("row", "digest")
    )
)
_decoder: Final = RowDecoder(ServerRow)
# All rows are sent with COMMIT. So none of them has a number yet, and each finds another by the UUID that we gave it.
_CONVERSATION: Final = CompiledInsert(Conversation)
_CHALLENGE: Final = CompiledInsert(Challenge, found_by={"conversation": Conversation._meta.get_field("uuid")})
_IDEMPOTENCY_KEY: Final = CompiledInsert(IdempotencyKey, found_by={"challenge": Challenge._meta.get_field("uuid")})


def first_by_one_query(presented: PresentedKey, external_id: str, now: datetime) -> FirstChallenge | None:
    """Return what a challenge needs if this bot key is live and its brand has no such chat yet; None in other cases.

    None also if the brand has an active webhook endpoint, or no active server. The caller checks the bot key's scopes
    and records its use.
    """
    rows = _QUERY.rows(public_id=presented.public_id, external_id=external_id, now=now)
    if not rows:
        return None
    found = FirstChallenge([_decoder.decode(text) for text, _ in rows], rows[0][1])
    return found if presented.is_of(found.key) else None


def knows_all_digests() -> bool:
    """Whether an idempotency key has one digest, so that the database refuses a second use of it."""
    return len(key_ring().ids) == 1


def issue_first_challenge(
    server: ServerRow,
    external_id: str,
    wishes: Wishes,
    judged: Judged,
    *,
    actor: str,
    now: datetime,
    request: IdempotentRequest | None = None,
) -> tuple[Challenge, Secret]:
    """Create a conversation with its first challenge in one round trip. Return the challenge and its link's token.

    Raises `IntegrityError` if another call has created the conversation, or has used the idempotency key (of which
    `knows_all_digests` has to be true).
    """
    conversation = unsaved(Conversation, brand_id=server.brand_pk, external_id=external_id)
    with transaction.atomic():
        _CONVERSATION.insert_later(conversation)
        challenge, link_token = new_challenge(conversation, server.brand_uuid, server, wishes, judged, now=now)
        _CHALLENGE.insert_later(challenge)
        if request is not None:
            _IDEMPOTENCY_KEY.insert_later(_key_of(request, challenge, server, now))
        record_issued(challenge, server.brand_uuid, actor=actor, now=now)
    return challenge, link_token


def _key_of(request: IdempotentRequest, challenge: Challenge, server: ServerRow, now: datetime) -> IdempotencyKey:
    digest, request_digest = digests_of(request, server.brand_uuid, challenge.conversation.uuid)
    return unsaved(
        IdempotencyKey,
        brand_id=server.brand_pk,
        digest=digest,
        request_digest=request_digest,
        challenge=challenge,
        created_at=now,
    )
