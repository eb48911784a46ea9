"""Find the rows that a call names. Every query is limited to the caller's brand: other brands' objects are a 404."""

import re
from datetime import datetime
from itertools import chain, islice
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from django.db import models
from django.db.models import Exists, FilteredRelation, OuterRef, Q

from brands.authentication import PresentedKey
from brands.models import AuthorizationServer, BotKey, Brand, Operation
from conversations.api.calls import Call
from conversations.flow.errors import ConversationClosed, refuse_other_session, refuse_unnamed_session
from conversations.models import AccessToken, Challenge, Conversation
from infrastructure.compiled import CompiledQuery, CompiledRows, Parameter, loaded
from web.errors import Problem

# Not "." and "..": HTTP clients take them out of a path (RFC 3986 section 5.2.4), and `DELETE .../conversations/..`
# would mean something else. The pattern of openapi.yaml says the same without a lookahead, which some validators lack.
_CONVERSATION_ID: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~:@|=;,+!$*()-]{1,200}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_BRAND: Final = Parameter("brand", models.BigIntegerField())
_NEWEST_CONVERSATION: Final = CompiledQuery(
    lambda: (
        Conversation.objects.filter(brand_id=_BRAND, external_id=Parameter("external_id", models.CharField()))
        .select_related("brand")
        .order_by("-session")[:1]
    )
)
_SERVERS: Final = CompiledQuery(
    lambda: AuthorizationServer.objects.filter(brand_id=_BRAND).select_related("brand").order_by("key")
)
_ACTIVE_SERVERS: Final = CompiledQuery(
    lambda: AuthorizationServer.objects.active().filter(brand_id=_BRAND).select_related("brand").order_by("key")
)
_CHALLENGES: Final = CompiledQuery(
    lambda: (
        Challenge.objects.filter(conversation__brand_id=_BRAND, uuid=Parameter("uuid", models.UUIDField()))
        .select_related("conversation__brand", "authorization_server")
        .order_by()
    )
)
_CALLABLE: Final = {"is_active": True, "api__is_active": True, "api__authorization_server__is_active": True}
# To decode them takes longer than the query. A column that is missing here is read when it is asked for.
_UNREAD_OF_SERVER: Final = tuple(
    f"api__authorization_server__{field.name}"
    for field in AuthorizationServer._meta.concrete_fields
    if isinstance(field, models.JSONField | models.BinaryField)
)
_OPERATIONS: Final = CompiledQuery(
    lambda: (
        Operation.objects.filter(brand_id=_BRAND, name=Parameter("name", models.CharField()), **_CALLABLE)
        .select_related("brand", "api__authorization_server")
        .defer(*_UNREAD_OF_SERVER)
        .order_by()
    )
)
_SERVER: Final = "active_server"
# What creating a challenge reads of each row. Another column would be read when it is asked for, by a query of its own.
_COLUMNS: Final = {
    BotKey: (
        *("id", "brand_id", "public_id", "digest", "scopes", "same_person_checks", "last_used_at", "calls_per_minute"),
    ),
    Brand: ("id", "uuid", "name"),
    AuthorizationServer: (
        *("id", "brand_id", "key", "scope", "required_scope", "same_person_checks", "challenge_lifetime"),
    ),
}
_PARTS: Final = {
    model: [f"{prefix}{name}" for name in _COLUMNS[model]]
    for prefix, model in (("", BotKey), ("brand__", Brand), (f"{_SERVER}__", AuthorizationServer))
}
_KEY_AND_SERVERS: Final = CompiledRows(
    lambda: (
        BotKey.objects.live(Parameter("now", models.DateTimeField()))
        .filter(public_id=Parameter("public_id", models.CharField()))
        .annotate(
            **{
                _SERVER: FilteredRelation(
                    "brand__authorization_servers", condition=Q(brand__authorization_servers__is_active=True)
                )
            }
        )
        .order_by(f"{_SERVER}__key")
        .values_list(*chain.from_iterable(_PARTS.values()))
    )
)


class Keyed(Protocol):
    """An authorization server, or the row of one."""

    @property
    def key(self) -> str: ...


Server = TypeVar("Server", bound=Keyed)


def key_and_servers(
    presented: PresentedKey, now: datetime, **_path: str
) -> tuple[BotKey | None, list[AuthorizationServer] | None]:
    """As `PresentedKey.live_key`, and read in the same query the brand's active servers."""
    rows = _KEY_AND_SERVERS.rows(public_id=presented.public_id, now=now)
    if not rows:
        return None, None
    parts = [_loaded(row) for row in rows]
    return presented.recognised(parts[0][0], now), [server for _, server in parts if server is not None]


def _loaded(row: Any) -> tuple[BotKey, AuthorizationServer | None]:
    values = iter(row)
    bot_key: Any
    server: Any
    bot_key, brand, server = (loaded(model, names, islice(values, len(names))) for model, names in _COLUMNS.items())
    bot_key.brand = brand
    if server.pk is None:
        return bot_key, None
    server.brand = brand
    return bot_key, server


def is_conversation_id(text: str) -> bool:
    return _CONVERSATION_ID.fullmatch(text) is not None


def checked_conversation_id(conversation_id: str) -> str:
    """Pass the id through unchanged. Raises `Problem` for a malformed one."""
    if not is_conversation_id(conversation_id):
        detail = (
            "A conversation id has 1 to 200 characters of A-Z a-z 0-9 . _ ~ : @ | = ; , + ! $ * ( ) -"
            ' and no slash, also not at the end of the address; "." and ".." are none.'
        )
        raise Problem(400, "invalid_conversation_id", detail)
    return conversation_id


def existing_conversation(call: Call, conversation_id: str) -> Conversation | None:
    """Find the newest session of the brand's conversation; None if no challenge has created it yet.

    Raises `Problem` for a malformed id.
    """
    brand, external_id = call.bot_key.brand, checked_conversation_id(conversation_id)
    return _NEWEST_CONVERSATION.first(brand=brand.pk, external_id=external_id)


def open_conversation_of(call: Call, conversation_id: str, session: int | None, *, ends: bool = False) -> Conversation:
    """As `conversation_of`. Raises `ConversationClosed` too, before any other error of the call is looked for."""
    conversation = conversation_of(call, conversation_id, session, ends=ends)
    if conversation.closed_at is not None:
        raise ConversationClosed(conversation)
    return conversation


def conversation_of(call: Call, conversation_id: str, session: int | None, *, ends: bool = False) -> Conversation:
    """Find the newest session of the brand's conversation, and no other one (S3).

    `ends`: the call ends something, so it has to name the session if the brand's ids are reused (S4). The caller then
    changes this row alone: a session that begins meanwhile is another row. Raises `SessionMismatch`, `SessionRequired`,
    and `Problem` for a malformed or unknown id.
    """
    conversation = existing_conversation(call, conversation_id)
    if conversation is None:
        detail = "No challenge was ever created in this conversation. Create one."
        raise Problem(404, "conversation_unknown", detail, next_operation="createChallenge")
    refuse_other_session(conversation, session)
    if ends:
        refuse_unnamed_session(conversation, session)
    return conversation


def server_of(brand: Brand, key: str | None, found: list[AuthorizationServer] | None = None) -> AuthorizationServer:
    """Find the active server with this key, or without a key the brand's only active one. Raises `Problem`.

    `found` are the brand's active servers, if they have been read already.
    """
    return only_one(_ACTIVE_SERVERS.all(brand=brand.pk) if found is None else found, key)


def server_to_sign_out_of(conversation: Conversation, key: str | None) -> AuthorizationServer:
    """As `server_of`, but an inactive server counts too if it is named, or if a token of it lives in the conversation.

    Otherwise that token could not be ended, and could be read again once the server is active.
    """
    if key:
        return only_one(_SERVERS.all(brand=conversation.brand_id), key)
    live = AccessToken.objects.live().filter(conversation=conversation, authorization_server=OuterRef("pk"))
    servers = AuthorizationServer.objects.filter(Q(is_active=True) | Exists(live), brand=conversation.brand_id)
    return only_one(list(servers.select_related("brand")), key)


def only_one(found: list[Server], key: str | None) -> Server:
    """Return the server with this key, or without a key the only one. Raises `Problem`."""
    if key:
        found = [server for server in found if server.key == key]
    if not found:
        detail = f"This brand has no active authorization server{' with that key' if key else ''}."
        raise Problem(422, "authorization_server_unknown", detail)
    if len(found) > 1:
        detail = "This brand has several authorization servers: name one in authorization_server."
        raise Problem(422, "authorization_server_required", detail)
    return found[0]


def operation_of(call: Call, name: str) -> Operation:
    """Find the brand's operation, if it and its API are active. Nothing else can be called (P1). Raises `Problem`."""
    found = _OPERATIONS.first(brand=call.bot_key.brand_id, name=name) if "\0" not in name else None
    if found is None:
        detail = "This brand has no active operation of this name. Its admin declares which ones bots may call."
        raise Problem(404, "operation_unknown", detail)
    return found


def operations_of(call: Call, after: str, most: int) -> list[Operation]:
    """Find what `operation_of` would find, by name, from the first name after this one (P1)."""
    declared = Operation.objects.filter(brand=call.bot_key.brand_id, name__gt=after, **_CALLABLE)
    return list(declared.order_by("name")[:most])


def is_challenge_id(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def challenge_of(call: Call, challenge_id: str, session: int | None = None) -> Challenge:
    """Find the brand's challenge, of any session. Raises `Problem`, also if the call names another session."""
    known = is_challenge_id(challenge_id)
    challenge = _CHALLENGES.first(brand=call.bot_key.brand_id, uuid=UUID(challenge_id)) if known else None
    if challenge is None:
        raise Problem(404, "challenge_unknown", "There is no challenge with this id. Create one in its conversation.")
    if session not in {None, challenge.conversation.session}:
        detail = "The challenge is of another session than the call names, so nothing was done."
        raise Problem(409, "session_mismatch", detail, session=challenge.conversation.session)
    return challenge
