"""Seed conversations in every status that a bot can meet, with the product's own flow.

Generated calls alone would never make a consumer sign in, so no token could be read. Prints the ids of the
conversations and challenges as JSON.
"""

import json
import os
import sys
from datetime import datetime, timedelta
from typing import Any

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "delegation_site.settings"
django.setup()

from django.utils import timezone  # noqa: E402  Django has to be set up first

from brands.models import AuthorizationServer, Brand  # noqa: E402
from conversations.flow.authorization_requests import begin_authorization_request  # noqa: E402
from conversations.flow.challenges import WantedChallenge, issue_challenge, withdraw_challenge  # noqa: E402
from conversations.flow.outcomes import confirm, store_result  # noqa: E402
from conversations.flow.termination import close_conversation, end_live_token  # noqa: E402
from conversations.models import AccessToken, Challenge  # noqa: E402
from infrastructure.crypto import Secret  # noqa: E402
from oauth_client import Account, TokenResponse  # noqa: E402

ACTOR = "operator"
# Enough of each for a long run, whose calls close conversations and end tokens.
TIMES = 12


def main() -> None:
    """Create the conversations and print their ids."""
    brand = Brand.objects.get(slug="acme")
    server = AuthorizationServer.objects.select_related("brand").get(brand=brand)
    now = timezone.now()
    for number in range(TIMES):
        for state in (issued, started, pending, authorized, expired, rejected, withdrawn, closed):
            state(server, f"seed:{state.__name__}:{number}", now)
    challenges = [str(uuid) for uuid in Challenge.objects.values_list("uuid", flat=True)]
    chats = list(brand.conversations.values_list("external_id", flat=True))
    sys.stdout.write(json.dumps({"chats": chats, "challenges": challenges}))


def issued(server: AuthorizationServer, chat: str, now: datetime) -> Challenge:
    wanted = WantedChallenge(server=server, purpose="to look up your order", context=Secret("order 4711"))
    return issue_challenge(server.brand, chat, wanted, actor=ACTOR, now=now)[0]


def started(server: AuthorizationServer, chat: str, now: datetime) -> Any:
    return begin_authorization_request(issued(server, chat, now), now)


def pending(server: AuthorizationServer, chat: str, now: datetime, lifetime: int = 3600) -> AccessToken:
    begun = started(server, chat, now)
    scope = begun.authorization_request.challenge.scope
    expires_at = now + timedelta(seconds=lifetime)
    answer = TokenResponse(Secret(f"token of {chat}"), scope, False, expires_at, False, None)
    store_result(begun.authorization_request, begun.cookie.reveal(), answer, Account(), now)
    return AccessToken.objects.get(challenge=begun.authorization_request.challenge)


def authorized(server: AuthorizationServer, chat: str, now: datetime, lifetime: int = 3600) -> AccessToken:
    access_token = pending(server, chat, now, lifetime)
    confirm(access_token.challenge, access_token, now=now, actor=ACTOR)
    return access_token


def expired(server: AuthorizationServer, chat: str, now: datetime) -> None:
    authorized(server, chat, now - timedelta(hours=2), lifetime=600)


def rejected(server: AuthorizationServer, chat: str, now: datetime) -> None:
    conversation = authorized(server, chat, now).conversation
    end_live_token(conversation, server, AccessToken.EndReason.REJECTED, actor=ACTOR, now=now)


def withdrawn(server: AuthorizationServer, chat: str, now: datetime) -> None:
    withdraw_challenge(issued(server, chat, now), actor=ACTOR, now=now)


def closed(server: AuthorizationServer, chat: str, now: datetime) -> None:
    close_conversation(authorized(server, chat, now).conversation, actor=ACTOR, now=now)


if __name__ == "__main__":
    main()
