"""Find all that a call needs with one query: bot key, operation, API, conversation and token.

It finds only what can be sent. For everything else several queries find the reason (`readable_tokens`).
"""

from datetime import datetime
from typing import Final, NamedTuple

from django.db import models
from django.db.models import F, QuerySet
from django.db.models.functions import JSONArray

from brands.api_operations import SAFE_METHODS
from brands.authentication import PresentedKey, StoredKey
from brands.models import ConversationIds
from brands.operation_requests import Declaration
from conversations.flow.api_calls import CallRow, Presented
from conversations.flow.readable_tokens import IN_NEWEST_SESSION
from conversations.models import AccessToken
from infrastructure.compiled import CompiledRows, Parameter
from infrastructure.crypto import Secret, key_ring
from infrastructure.json_rows import RowDecoder, as_text
from oauth_client.dpop import ProofKey


class CallableRow(CallRow, array_like=True, frozen=True):
    """What is read beside a call's own columns: the declaration, the conversation's session, and the bot key."""

    method: str
    path: str
    parameters: str
    body_schema: str | None
    is_body_required: bool
    token_pk: int
    expires_at: datetime
    session: int
    conversation_ids: str
    is_purpose_required: bool
    key_pk: int
    key_scopes: str
    key_expires_at: datetime | None
    key_last_used_at: datetime | None
    key_calls_per_minute: int | None


_BRAND: Final = "conversation__brand__"
_BOT_KEY: Final = f"{_BRAND}bot_keys__"
_OPERATION: Final = f"{_BRAND}operations__"
_API: Final = f"{_OPERATION}api__"
_SERVER: Final = f"{_API}authorization_server"
# In the order of `CallRow` and `CallableRow`.
_ROW: Final = JSONArray(
    f"{_OPERATION}name", f"{_OPERATION}scope", f"{_OPERATION}is_safe_to_repeat",
    f"{_API}base_url", f"{_API}host_member", f"{_API}host_since",
    f"{_BRAND}id", f"{_BRAND}slug", f"{_BRAND}uuid", as_text(f"{_BRAND}private_networks"),
    "conversation__uuid", "uuid", "scope", "issued_at",
    f"{_OPERATION}method", f"{_OPERATION}path", as_text(f"{_OPERATION}parameters"), as_text(f"{_OPERATION}body_schema"),
    f"{_OPERATION}is_body_required",
    "id", "expires_at", "conversation__session", f"{_BRAND}conversation_ids", f"{_BRAND}token_read_purpose_required",
    f"{_BOT_KEY}id", as_text(f"{_BOT_KEY}scopes"), f"{_BOT_KEY}expires_at", f"{_BOT_KEY}last_used_at",
    f"{_BOT_KEY}calls_per_minute",
)  # fmt: skip
_COLUMNS: Final = (
    *("row", "ciphertext", "dpop_key_ciphertext", "response_members_ciphertext"),
    f"{_BOT_KEY}digest",
)
_decoder: Final = RowDecoder(CallableRow)


class CallableToken(NamedTuple):
    """A row with its ciphertexts and the digest of the key, which are no text."""

    row: CallableRow
    ciphertext: bytes | memoryview | None
    dpop_key_ciphertext: bytes | memoryview | None
    response_members_ciphertext: bytes | memoryview | None
    key_digest: bytes | memoryview

    @property
    def key(self) -> StoredKey:
        return StoredKey(self.row.key_pk, self.key_digest, self.row.brand_uuid, self.row.key_last_used_at)

    @property
    def declaration(self) -> Declaration:
        row = self.row
        return Declaration(row.method, row.base_url, row.path, row.parameters, row.body_schema, row.is_body_required)

    def accepts_session(self, named: int | None) -> bool:
        """Whether a call that names this session, or none, may be sent (S3). One that changes something names it (P12).

        That is so only where ids are reused.
        """
        if named is not None:
            return named == self.row.session
        return self.row.method in SAFE_METHODS or self.row.conversation_ids != ConversationIds.REUSED

    def reveal(self) -> Presented:
        """Decrypt what a call needs. Raises `DecryptionError`."""
        key = None if self.dpop_key_ciphertext is None else self._reveal("dpop_key_ciphertext")
        has_members = self.row.host_member and self.response_members_ciphertext is not None
        members = self._reveal("response_members_ciphertext") if has_members else None
        return Presented(self._reveal("ciphertext"), ProofKey.of(key), members)

    def _reveal(self, column: str) -> Secret:
        row = self.row
        bound_to = AccessToken.location(
            column, row.token_uuid, brand=row.brand_uuid, conversation=row.conversation_uuid
        )
        return key_ring().decrypt(getattr(self, column) or b"", bound_to)


def callable_by_one_query(
    presented: PresentedKey, external_id: str, operation: str, now: datetime
) -> CallableToken | None:
    """Return the token with which this key can call the operation in this conversation; None in every other case.

    The caller checks the bot key's scopes, and records its use.
    """
    rows = _QUERY.rows(public_id=presented.public_id, external_id=external_id, operation=operation)
    if not rows:
        return None
    text, *others = rows[0]
    found = CallableToken(_decoder.decode(text), *others)
    row = found.row
    # The query has checked the rest of what `BotKeyQuerySet.live` asks for.
    is_live = row.key_expires_at is None or row.key_expires_at > now
    if not is_live or row.expires_at <= now or row.is_older_than_host or not row.has_scope:
        return None
    return found if presented.is_of(found.key) else None


def presented_token(access_token_pk: int) -> AccessToken | None:
    """Read the token that was presented, for an API that refuses it; None if its row has been deleted meanwhile."""
    rows = AccessToken.objects.select_related("conversation__brand", "authorization_server", "challenge")
    return rows.filter(pk=access_token_pk).first()


def _callable_tokens() -> QuerySet[AccessToken]:
    """Select the live token of a live bot key's brand and conversation, at the server of the operation's API."""
    return (
        AccessToken.objects.live()
        .filter(
            IN_NEWEST_SESSION,
            **{
                "conversation__external_id": Parameter("external_id", models.CharField()),
                "conversation__closed_at": None,
                f"{_BRAND}is_active": True,
                f"{_BOT_KEY}public_id": Parameter("public_id", models.CharField()),
                f"{_BOT_KEY}revoked_at": None,
                f"{_OPERATION}name": Parameter("operation", models.CharField()),
                f"{_OPERATION}is_active": True,
                f"{_API}is_active": True,
                f"{_SERVER}__is_active": True,
                "authorization_server_id": F(f"{_SERVER}_id"),
            },
        )
        .annotate(row=as_text(_ROW))
        .order_by()
    )


_QUERY: Final = CompiledRows(lambda: _callable_tokens().values_list(*_COLUMNS))
