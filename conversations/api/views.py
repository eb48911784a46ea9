"""The calls of the bot API."""

from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from django.http import HttpResponse
from django.utils import timezone, translation
from django.utils.translation import gettext

from brands.models import BotKey
from conversations.api.calls import (
    Answer,
    AuthorizeBody,
    Call,
    ChallengeBody,
    CompletionBody,
    ExpectedClaims,
    as_call,
    as_nothing,
    as_token_read,
    bot_call,
    idempotent_request,
    named_session,
    refuse_missing_scopes,
    seconds,
)
from conversations.api.conditional import conditional_answer, entity_tag, matches_entity_tag
from conversations.api.lookups import (
    challenge_of,
    checked_conversation_id,
    conversation_of,
    existing_conversation,
    key_and_servers,
    open_conversation_of,
    server_of,
    server_to_sign_out_of,
)
from conversations.api.token_read import purpose_of, token_answer
from conversations.api.waiting import MAX_WAIT_SECONDS, can_change, retry_after, wait_for_change
from conversations.flow.authorization_status import (
    authorization_of,
    challenge_representation,
    conversation_representation,
)
from conversations.flow.challenges import WantedChallenge, issue_challenge, link_of, withdraw_challenge
from conversations.flow.completion import complete, complete_with_handle
from conversations.flow.errors import (
    ConversationClosed,
    FlowError,
    TokenIsSenderConstrained,
    refuse_other_session,
)
from conversations.flow.expectations import normalised_claims
from conversations.flow.readable_tokens import usable_token
from conversations.flow.termination import close_conversation, end_live_token
from conversations.models import OPEN_STATUSES, AccessToken, Challenge, ChallengeStatus, Conversation
from infrastructure.crypto import Secret
from web.errors import Problem, json_response
from web.pages import language_of_chat

CREATE, READ, TOKEN = BotKey.Scope.CHALLENGE_CREATE, BotKey.Scope.CHALLENGE_READ, BotKey.Scope.TOKEN_READ


@bot_call(CREATE, find_key=key_and_servers)
def create_challenge(call: Call, conversation_id: str) -> Answer:
    """`POST /conversations/{conversation_id}/challenges`, step by step.

    What begins a new chat mostly does not come here: `fast_create` answers it before Django's handler.
    """
    call.query()
    body = call.body(ChallengeBody)
    request = idempotent_request(call.request.headers.get("Idempotency-Key"), body)
    checked_conversation_id(conversation_id)
    try:
        wanted = wanted_challenge(call, body)
    except (Problem, FlowError):
        # If the conversation is closed, say that rather than what is wrong with the body.
        conversation_unless_closed(call, conversation_id, named_session(body.session))
        raise
    now = timezone.now()
    challenge, created = issue_challenge(
        call.bot_key.brand,
        conversation_id,
        wanted,
        actor=call.actor,
        now=now,
        request=request,
    )
    return issued(challenge, now, status=201 if created else 200)


@bot_call(READ)
def read_challenge(call: Call, challenge_id: str) -> Answer:
    """`GET /challenges/{challenge_id}`; with `wait`, answer when the challenge changes, or after `wait` seconds.

    What may be read mostly does not come here: `fast_challenge_read` answers it before Django's handler.
    """
    query = call.query("wait", "session")
    wait, session = _wait(query.get("wait", "0")), named_session(query.get("session"))
    challenge, now = challenge_of(call, challenge_id, session), timezone.now()
    representation = challenge_representation(challenge, now)
    if not wait or not can_change(challenge, now) or _has_missed_change(call, representation):
        return conditional_answer(call.request, representation)
    if not wait_for_change(challenge, challenge.conversation.brand_id, wait):
        return conditional_answer(call.request, representation, retry_after())
    return _read_challenge_again(call.request, challenge_id=challenge_id)


def _has_missed_change(call: Call, representation: dict[str, Any]) -> bool:
    """Whether the challenge has changed since the version whose ETag the bot sent.

    Then the poll is answered at once.
    """
    named = call.request.META.get("HTTP_IF_NONE_MATCH")
    return named is not None and not matches_entity_tag(named, entity_tag(representation))


@bot_call(READ, counted=as_nothing)
def _read_challenge_again(call: Call, challenge_id: str) -> Answer:
    """Answer after a wait. `bot_call` authenticates again and makes a new `Call`: the key may have been revoked."""
    return conditional_answer(call.request, challenge_representation(challenge_of(call, challenge_id), timezone.now()))


@bot_call(CREATE)
def withdraw(call: Call, challenge_id: str) -> Answer:
    """`DELETE /challenges/{challenge_id}`. A challenge that has ended stays as it is; the answer says how it ended."""
    session = named_session(call.query("session").get("session"))
    withdraw_challenge(challenge_of(call, challenge_id, session), actor=call.actor, now=timezone.now())
    return 200, challenge_representation(challenge_of(call, challenge_id), timezone.now())


@bot_call(CREATE)
def post_completion(call: Call, conversation_id: str) -> Answer:
    """`POST /conversations/{conversation_id}/completion`.

    A handle, which the chat's own page passes to its bot, names its challenge. A code needs the authorization server.
    """
    call.query()
    body = call.body(CompletionBody)
    # A wrong code uses up a try, and a right one replaces a token. A handle names its challenge by itself.
    session, ends = named_session(body.session), body.handle is None
    conversation = open_conversation_of(call, conversation_id, session, ends=ends)
    if body.handle is not None:
        server = complete_with_handle(conversation, body.handle, actor=call.actor, now=timezone.now())
    else:
        server = server_of(call.bot_key.brand, body.authorization_server)
        complete(conversation, server, body.code or "", actor=call.actor, now=timezone.now())
    now = timezone.now()
    return 200, {
        "session": conversation.session,
        **conversation_representation(server.key, authorization_of(conversation, server, now), now),
    }


@bot_call(READ)
def read_conversation(call: Call, conversation_id: str) -> Answer:
    """`GET /conversations/{conversation_id}`: its authorization status at each server; never a token."""
    query = call.query("authorization_server", "session")
    key = query.get("authorization_server")
    conversation = conversation_of(call, conversation_id, named_session(query.get("session")))
    brand = call.bot_key.brand
    servers = [server_of(brand, key)] if key else list(brand.authorization_servers.active())
    now = timezone.now()
    representation = {
        "conversation_id": conversation.external_id,
        "session": conversation.session,
        "closed_at": conversation.closed_at,
        "authorization_servers": [
            conversation_representation(server.key, authorization_of(conversation, server, now), now)
            for server in servers
        ],
    }
    return conditional_answer(call.request, representation)


@bot_call(CREATE, TOKEN, counted=as_token_read)
def authorize(call: Call, conversation_id: str) -> Answer:
    """`POST /conversations/{conversation_id}/authorize`.

    Answers with a token that lives at least `min_ttl` seconds, or else with the open challenge. If there is none, it
    creates one.
    """
    call.query()
    body = call.body(AuthorizeBody)
    purpose = purpose_of(call)
    conversation = conversation_unless_closed(call, conversation_id, named_session(body.session))
    wanted = wanted_challenge(call, body)
    now = timezone.now()
    access_token = usable_token(conversation, wanted, int(body.min_ttl), now) if conversation else None
    if access_token is not None:
        return 200, token_answer(call, access_token, purpose, now)
    if wanted.server.dpop_bound_access_tokens:
        # Nobody signs in for a token that this call could never answer with.
        raise TokenIsSenderConstrained
    as_call(call.bot_key)
    challenge, _ = issue_challenge(call.bot_key.brand, conversation_id, wanted, actor=call.actor, now=now)
    return issued(challenge, now, status=202)


@bot_call()
def end_token(call: Call, conversation_id: str) -> Answer:
    """`DELETE /conversations/{conversation_id}/token`. Reason `rejected`: the brand's API refused the token.

    A key that calls the brand's API, and cannot read tokens, may end them, too: the consumer signs out in its chat.
    """
    if BotKey.Scope.API_CALL not in call.bot_key.scopes:
        refuse_missing_scopes(call.bot_key, [TOKEN])
    query = call.query("authorization_server", "reason", "session")
    reason = query.get("reason", "rejected")
    if reason not in {"rejected", "signed_out"}:
        raise Problem(422, "invalid_reason", "The reason must be rejected (by the brand's API) or signed_out.")
    session = named_session(query.get("session"))
    conversation = open_conversation_of(call, conversation_id, session, ends=True)
    server = server_to_sign_out_of(conversation, query.get("authorization_server"))
    ended = end_live_token(conversation, server, AccessToken.EndReason(reason), actor=call.actor, now=timezone.now())
    now = timezone.now()
    return 200, {
        "conversation_id": conversation.external_id,
        "session": conversation.session,
        "ended_at": ended.ended_at,
        "end_reason": ended.end_reason,
        **conversation_representation(server.key, authorization_of(conversation, server, now), now),
    }


@bot_call(CREATE)
def close(call: Call, conversation_id: str) -> Answer:
    """`DELETE /conversations/{conversation_id}`: close it and erase its data.

    A repeated call gets the same receipt until another session has begun.
    """
    session = named_session(call.query("session").get("session"))
    conversation = conversation_of(call, conversation_id, session, ends=True)
    receipt = close_conversation(conversation, actor=call.actor, now=timezone.now())
    return 200, {
        "conversation_id": conversation.external_id,
        "session": conversation.session,
        "status": "closed",
        "closed_at": receipt.closed_at,
        "access_tokens_erased": receipt.access_tokens_erased,
        "challenges_withdrawn": receipt.challenges_withdrawn,
    }


def conversation_unless_closed(call: Call, conversation_id: str, session: int | None) -> Conversation | None:
    """Find the open session; None if a challenge would begin it. Raises `ConversationClosed`, `Problem`.

    Raises `SessionMismatch` if another session than the named one is open.
    """
    conversation = existing_conversation(call, conversation_id)
    if conversation is None:
        return None
    if conversation.closed_at is not None:
        if not conversation.brand.reuses_conversation_ids or session == conversation.session:
            raise ConversationClosed(conversation)
        return None
    refuse_other_session(conversation, session)
    return conversation


def wanted_challenge(call: Call, body: ChallengeBody) -> WantedChallenge:
    """Build the wanted challenge from the body.

    Raises what `server_of`, `wishes_in` and `WantedChallenge.judged` raise.
    """
    server = server_of(call.bot_key.brand, body.authorization_server, call.beside)
    wanted = WantedChallenge(server=server, bot_key=call.bot_key, **wishes_in(body))
    wanted.judged()
    return wanted


def wishes_in(body: ChallengeBody) -> dict[str, Any]:
    """Return the fields of `Wishes` for a body. Raises what `normalised_claims` and `named_session` raise."""
    return {
        "same_person_check": body.same_person_check,
        "expected_subject": Secret(body.expected_subject) if body.expected_subject is not None else None,
        "expected_claims": normalised_claims(_named(body.expected_claims)) if body.expected_claims else {},
        "scope": body.scope,
        "purpose": body.purpose if isinstance(body.purpose, str) else body.purpose_in_chat(),
        "purpose_by_locale": body.purpose if isinstance(body.purpose, dict) else {},
        "locale": body.locale,
        "context": Secret(body.context) if body.context is not None else None,
        "replace": body.replace,
        "session": named_session(body.session),
    }


def _named(expected: ExpectedClaims) -> dict[str, str]:
    return {name: value for name, value in msgspec.structs.asdict(expected).items() if value is not None}


def issued(challenge: Challenge, now: datetime, *, status: int) -> HttpResponse:
    """Answer with the challenge, its link and its entity tag. A long poll that sends this tag misses no change."""
    representation = challenge_representation(challenge, now)
    # A repeated Idempotency-Key may find a challenge that has ended. Its link no longer works.
    link: dict[str, Any] = {"url": None, "message": None}
    if challenge.status_at(now) in OPEN_STATUSES:
        is_signed_in = challenge.status == ChallengeStatus.CONFIRMATION_NEEDED
        confirmed_by = challenge.same_person_check if is_signed_in else ""
        link = link_members(link_of(challenge), challenge.conversation.brand.name, challenge.locale, confirmed_by)
    return json_response(representation | link, status=status, headers={"ETag": entity_tag(representation)})


def link_members(url: str, brand_name: str, locale: str, confirmed_by: str = "") -> dict[str, Any]:
    """Return the link, and the sentence for the chat in the chat's language: sign in, or after it, finish it.

    `confirmed_by` is the check that is left; empty before the sign-in.
    """
    sentence = _sentence(language_of_chat(locale), confirmed_by)
    return {"url": url, "message": sentence % {"brand": brand_name, "url": url}}


@lru_cache(maxsize=64)
def _sentence(language: str, confirmed_by: str) -> str:
    """Return the sentence of `link_members` with its placeholders."""
    with translation.override(language):
        if confirmed_by == "chat_page":
            return gettext("Please finish the sign-in at %(brand)s: go back to the chat from the sign-in page.")
        if confirmed_by:
            return gettext(
                "Please finish the sign-in at %(brand)s: copy the code shown on the sign-in page into this chat."
            )
        return gettext("Please sign in at %(brand)s to continue: %(url)s")


def _wait(text: str) -> int:
    if (wait := seconds(text, MAX_WAIT_SECONDS)) is None:
        raise Problem(422, "invalid_wait", f"wait is a number of seconds from 0 to {MAX_WAIT_SECONDS}.")
    return wait
