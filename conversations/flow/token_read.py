"""The token in one query: for a read that is answered with it, and for no other.

Reading a token is what bots do most. Built anew for each read, the queries of `reading` cost ten times what the
database needs for them; this one is compiled once. What it does not find (a key that is not live, a conversation
without a readable token, a brand that has several servers) is told apart by `reading` and `standing`, the one source
of reasons; so it must never find what they would refuse. Nothing is kept between two reads but the text of the query:
a key or a token that was revoked is gone at the next one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Final
from weakref import WeakSet

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, ProgrammingError, connections, models
from django.db.models import Count, Min, OuterRef, QuerySet, Subquery

from brands.authentication import PresentedKey
from brands.models import AuthorizationServer, BotKey, Brand
from conversations.flow.facts import seconds_left
from conversations.models import AccessToken, Challenge, Conversation
from delegation_site.crypto import checksum

# Each stands in the compiled query where a read puts its own value; no column holds a value like them.
_PUBLIC_ID: Final = "<public id>"
_EXTERNAL_ID: Final = "<conversation id>"
_SERVER_KEY: Final = "<authorization server>"

# SQLSTATE of a prepared statement that is not there, and of one that is there already: the connection is not ours.
_POOLED: Final = ("26000", "42P05")


@dataclass(frozen=True)
class TokenRead:
    """A token that may be handed out, and the live key that asks for it. Their other columns were not read."""

    bot_key: BotKey
    access_token: AccessToken


def token_at_once(
    presented: PresentedKey, external_id: str, server_key: str, min_ttl: int, now: datetime
) -> TokenRead | None:
    """Return the token of the key's brand and conversation, good for `min_ttl` seconds; None for every other outcome.

    An empty `server_key` means the brand's only active authorization server. A reader's scopes are the caller's to
    check, and its use is not noted yet.
    """
    # Looked up once: each use of `django.db.connection` looks for the thread's own anew.
    database: Any = connections[DEFAULT_DB_ALIAS]
    query = _compiled(database.vendor, named=bool(server_key))
    row = query.fetch(database, {_PUBLIC_ID: presented.public_id, _EXTERNAL_ID: external_id, _SERVER_KEY: server_key})
    if row is None:
        return None
    found = _read(row)
    expires_at = found.access_token.expires_at
    if not _is_live(found.bot_key, now) or expires_at <= now or seconds_left(expires_at, now) < min_ttl:
        return None
    return found if presented.is_of(found.bot_key) else None


def _is_live(bot_key: BotKey, now: datetime) -> bool:
    """Tell what `BotKeyQuerySet.live` asks of a clock; the query has asked the rest."""
    return bot_key.expires_at is None or bot_key.expires_at > now


def _readable_tokens(*, named: bool) -> QuerySet[AccessToken]:
    """Return the live token of a live key's brand and conversation, at the active server that is meant.

    Four tables are joined, the others are asked one by one: PostgreSQL takes 1.0 ms to plan the join of all six, 0.4 ms
    to plan this, and 0.06 ms to run either.
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


class _Part:
    """Columns of the query that make up one instance, in the order of its model's fields, as `from_db` takes them."""

    def __init__(self, model: type[models.Model], **columns: str) -> None:
        """Take the model and, for each field by the name of its column, what the query calls it."""
        self._model = model
        self._names = [field.attname for field in model._meta.concrete_fields if field.attname in columns]
        self.columns = [columns[name] for name in self._names]

    def instance(self, row: Iterator[Any]) -> Any:
        """Make the instance of the next values of a row."""
        return self._model.from_db(DEFAULT_DB_ALIAS, self._names, list(islice(row, len(self._names))))


def _part(model: type[models.Model], path: str, *names: str) -> _Part:
    return _Part(model, **{name: f"{path}{name}" for name in names})


# Named one by one: a brand's logo or a server's configuration is no part of a read.
_TOKEN: Final = _part(
    AccessToken, "", "id", "uuid", "conversation_id", "challenge_id", "ciphertext", "token_type", "scope", "assurance",
    "issued_at", "expires_at", "lifetime_assumed",
)  # fmt: skip
_CHALLENGE: Final = _Part(Challenge, id="challenge_id", scope="asked_scope", purpose="purpose")
_CONVERSATION: Final = _part(Conversation, "conversation__", "id", "uuid", "brand_id")
_BRAND: Final = _part(Brand, "conversation__brand__", "id", "uuid", "token_read_purpose_required")
_BOT_KEY: Final = _part(
    BotKey, "conversation__brand__bot_keys__",
    "id", "brand_id", "public_id", "digest", "scopes", "expires_at", "last_used_at",
)  # fmt: skip
_PARTS: Final = (_TOKEN, _CHALLENGE, _CONVERSATION, _BRAND, _BOT_KEY)


def _read(values: Iterator[Any]) -> TokenRead:
    """Return a row as instances that know each other; what was not read of them would be fetched when asked for."""
    access_token, challenge, conversation, brand, bot_key = (part.instance(values) for part in _PARTS)
    for field, instance, related in (
        (AccessToken.challenge.field, access_token, challenge),
        (AccessToken.conversation.field, access_token, conversation),
        (Conversation.brand.field, conversation, brand),
        (BotKey.brand.field, bot_key, brand),
    ):
        field.set_cached_value(instance, related)
    return TokenRead(bot_key, access_token)


class _CompiledQuery:
    """The text of the query, where a read's own values go, and what turns a row of the driver's into Python's values.

    The converters are Django's: SQLite's driver returns text for moments and UUIDs, PostgreSQL's returns text for JSON.

    PostgreSQL plans it once for each connection (PREPARE), which takes seven times as long as running it. A pooler that
    gives each statement another connection has no use for that: told by its errors, the query is sent as it is.
    """

    def __init__(self, tokens: QuerySet[AccessToken], vendor: str) -> None:
        columns = [column for part in _PARTS for column in part.columns]
        compiler = tokens.values_list(*columns).query.get_compiler(DEFAULT_DB_ALIAS)
        self._sql: str
        self._sql, self._parameters = compiler.as_sql()
        self._convert: Callable[[Any, Any], Any] = compiler.apply_converters
        self._converters = compiler.get_converters([expression for expression, _, _ in compiler.select])
        # Named by its text: behind a pooler another version of ours may have prepared another query.
        name = f"token_read_{checksum(self._sql)}"
        numbered = self._sql % tuple(f"${number}" for number, _ in enumerate(self._parameters, start=1))
        self._prepare = f"PREPARE {name} AS {numbered}"
        self._execute = f"EXECUTE {name} ({', '.join(['%s'] * len(self._parameters))})"
        self._may_prepare = vendor == "postgresql"
        self._prepared_on: WeakSet[Any] = WeakSet()

    def fetch(self, database: Any, values: dict[str, str]) -> Iterator[Any] | None:
        """Run the query; return its one row. None where there is none, and where the connection turned out dead."""
        parameters = [values.get(parameter, parameter) for parameter in self._parameters]
        # The query itself is the check whether a kept connection still works: asking first is a round trip for nothing.
        database.health_check_done = True
        try:
            with database.cursor() as cursor:
                cursor.execute(self._statement(database, cursor), parameters)
                row = cursor.fetchone()
        except (OperationalError, InterfaceError, ProgrammingError) as error:
            self._may_prepare = self._may_prepare and getattr(error.__cause__, "pgcode", None) not in _POOLED
            database.close()
            return None
        return None if row is None else iter(next(iter(self._convert([row], self._converters))))

    def _statement(self, database: Any, cursor: Any) -> str:
        if not self._may_prepare:
            return self._sql
        if database.connection not in self._prepared_on:
            cursor.execute(self._prepare)
            self._prepared_on.add(database.connection)
        return self._execute


@lru_cache(maxsize=4)
def _compiled(vendor: str, *, named: bool) -> _CompiledQuery:
    return _CompiledQuery(_readable_tokens(named=named), vendor)
