"""Unfinished sign-ins: challenges with a usable link, and authorization requests that wait for the callback.

Rows as `issue_challenge` and `begin_authorization_request` write them, in bulk. A value that these would not recognise
shows: what came of the callbacks is counted in the database after each round.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.utils import timezone

from bench import cast
from bench.rows import Rows, write_all
from brands.models import AuthorizationServer
from conversations.flow.new_challenges import LINK_TOKEN_PURPOSE
from conversations.models import COOKIE_PREFIX, AuthorizationRequest, Challenge, ChallengeStatus, Conversation
from infrastructure.crypto import AssociatedData, Secret, key_ring, random_token


def seed_links(server: AuthorizationServer, count: int) -> list[str]:
    """Seed issued challenges; return their link tokens."""
    conversations, challenges = Rows(Conversation), Rows(Challenge, same_person_check="completion_code")
    links = []
    for _ in range(count):
        chat, conversation = _add_conversation(conversations, server)
        link_token, _, _ = _add_challenge(challenges, server, chat, conversation, status=ChallengeStatus.ISSUED)
        links.append(link_token)
    write_all((conversations, challenges))
    return links


def seed_callbacks(server: AuthorizationServer, count: int) -> list[dict[str, str]]:
    """Seed authorization requests that wait for their callback; return what each browser comes back with."""
    conversations, challenges = Rows(Conversation), Rows(Challenge, same_person_check="completion_code")
    authorization_requests = Rows(AuthorizationRequest, configuration=server.configuration(cast.SCOPE).to_json())
    callbacks = []
    for _ in range(count):
        chat, conversation = _add_conversation(conversations, server)
        _, challenge, _ = _add_challenge(challenges, server, chat, conversation, status=ChallengeStatus.STARTED)
        callbacks.append(_add_authorization_request(authorization_requests, server, challenge, conversation))
    write_all((conversations, challenges, authorization_requests))
    return callbacks


def _add_conversation(conversations: Rows, server: AuthorizationServer) -> tuple[int, UUID]:
    conversation = uuid4()
    values = {"uuid": conversation, "brand_id": server.brand_id, "external_id": f"web:{conversation.hex}"}
    return conversations.add(**values), conversation


def _add_challenge(
    challenges: Rows, server: AuthorizationServer, chat: int, conversation: UUID, *, status: ChallengeStatus
) -> tuple[str, int, UUID]:
    link_token, row, now = random_token(20), uuid4(), timezone.now()
    place = AssociatedData("conversations_challenge", "link_token_ciphertext", row, server.brand.uuid, conversation)
    number = challenges.add(
        uuid=row,
        conversation_id=chat,
        authorization_server_id=server.pk,
        status=status,
        scope=cast.SCOPE,
        link_token_digest=key_ring().digest(LINK_TOKEN_PURPOSE, link_token),
        link_token_ciphertext=key_ring().encrypt(Secret(link_token), place),
        issued_at=now,
        started_at=now if status == ChallengeStatus.STARTED else None,
        expires_at=now + timedelta(hours=1),
    )
    return link_token, number, row


def _add_authorization_request(
    authorization_requests: Rows, server: AuthorizationServer, challenge: int, conversation: UUID
) -> dict[str, str]:
    row, ring = uuid4(), key_ring()
    state, cookie, nonce = random_token(), random_token(), random_token()
    place = AssociatedData(
        "conversations_authorizationrequest", "code_verifier_ciphertext", row, server.brand.uuid, conversation
    )
    authorization_requests.add(
        uuid=row,
        challenge_id=challenge,
        state_digest=ring.digest("state", state),
        cookie_digest=ring.digest("attempt-cookie", row.bytes, cookie),
        nonce_digest=ring.digest("nonce", row.bytes, nonce),
        code_verifier_ciphertext=ring.encrypt(Secret(random_token(48)), place),
    )
    values: dict[str, Any] = {"path": f"/callback/{server.callback_id}", "state": state, "iss": server.issuer}
    return values | {"cookie": f"{COOKIE_PREFIX}{row.hex}={cookie}"}
