"""Fill large tables on PostgreSQL from fewer rows: the database inserts originals and copies of them, in order.

An original is a row as `bench.seeding` makes it, with ciphertexts that can be decrypted. A copy has the original's
values with ids, digests and references of its own, so each of its columns has the size, and the frequency of values,
that it would have otherwise. Nothing decrypts a copy: requests are about originals (`cast.original_of`).
"""

from dataclasses import dataclass
from typing import Any, Final

from django.db import connection
from django.db.models import Model

from bench import cast
from bench.rows import Rows
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation

STRETCH: Final = cast.PERIOD * cast.COPIES
# `n` is the number of a conversation, `original` the row that it repeats: as cast.original_of has it.
_ORIGINAL: Final = (
    f"(n + {cast.PERIOD} * ((n - 1) % {cast.PERIOD} * 7 % {cast.COPIES} - (n - 1) / {cast.PERIOD} % {cast.COPIES}))"
)
# Spread over an index as random ones are. PostgreSQL asks the system for each random value, which takes longer.
_CONVERSATION_UUID: Final = "md5('conversation ' || n)::uuid"
# A prefix that names the key, and an HMAC.
_DIGEST: Final = (
    "substring(original.link_token_digest for octet_length(original.link_token_digest) - 32)"
    " || sha256(('link ' || n || ' ' || old)::bytea)"
)


@dataclass(frozen=True)
class _Table:
    """`of_all`: SQL of columns that name numbers. `of_copies`: SQL of what a copy has of its own.

    `old`: 1 for an old challenge, which stands before the conversation's other one; else 0.
    """

    model: type[Model]
    of_all: dict[str, str]
    of_copies: dict[str, str]
    place: str = "{}"
    olds: str = "0"

    @property
    def name(self) -> str:
        return self.model._meta.db_table

    @property
    def originals(self) -> str:
        return f"bench_originals_{self.name}"

    def insert(self, first: int, last: int) -> str:
        """Return the statement that inserts the rows of these conversations."""
        columns = [str(one.column) for one in self.model._meta.concrete_fields]
        values = [self._value(column, first) for column in columns]
        named = ", ".join(f'"{column}"' for column in columns)
        return f"""
            INSERT INTO "{self.name}" ({named}) SELECT {", ".join(values)}
            FROM generate_series({first}, {last}) AS n CROSS JOIN LATERAL generate_series({self.olds}, 0, -1) AS old
            JOIN "{self.originals}" AS original ON original.id = {self.place.format(_ORIGINAL)}
        """  # noqa: S608  # names of our own models, and numbers

    def _value(self, column: str, first: int) -> str:
        if column in self.of_all:
            return self.of_all[column].format(first=first)
        own = f'original."{column}"'
        if column in self.of_copies:
            return f"CASE WHEN {_ORIGINAL} = n THEN {own} ELSE {self.of_copies[column]} END"
        return own


class CopiedRows:
    """The tables of conversations. `write` inserts what was added to the `rows` of their originals.

    An original's id is that of its row in the product's table; an event's is the number of its conversation.
    """

    def __init__(self, share_old: int) -> None:
        challenge = f"{{0}} + {{0}} / {share_old} - old" if share_old else "{0}"
        numbered = challenge.format("n")
        last_event = f'(SELECT coalesce(max(id), 0) FROM "{AuditEvent._meta.db_table}")'  # noqa: S608  # our own name
        tables = (
            _Table(
                Conversation,
                {"id": "n", "external_id": "'whatsapp:49' || lpad(n::text, 11, '0')"},
                {"uuid": _CONVERSATION_UUID},
            ),
            _Table(
                Challenge,
                {"id": numbered, "conversation_id": "n"},
                _own_uuid("challenge") | {"link_token_digest": _DIGEST},
                place=challenge,
                olds=f"CASE WHEN n % {share_old} = 0 THEN 1 ELSE 0 END" if share_old else "0",
            ),
            _Table(AccessToken, {"id": "n", "conversation_id": "n", "challenge_id": numbered}, _own_uuid("token")),
            _Table(
                AuditEvent,
                {"id": f"{last_event} + 1 + n - {{first}}"},
                _own_uuid("event") | {"conversation_uuid": _CONVERSATION_UUID},
            ),
        )
        self._tables = {table.model: table for table in tables}
        for table in tables:
            _execute(f'DROP TABLE IF EXISTS "{table.originals}"')
            _execute(f'CREATE UNLOGGED TABLE "{table.originals}" (LIKE "{table.name}", PRIMARY KEY (id))')

    @property
    def names(self) -> list[str]:
        """The product's tables."""
        return [table.name for table in self._tables.values()]

    def rows(self, model: type[Model], **defaults: Any) -> Rows:
        """Return the rows that collect a table's originals."""
        return Rows(model, table=self._tables[model].originals, **defaults)

    def write(self, first: int, last: int) -> None:
        """Insert the conversations of these numbers, and forget their originals. Call it in a transaction."""
        # In the order of the numbers, as they would be written one by one.
        _execute("SET LOCAL enable_hashjoin = off")
        _execute("SET LOCAL enable_mergejoin = off")
        for table in self._tables.values():
            _execute(f'ANALYZE "{table.originals}"')
            _execute(table.insert(first, last))
            _execute(f'TRUNCATE "{table.originals}"')
            sequence = f"pg_get_serial_sequence('\"{table.name}\"', 'id')"
            _execute(f'SELECT setval({sequence}, max(id)) FROM "{table.name}"')  # noqa: S608  # names of our own models

    def drop(self) -> None:
        """Drop the originals' tables, which are empty now."""
        for table in self._tables.values():
            _execute(f'DROP TABLE "{table.originals}"')


def _own_uuid(kind: str) -> dict[str, str]:
    return {"uuid": f"md5('{kind} ' || n || ' ' || old)::uuid"}


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
