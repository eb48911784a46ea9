"""Seed the product's database: `python -m bench.seeding WANTED_FILE MADE_FILE`, both JSON.

Rows that requests are about are real, with ciphertexts bound to row, brand and conversation. MADE_FILE gets the data
needed for requests: bot keys, links and callbacks. Conversations that an interrupted seeding has written are kept.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import django
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.utils import timezone

django.setup()

from bench import cast, seeding_sign_ins  # noqa: E402
from bench.copied_rows import STRETCH, CopiedRows  # noqa: E402
from bench.indexes import built_afterwards  # noqa: E402
from bench.rows import Rows  # noqa: E402
from brands.authentication import create_bot_key  # noqa: E402  the models need Django set up
from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation  # noqa: E402
from conversations.flow.events import ConversationEvent  # noqa: E402
from conversations.flow.new_challenges import LINK_TOKEN_PURPOSE  # noqa: E402
from conversations.models import AccessToken, AuditEvent, Challenge, ChallengeStatus, Conversation  # noqa: E402
from infrastructure.crypto import AssociatedData, Secret, key_ring, random_token  # noqa: E402

_CHUNK: Final = 5_000
_STRETCHES: Final = 10 * STRETCH
LONG_AGO: Final = timedelta(days=60)
# A growth that was stopped may go on some days later.
_TOKEN_LIFETIME: Final = timedelta(days=14)


@dataclass(frozen=True)
class Wanted:
    """How many rows to seed.

    One of `share_ended` conversations ended 60 days ago. One of `share_old` has an unanswered challenge of that time,
    which the purge deletes. 0 means none. `copied`: most rows are copies (`bench.copied_rows`), on PostgreSQL.
    """

    conversations: int
    links: int = 0
    callbacks: int = 0
    hanging_callbacks: int = 0
    rival_callbacks: int = 0
    share_ended: int = 0
    share_old: int = 0
    copied: bool = False
    issuer: str = "https://localhost:1"


@dataclass(frozen=True)
class SeededBrand:
    """A brand and its authorization server."""

    brand: Brand
    server: AuthorizationServer


def main() -> None:
    """Seed, and write MADE_FILE."""
    wanted = Wanted(**json.loads(Path(sys.argv[1]).read_text()))
    call_command("migrate", verbosity=0)
    brands = {slug: _seed_brand(slug, wanted.issuer) for slug in cast.BRANDS}
    hanging = _seed_brand("hanging", wanted.issuer, path="/hanging")
    made: dict[str, Any] = {
        "keys": {slug: _seed_keys(seeded.brand) for slug, seeded in brands.items()},
        "conversations": wanted.conversations,
        "share_ended": wanted.share_ended,
        "copied": wanted.copied,
    }
    _seed_conversations(brands, wanted)
    with transaction.atomic():
        made["links"] = seeding_sign_ins.seed_links(brands[cast.ACME].server, wanted.links)
        for name, seeded, count in (
            ("callbacks", brands[cast.ACME], wanted.callbacks),
            ("rival_callbacks", brands[cast.RIVAL], wanted.rival_callbacks),
            ("hanging_callbacks", hanging, wanted.hanging_callbacks),
        ):
            made[name] = seeding_sign_ins.seed_callbacks(seeded.server, count)
    _settle()
    Path(sys.argv[2]).write_text(json.dumps(made))


def _seed_brand(slug: str, issuer: str, path: str = "") -> SeededBrand:
    if seeded := AuthorizationServer.objects.filter(brand__slug=slug).select_related("brand").first():
        return SeededBrand(seeded.brand, seeded)
    brand, _ = Brand.objects.get_or_create(name=slug.title(), slug=slug)
    server = AuthorizationServer(
        brand=brand,
        key=cast.SERVER_KEY,
        issuer=issuer,
        authorization_endpoint=f"{issuer}{path}/authorize",
        token_endpoint=f"{issuer}{path}/token",
        client_id=f"{slug}-client",
        scope=cast.SCOPE,
        challenge_lifetime=3600,
    )
    server.set_client_secret(Secret(random_token()))
    server.save(force_insert=True)
    _seed_api(server, issuer)
    return SeededBrand(brand, server)


def _seed_api(server: AuthorizationServer, base_url: str) -> None:
    """Add an API that is older than the tokens."""
    api = BrandAPI.objects.create(
        brand=server.brand,
        authorization_server=server,
        key="shop",
        base_url=base_url,
        host_since=timezone.now() - 2 * LONG_AGO,
    )
    limit = {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "maximum": 50}}
    for name, path in cast.OPERATIONS.items():
        Operation.objects.create(brand=server.brand, api=api, name=name, method="GET", path=path, parameters=[limit])


def _seed_keys(brand: Brand) -> list[str]:
    scopes = BotKey.Scope.values
    made = [create_bot_key(brand, f"bench {number}", scopes) for number in range(cast.KEYS_OF_A_BRAND)]
    return [key.reveal() for _, key in made]


@contextmanager
def _writing_meanwhile() -> Iterator[Callable[..., None]]:
    """Yield a function that writes tables in another thread, while this thread encrypts the next rows.

    It takes the rows, and a function that is called in the same transaction.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        under_way: list[Future[None]] = []

        def write(tables: Iterable[Rows], *then: Callable[[], None]) -> None:
            taken = [*(rows.take() for rows in tables), *then]
            while under_way:
                under_way.pop().result()
            under_way.append(thread.submit(_write, taken))

        yield write
        while under_way:
            under_way.pop().result()
        thread.submit(connections.close_all).result()


def _write(taken: list[Callable[[], None]]) -> None:
    with transaction.atomic():
        for write in taken:
            write()


class _Conversations:
    """Adds conversations with their ciphertexts to rows, which `rows_of` makes. They are numbered from 1 on."""

    def __init__(self, brands: dict[str, SeededBrand], wanted: Wanted, rows_of: Callable[..., Rows] = Rows) -> None:
        self._brands, self._wanted, self._now = brands, wanted, timezone.now()
        completed = {"status": ChallengeStatus.COMPLETED, "same_person_check": "completion_code"}
        self.conversations = rows_of(Conversation)
        self.challenges = rows_of(Challenge, **completed)
        self.tokens = rows_of(AccessToken, token_type="Bearer", scope=cast.SCOPE, assurance="completion_code")
        self.events = rows_of(
            AuditEvent, kind=ConversationEvent.TOKEN_ISSUED, outcome="completion_code", actor="bot:bench"
        )

    def tables(self) -> tuple[Rows, ...]:
        return self.conversations, self.challenges, self.tokens, self.events

    def add(self, number: int, **of_event: Any) -> None:
        """Add the rows of a conversation. `of_event`: further columns of its audit event."""
        share_old, now = self._wanted.share_old, self._now
        ended = not cast.has_live_token(number, self._wanted.share_ended)
        begun = now - LONG_AGO if ended else now - timedelta(minutes=5)
        seeded, conversation_uuid, token_uuid = self._brands[cast.brand_of(number)], uuid4(), uuid4()
        chat = self.conversations.add(
            id=number,
            uuid=conversation_uuid,
            brand_id=seeded.brand.pk,
            external_id=cast.conversation_id(number),
            created_at=begun,
        )
        challenge = number + (number // share_old if share_old else 0)
        if share_old and number % share_old == 0:
            self._add_unanswered(challenge - 1, seeded, chat, conversation_uuid)
        self.challenges.add(
            id=challenge,
            **_challenge_values(seeded, chat, conversation_uuid, cast.challenge_uuid(number)),
            issued_at=begun,
            started_at=begun,
            completed_at=begun,
            expires_at=begun + timedelta(hours=1),
        )
        self.tokens.add(
            id=number,
            uuid=token_uuid,
            conversation_id=chat,
            authorization_server_id=seeded.server.pk,
            challenge_id=challenge,
            ciphertext=None if ended else _encrypted_token(number, seeded, conversation_uuid, token_uuid),
            issued_at=begun,
            confirmed_at=begun,
            expires_at=begun + (timedelta(hours=20) if ended else _TOKEN_LIFETIME),
            ended_at=begun + timedelta(hours=20) if ended else None,
            end_reason="expired" if ended else "",
        )
        event = {"uuid": uuid4(), "at": begun, "brand_uuid": seeded.brand.uuid, "conversation_uuid": conversation_uuid}
        self.events.add(**event, **of_event)

    def _add_unanswered(self, number: int, seeded: SeededBrand, chat: int, conversation: UUID) -> None:
        """Add an old challenge that nobody answered."""
        values = _challenge_values(seeded, chat, conversation, uuid4()) | {"status": ChallengeStatus.EXPIRED}
        issued, expired = self._now - LONG_AGO, self._now - LONG_AGO + timedelta(hours=1)
        self.challenges.add(id=number, **values, issued_at=issued, expires_at=expired, ended_at=expired)


def _seed_conversations(brands: dict[str, SeededBrand], wanted: Wanted) -> None:
    """Seed what is missing: an interrupted seeding has written whole chunks."""
    if wanted.copied:
        _seed_copied(brands, wanted)
    adding = _Conversations(brands, wanted)
    with _writing_meanwhile() as write:
        for number in range(Conversation.objects.count() + 1, wanted.conversations + 1):
            adding.add(number)
            if number % _CHUNK == 0 or number == wanted.conversations:
                write(adding.tables())


def _seed_copied(brands: dict[str, SeededBrand], wanted: Wanted) -> None:
    """Seed all whole stretches. Raises `ValueError` if another way of seeding was interrupted."""
    whole, written = wanted.conversations // STRETCH * STRETCH, Conversation.objects.count()
    if written % STRETCH and written < whole:
        raise ValueError(f"there are {written} conversations, which are no whole stretches of {STRETCH}")
    copies = CopiedRows(wanted.share_old)
    with built_afterwards(copies.names), _writing_meanwhile() as write:
        adding = _Conversations(brands, wanted, copies.rows)
        for first in range(written + 1, whole + 1, _STRETCHES):
            last = min(first + _STRETCHES - 1, whole)
            for number in range(first, last + 1):
                if cast.original_of(number, whole, copied=True) == number:
                    adding.add(number, id=number)
            write(adding.tables(), partial(copies.write, first, last))
    copies.drop()


def _challenge_values(seeded: SeededBrand, chat: int, conversation: UUID, challenge: UUID) -> dict[str, Any]:
    link_token = random_token(20)
    place = AssociatedData(
        "conversations_challenge", "link_token_ciphertext", challenge, seeded.brand.uuid, conversation
    )
    return {
        "uuid": challenge,
        "conversation_id": chat,
        "authorization_server_id": seeded.server.pk,
        "scope": cast.SCOPE,
        "link_token_digest": key_ring().digest(LINK_TOKEN_PURPOSE, link_token),
        "link_token_ciphertext": key_ring().encrypt(Secret(link_token), place),
    }


def _encrypted_token(number: int, seeded: SeededBrand, conversation: UUID, row: UUID) -> bytes:
    place = AssociatedData("conversations_accesstoken", "ciphertext", row, seeded.brand.uuid, conversation)
    return key_ring().encrypt(Secret(cast.access_token(number)), place)


def _settle() -> None:
    """Update the planner's statistics and finish the database's work before the measurement."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")
        else:
            cursor.execute("ANALYZE")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


if __name__ == "__main__":
    main()
