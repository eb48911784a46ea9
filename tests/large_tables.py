"""Tables so large that the query planner's choice matters: 20,000 chats and their rows, in two seconds.

Nothing in these rows can be decrypted or recognised. Their values are distributed as in a real installation.
"""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from django.db import connection
from django.utils import timezone

from bench.rows import Rows, write_all
from brands.models import AuthorizationServer, BotKey, Brand, WebhookEndpoint
from conversations.flow.events import ConversationEvent
from conversations.models import (
    AccessToken,
    ApiCallCount,
    AuditEvent,
    AuthorizationRequest,
    Challenge,
    ChallengeStatus,
    Conversation,
    HourlyCount,
    IdempotencyKey,
    Revocation,
    TokenReadCount,
    WebhookDelivery,
)
from conversations.statistics import STEPS

CHATS: Final = 20_000
# One chat of this many: ended long ago, has an old unanswered challenge, waits for a sign-in, was closed.
LEFT, UNANSWERED, WAITING, CLOSED = 4, 20, 50, 30


def fill(servers: list[AuthorizationServer]) -> None:
    """Fill the tables. The first server has most of the chats, like a large brand."""
    now = timezone.now()
    conversations, challenges, tokens = Rows(Conversation), Rows(Challenge), Rows(AccessToken)
    authorization_requests = Rows(AuthorizationRequest, configuration={}, created_at=now)
    events = Rows(AuditEvent, kind=ConversationEvent.TOKEN_ISSUED, actor="system")
    for number in range(CHATS):
        server = servers[0] if number % 5 else servers[number // 5 % len(servers)]
        begun = now - timedelta(days=60 if number % LEFT == 0 else 0, minutes=10)
        chat = conversations.add(
            uuid=uuid4(),
            brand_id=server.brand_id,
            external_id=f"web:{number}",
            created_at=begun,
            closed_at=now if number % CLOSED == 0 else None,
        )
        statuses = [ChallengeStatus.COMPLETED]
        statuses += [ChallengeStatus.EXPIRED] if number % UNANSWERED == 0 else []
        statuses += [ChallengeStatus.STARTED] if number % WAITING == 1 else []
        for status in statuses:
            challenge = challenges.add(
                uuid=uuid4(),
                conversation_id=chat,
                authorization_server_id=server.pk,
                status=status,
                link_token_digest=uuid4().bytes,
                issued_at=begun,
                expires_at=begun + timedelta(hours=1),
            )
            authorization_requests.add(
                uuid=uuid4(), challenge_id=challenge, state_digest=uuid4().bytes, cookie_digest=b"c"
            )
            if status == ChallengeStatus.COMPLETED:
                tokens.add(
                    uuid=uuid4(),
                    conversation_id=chat,
                    authorization_server_id=server.pk,
                    challenge_id=challenge,
                    ciphertext=None if number % LEFT == 0 else b"c" * 1_500,
                    confirmed_at=begun,
                    expires_at=begun + timedelta(hours=20),
                    ended_at=begun if number % LEFT == 0 else None,
                    end_reason="rejected" if number % LEFT == 0 else "",
                )
        events.add(uuid=uuid4(), at=begun, brand_uuid=server.brand.uuid, conversation_uuid=uuid4())
    write_all((conversations, challenges, tokens, authorization_requests, events))
    _fill_outbox(servers[0])
    _fill_what_is_kept_for_a_while(servers[-1])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _fill_outbox(server: AuthorizationServer) -> None:
    """Fill the tables that the worker queries every second: revocations that are not due, and rate counters."""
    now = timezone.now()
    chat = Conversation.objects.order_by("pk")[:1].get()
    values: dict[str, Any] = {"conversation_id": chat.pk, "authorization_server_id": server.pk, "ciphertext": b"c"}
    revocations = Rows(Revocation, **values, created_at=now, next_attempt_at=now + timedelta(minutes=1))
    for _ in range(CHATS // 4):
        revocations.add(uuid=uuid4(), access_token_uuid=uuid4())
    revocations.write()
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO infrastructure_ratecounter (key, times, expires_at)
               SELECT 'counter:' || number, 1, now() + interval '1 minute' FROM generate_series(1, %s) AS number""",
            [CHATS],
        )


def _fill_what_is_kept_for_a_while(server: AuthorizationServer) -> None:
    """Fill the tables that the sweep empties by age and closing empties by chat. Most rows are young."""
    now = timezone.now()
    endpoint = WebhookEndpoint.objects.create(brand=server.brand, url="https://hooks.example/", secret_ciphertext=b"c")
    key = BotKey.objects.create(brand=server.brand, label="reads", public_id="0" * 16, digest=b"d")
    keys, reads = Rows(IdempotencyKey, request_digest=b"d"), Rows(TokenReadCount, bot_key_id=key.pk, times=1)
    calls = Rows(ApiCallCount, bot_key_id=key.pk, operation="orders.list", outcome="2xx", times=1, milliseconds=9)
    told = Rows(WebhookDelivery, event="challenge.issued", endpoint_id=endpoint.pk, give_up_at=now)
    for number, (challenge, chat) in enumerate(Challenge.objects.values_list("pk", "conversation")[:CHATS]):
        at = now - timedelta(seconds=number)
        keys.add(brand_id=server.brand_id, digest=uuid4().bytes, challenge_id=challenge, created_at=at)
        told.add(uuid=uuid4(), event_uuid=uuid4(), conversation_id=chat, created_at=at, delivered_at=at)
        reads.add(hour=at, purpose=f"purpose {number}")
        calls.add(hour=at, purpose=f"purpose {number}")
    write_all((keys, told, reads, calls))
    _fill_counts(now)


def _fill_counts(now: datetime) -> None:
    """Fill thirty days of each brand's counts."""
    counts = Rows(HourlyCount, measure=HourlyCount.Measure.STEP, times=1)
    for brand in Brand.objects.all():
        for hours in range(30 * 24):
            for step in STEPS:
                counts.add(brand_id=brand.pk, hour=now - timedelta(hours=hours), detail=step)
    counts.write()
