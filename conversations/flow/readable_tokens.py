"""Read a token. Nothing is written.

If the token may be read, `token_by_one_query` finds it with one query. For all other cases several queries find the
reason.
"""

from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from django.db import models
from django.db.models import Count, Exists, ExpressionWrapper, Min, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import JSONArray

from brands.authentication import PresentedKey, StoredKey
from brands.models import AuthorizationServer
from conversations.flow.authorization_status import AuthorizationStatus, authorization_of, seconds_left
from conversations.flow.challenges import WantedChallenge
from conversations.flow.errors import (
    ConversationClosed,
    InsufficientLifetime,
    InvalidScope,
    MissingScope,
    WrongAuthorizationStatus,
)
from conversations.models import AccessToken, Challenge, Conversation
from infrastructure.compiled import CompiledQuery, CompiledRows, Parameter
from infrastructure.crypto import Secret, key_ring
from infrastructure.json_rows import RowDecoder, as_text
from oauth_client.token import BEARER

_PUBLIC_ID: Final = Parameter("public_id", models.CharField())
_EXTERNAL_ID: Final = Parameter("external_id", models.CharField())
_SERVER_KEY: Final = Parameter("server_key", models.CharField())


_LIVE_TOKEN: Final = CompiledQuery(
    lambda: (
        AccessToken.objects.live()
        .filter(
            conversation_id=Parameter("conversation", models.BigIntegerField()),
            authorization_server_id=Parameter("server", models.BigIntegerField()),
        )
        .order_by()
    )
)


def token_to_present(conversation: Conversation, server: AuthorizationServer, now: datetime) -> AccessToken:
    """As `readable_token`, for a call: one query finds the token, and the others are made only to find the reason."""
    found = _LIVE_TOKEN.first(conversation=conversation.pk, server=server.pk)
    if found is None or found.end_reason_at(now):
        return readable_token(conversation, server, 0, now)
    found.conversation = conversation
    return found


def readable_token(conversation: Conversation, server: AuthorizationServer, min_ttl: int, now: datetime) -> AccessToken:
    """Return the conversation's token if it can be used for at least `min_ttl` seconds from `now`.

    Raises `ConversationClosed`, `WrongAuthorizationStatus`, `InsufficientLifetime`.
    """
    found = authorization_of(conversation, server, now)
    if found.status == AuthorizationStatus.CLOSED:
        raise ConversationClosed(conversation)
    if found.status != AuthorizationStatus.AUTHORIZED or found.access_token is None:
        raise WrongAuthorizationStatus(found)
    _refuse_short_life(found.access_token, min_ttl, now)
    return found.access_token


def refuse_missing_scope(access_token: AccessToken, server: AuthorizationServer, needed: str) -> None:
    """Raise `MissingScope` if the token lacks a part of the needed scope (RFC 6749 section 3.3).

    Raises `InvalidScope` if the server is not configured for that part. No challenge could add it, so the bot would
    create challenges without end.
    """
    granted, configured = access_token.scope.split(), server.scope.split()
    missing = [scope for scope in dict.fromkeys(needed.split()) if scope not in granted]
    if not set(missing) <= set(configured):
        raise InvalidScope
    if missing:
        requested = access_token.challenge.scope
        raise MissingScope(requested=requested, granted=access_token.scope, missing=" ".join(missing))


def usable_token(
    conversation: Conversation, wanted: WantedChallenge, min_ttl: int, now: datetime
) -> AccessToken | None:
    """Return a live token that makes the challenge unnecessary; None if there is none.

    Raises `ConversationClosed`. Raises `InsufficientLifetime` if a new token would be too short as well. Without that
    error the consumer would have to sign in again and again.
    """
    try:
        access_token = readable_token(conversation, wanted.server, 0, now)
    except WrongAuthorizationStatus:
        return None
    if not wanted.is_satisfied_by(access_token):
        return None
    try:
        _refuse_short_life(access_token, min_ttl, now)
    except InsufficientLifetime as error:
        if error.is_permanent:
            raise
        return None
    return access_token


def _refuse_short_life(access_token: AccessToken, min_ttl: int, now: datetime) -> None:
    expires_in = seconds_left(access_token.expires_at, now)
    if expires_in < min_ttl:
        lifetime = seconds_left(access_token.expires_at, access_token.issued_at)
        raise InsufficientLifetime(expires_in, lifetime, min_ttl)


class TokenRow(msgspec.Struct, array_like=True, frozen=True):
    """A readable token and the bot key that asks for it, as columns of a row. No model instance is built.

    Columns are named one by one: a read needs neither the brand's logo nor the server's configuration.
    """

    uuid: UUID
    token_type: str
    scope: str
    assurance: str
    matched_claims: str
    acr: str
    amr: str
    auth_time: datetime | None
    is_subject_pinned: bool
    issued_at: datetime
    expires_at: datetime
    lifetime_assumed: bool
    requested_scope: str
    purpose: str
    conversation_uuid: UUID
    session: int
    brand_uuid: UUID
    is_purpose_required: bool
    key_pk: int
    key_scopes: str
    key_expires_at: datetime | None
    key_last_used_at: datetime | None
    key_token_reads_per_minute: int | None


# Only the newest session of an id counts (S2). The database allows one open session,
# but it may be followed by a closed one in rows that SQL has changed.
IN_NEWEST_SESSION: Final = ~Exists(
    Conversation.objects.filter(
        brand=OuterRef("conversation__brand"),
        external_id=OuterRef("conversation__external_id"),
        session__gt=OuterRef("conversation__session"),
    )
)
_BRAND: Final = "conversation__brand__"
_BOT_KEY: Final = f"{_BRAND}bot_keys__"
_OF_CHALLENGE: Final = Challenge.objects.filter(pk=OuterRef("challenge")).order_by()
# In the order of `TokenRow`.
_ROW: Final = JSONArray(
    "uuid", "token_type", "scope", "assurance", "matched_claims", "acr", "amr", "auth_time",
    ExpressionWrapper(Q(subject_ciphertext__isnull=False), models.BooleanField()),
    "issued_at", "expires_at", "lifetime_assumed",
    Subquery(_OF_CHALLENGE.values("scope")), Subquery(_OF_CHALLENGE.values("purpose")),
    "conversation__uuid", "conversation__session", f"{_BRAND}uuid", f"{_BRAND}token_read_purpose_required",
    f"{_BOT_KEY}id", as_text(f"{_BOT_KEY}scopes"),
    f"{_BOT_KEY}expires_at", f"{_BOT_KEY}last_used_at", f"{_BOT_KEY}token_reads_per_minute",
)  # fmt: skip
_COLUMNS: Final = ("row", "ciphertext", "response_members_ciphertext", f"{_BOT_KEY}digest")
_decoder: Final = RowDecoder(TokenRow)


class ReadableToken(NamedTuple):
    """A row with its ciphertexts and the digest of the key, which are no text."""

    row: TokenRow
    ciphertext: bytes | memoryview | None
    response_members_ciphertext: bytes | memoryview | None
    key_digest: bytes | memoryview

    @property
    def key(self) -> StoredKey:
        return StoredKey(self.row.key_pk, self.key_digest, self.row.brand_uuid, self.row.key_last_used_at)

    def reveal(self, column: str) -> Secret:
        """Decrypt a column of the token. Raises `DecryptionError`, also if it is empty."""
        row = self.row
        bound_to = AccessToken.location(column, row.uuid, brand=row.brand_uuid, conversation=row.conversation_uuid)
        return key_ring().decrypt(getattr(self, column) or b"", bound_to)


def token_by_one_query(
    presented: PresentedKey, external_id: str, server_key: str, min_ttl: int, now: datetime
) -> ReadableToken | None:
    """Return the token if this bot key may read it and it lives `min_ttl` more seconds; None in every other case.

    An empty `server_key` means the brand's only active authorization server. The caller checks the bot key's scopes and
    records its use.
    """
    query = _compiled(named=bool(server_key))
    rows = query.rows(public_id=presented.public_id, external_id=external_id, server_key=server_key)
    if not rows:
        return None
    text, *others = rows[0]
    found = ReadableToken(_decoder.decode(text), *others)
    row = found.row
    # The query has checked the rest of what `BotKeyQuerySet.live` asks for.
    is_live = row.key_expires_at is None or row.key_expires_at > now
    if not is_live or row.expires_at <= now or seconds_left(row.expires_at, now) < min_ttl:
        return None
    return found if presented.is_of(found.key) else None


def _readable_tokens(*, named: bool) -> QuerySet[AccessToken]:
    """Select the live token of a live bot key's brand and conversation, at the named or only active server.

    Four tables are joined and two are read by subqueries. PostgreSQL needs 1.0 ms to plan a join of all six, 0.4 ms to
    plan this, and 0.06 ms to run either.
    """
    servers = AuthorizationServer.objects.active().filter(brand=OuterRef("conversation__brand"))
    if named:
        servers = servers.filter(key=_SERVER_KEY)
    only = servers.order_by().values("brand").annotate(only=Min("pk"), found=Count("pk")).filter(found=1)
    # Wrapped: from 6.0 on, Django compares with no bare subquery that has no LIMIT. It has one row for each brand.
    only_server = ExpressionWrapper(Subquery(only.values("only")), models.BigIntegerField())
    return (
        AccessToken.objects.live()
        .filter(
            IN_NEWEST_SESSION,
            conversation__external_id=_EXTERNAL_ID,
            conversation__closed_at=None,
            conversation__brand__is_active=True,
            conversation__brand__bot_keys__public_id=_PUBLIC_ID,
            conversation__brand__bot_keys__revoked_at=None,
            authorization_server_id=only_server,
            # A token that is bound to us is never handed out (L2). The full way says so.
            token_type=BEARER,
        )
        .annotate(row=as_text(_ROW))
        .order_by()
    )


@lru_cache(maxsize=2)
def _compiled(*, named: bool) -> CompiledRows:
    return CompiledRows(lambda: _readable_tokens(named=named).values_list(*_COLUMNS))
