"""Read a token. Nothing is written.

If the token may be read, `token_by_one_query` finds it with one query. For all other cases several queries find the
reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from django.db import models
from django.db.models import Count, Min, OuterRef, QuerySet, Subquery

from brands.authentication import PresentedKey
from brands.models import AuthorizationServer, BotKey, Brand
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
from infrastructure.compiled import CompiledRows, Parameter, loaded

_PUBLIC_ID: Final = Parameter("public_id", models.CharField())
_EXTERNAL_ID: Final = Parameter("external_id", models.CharField())
_SERVER_KEY: Final = Parameter("server_key", models.CharField())


class _ModelColumns:
    """The columns of the query that make up one instance of a model, in the order of their values."""

    def __init__(self, model: type[models.Model], **columns: str) -> None:
        """Take the model, and for each column its name in the query."""
        self._model = model
        self._names = [field.attname for field in model._meta.concrete_fields if field.attname in columns]
        self.names_in_query = [columns[name] for name in self._names]

    def instance(self, row: Iterator[Any]) -> Any:
        """Build an instance from the next values of a row."""
        return loaded(self._model, self._names, islice(row, len(self._names)))


def _columns(model: type[models.Model], path: str, *names: str) -> _ModelColumns:
    return _ModelColumns(model, **{name: f"{path}{name}" for name in names})


# Columns are named one by one: a read needs neither the brand's logo nor the server's configuration.
_TOKEN: Final = _columns(
    AccessToken, "", "id", "uuid", "conversation_id", "challenge_id", "ciphertext", "response_members_ciphertext",
    "token_type", "scope", "assurance", "matched_claims", "subject_ciphertext", "issued_at", "expires_at",
    "lifetime_assumed",
)  # fmt: skip
_CHALLENGE: Final = _ModelColumns(Challenge, id="challenge_id", scope="asked_scope", purpose="purpose")
_CONVERSATION: Final = _columns(Conversation, "conversation__", "id", "uuid", "brand_id")
_BRAND: Final = _columns(Brand, "conversation__brand__", "id", "uuid", "token_read_purpose_required")
_BOT_KEY: Final = _columns(
    BotKey, "conversation__brand__bot_keys__",
    "id", "brand_id", "public_id", "digest", "scopes", "expires_at", "last_used_at",
)  # fmt: skip
_MODELS: Final = (_TOKEN, _CHALLENGE, _CONVERSATION, _BRAND, _BOT_KEY)


def readable_token(conversation: Conversation, server: AuthorizationServer, min_ttl: int, now: datetime) -> AccessToken:
    """Return the conversation's token if it can be used for at least `min_ttl` seconds from `now`.

    Raises `ConversationClosed`, `WrongAuthorizationStatus`, `InsufficientLifetime`.
    """
    found = authorization_of(conversation, server, now)
    if found.status == AuthorizationStatus.CLOSED:
        raise ConversationClosed
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


@dataclass(frozen=True)
class TokenRead:
    """A token that may be handed out, and the live bot key that asks for it. Other columns were not loaded."""

    bot_key: BotKey
    access_token: AccessToken


def token_by_one_query(
    presented: PresentedKey, external_id: str, server_key: str, min_ttl: int, now: datetime
) -> TokenRead | None:
    """Return the token if this bot key may read it and it lives `min_ttl` more seconds; None in every other case.

    An empty `server_key` means the brand's only active authorization server. The caller checks the bot key's scopes and
    records its use.
    """
    query = _compiled(named=bool(server_key))
    rows = query.rows(public_id=presented.public_id, external_id=external_id, server_key=server_key)
    if not rows:
        return None
    found = _read(iter(rows[0]))
    expires_at = found.access_token.expires_at
    if not _is_live(found.bot_key, now) or expires_at <= now or seconds_left(expires_at, now) < min_ttl:
        return None
    return found if presented.is_of(found.bot_key) else None


def _is_live(bot_key: BotKey, now: datetime) -> bool:
    """Check the expiry as `BotKeyQuerySet.live` does. The query has checked the rest."""
    return bot_key.expires_at is None or bot_key.expires_at > now


def _readable_tokens(*, named: bool) -> QuerySet[AccessToken]:
    """Select the live token of a live bot key's brand and conversation, at the named or only active server.

    Four tables are joined and two are read by subqueries. PostgreSQL needs 1.0 ms to plan a join of all six, 0.4 ms to
    plan this, and 0.06 ms to run either.
    """
    servers = AuthorizationServer.objects.active().filter(brand=OuterRef("conversation__brand"))
    if named:
        servers = servers.filter(key=_SERVER_KEY)
    only = servers.order_by().values("brand").annotate(only=Min("pk"), found=Count("pk")).filter(found=1)
    challenges = Challenge.objects.filter(pk=OuterRef("challenge")).order_by()
    return (
        AccessToken.objects.live()
        .filter(
            conversation__external_id=_EXTERNAL_ID,
            conversation__closed_at=None,
            conversation__brand__is_active=True,
            conversation__brand__bot_keys__public_id=_PUBLIC_ID,
            conversation__brand__bot_keys__revoked_at=None,
            authorization_server=Subquery(only.values("only")),
        )
        .annotate(asked_scope=Subquery(challenges.values("scope")), purpose=Subquery(challenges.values("purpose")))
        .order_by()
    )


def _read(values: Iterator[Any]) -> TokenRead:
    """Build the instances of a row and link them. A column that was not loaded would be fetched when it is used."""
    access_token, challenge, conversation, brand, bot_key = (columns.instance(values) for columns in _MODELS)
    for field, instance, related in (
        (AccessToken.challenge.field, access_token, challenge),
        (AccessToken.conversation.field, access_token, conversation),
        (Conversation.brand.field, conversation, brand),
        (BotKey.brand.field, bot_key, brand),
    ):
        field.set_cached_value(instance, related)
    return TokenRead(bot_key, access_token)


@lru_cache(maxsize=2)
def _compiled(*, named: bool) -> CompiledRows:
    names = [name for columns in _MODELS for name in columns.names_in_query]
    return CompiledRows(lambda: _readable_tokens(named=named).values_list(*names))
