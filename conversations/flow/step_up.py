"""Step-up authentication (RFC 9470): keep what an API demanded of a sign-in until a challenge has brought it.

The demand is kept with the token that was not good enough, and ends with it. No call of a bot's names one: a bot could
neither lower what the API demands nor make consumers sign in in a way that no API has asked for (P32).
"""

from datetime import datetime
from typing import NoReturn

from brands.models import AuthorizationServer
from conversations.flow.authorization_status import authorization_of
from conversations.flow.errors import (
    ConversationClosed,
    StepUpRequired,
    StepUpUnavailable,
    TokenReplaced,
    WrongAuthorizationStatus,
)
from conversations.flow.transitions import end_expired, locked_conversation
from conversations.models import AccessToken, Challenge, Conversation
from oauth_client.step_up import NO_DEMAND, AuthenticationDemand


def refuse_weak_sign_in(
    access_token: AccessToken, server: AuthorizationServer, demand: AuthenticationDemand | None, now: datetime
) -> NoReturn:
    """Keep the demand for the next challenge. Always raises what the bot has to do now.

    `demand` is None if it could not be read. Raises `StepUpRequired`, `StepUpUnavailable`; and `TokenReplaced`,
    `WrongAuthorizationStatus` or `ConversationClosed` if the token that was presented is not the live one any more.
    """
    if demand is None or "openid" not in server.scope.split():
        raise StepUpUnavailable(is_unreadable=demand is None)
    with locked_conversation(access_token.conversation_id) as conversation:
        if conversation.closed_at is not None:
            raise ConversationClosed(conversation)
        end_expired(conversation, now)
        found = authorization_of(conversation, server, now)
        if found.access_token is None:
            raise WrongAuthorizationStatus(found)
        if found.access_token != access_token:
            raise TokenReplaced
        live = AccessToken.objects.filter(pk=access_token.pk, ended_at=None)
        live.update(demanded_acr_values=demand.acr_values, demanded_max_age=demand.max_age)
        Conversation.objects.filter(pk=conversation.pk).update(step_up_demanded_at=now)
    raise StepUpRequired(demand)


def standing_demand(conversation: Conversation, server: AuthorizationServer) -> AuthenticationDemand:
    """Return what an API demanded of the conversation's live token at this server, if it was not good enough.

    Call it under the conversation's lock. Without a demand in the conversation it costs no query.
    """
    if conversation.step_up_demanded_at is None or "openid" not in server.scope.split():
        return NO_DEMAND
    rows = AccessToken.objects.live().filter(conversation=conversation, authorization_server=server)
    found = rows.values_list("demanded_acr_values", "demanded_max_age").first()
    return AuthenticationDemand(*found) if found else NO_DEMAND


def drop_demand(challenge: Challenge) -> None:
    """Forget the demand that a challenge could not bring. The API makes it again when the action is tried again.

    Otherwise a consumer without a second factor could not even do again what the API allows without one.
    """
    live = AccessToken.objects.live().filter(
        conversation=challenge.conversation_id, authorization_server=challenge.authorization_server_id
    )
    same = live.filter(demanded_acr_values=challenge.acr_values, demanded_max_age=challenge.max_age)
    same.update(demanded_acr_values=NO_DEMAND.acr_values, demanded_max_age=NO_DEMAND.max_age)
