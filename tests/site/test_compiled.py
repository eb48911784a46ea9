"""Compiled statements: other values each time, and the queryset's own instances."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, models, transaction

from brands.models import Brand
from conversations.models import AuthorizationRequest, Challenge, ChallengeStatus, Conversation
from infrastructure.compiled import CompiledInsert, CompiledQuery, CompiledUpdate, Parameter, unsaved
from infrastructure.models import AuditEvent
from tests.cast import make_bot, make_server

pytestmark = pytest.mark.django_db

NAMED = Parameter("name", models.CharField())


@pytest.fixture
def brands() -> list[Brand]:
    return [Brand.objects.create(name=name, slug=name.lower()) for name in ("Acme", "Rival")]


def test_each_call_has_its_own_values_and_the_querysets_instances(brands: list[Brand]) -> None:
    chats = [Conversation.objects.create(brand=brand, external_id="same") for brand in brands]
    query = CompiledQuery(lambda: Conversation.objects.filter(brand__name=NAMED).select_related("brand"))
    found = [query.all(name=name) for name in ("Acme", "Rival", "Nobody")]
    assert found == [[chats[0]], [chats[1]], []]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(connection, "cursor", None)  # what was selected with it is not fetched again
        assert [row.brand.name for rows in found for row in rows] == ["Acme", "Rival"]
    assert vars(found[0][0])["uuid"] == chats[0].uuid
    assert found[0][0].created_at == Conversation.objects.get(pk=chats[0].pk).created_at


def test_an_insert_is_saved_with_its_number_and_a_refused_one_is_an_error_or_nothing(brands: list[Brand]) -> None:
    chat, twin = (Conversation(brand=brands[0], external_id="same") for _ in range(2))
    assert CompiledInsert(Conversation).insert(chat)
    assert Conversation.objects.get(pk=chat.pk) == chat
    assert not chat._state.adding
    assert not CompiledInsert(Conversation, or_nothing=True).insert(twin)
    assert vars(twin)["id"] is None
    with pytest.raises(IntegrityError), transaction.atomic():
        CompiledInsert(Conversation).insert(twin)


NOW = datetime(2026, 3, 4, 5, 6, 7, 89, UTC)
ROW = UUID("8d7d5f0e-5c86-4a8e-8f6b-2f6c4c1f9a10")


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Conversation, {"uuid": ROW, "external_id": "a", "created_at": NOW}),
        (Challenge, {"uuid": ROW, "status": ChallengeStatus.STARTED, "issued_at": NOW, "expires_at": NOW}),
        (AuthorizationRequest, {"uuid": ROW, "created_at": NOW, "configuration": {"scope": "a"}}),
        (AuditEvent, {"uuid": ROW, "at": NOW, "kind": "challenge.changed", "session": None}),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_an_instance_for_an_insert_is_the_models_own_in_every_attribute(model: Any, values: dict[str, Any]) -> None:
    """Also in its defaults, of which no two instances share one that can be changed."""
    own, fast = model(**values), unsaved(model, **values)
    assert _seen(fast) == _seen(own)
    assert (fast._state.adding, fast._state.db) == (True, None)
    assert unsaved(Challenge).purpose_by_locale is not unsaved(Challenge).purpose_by_locale
    assert unsaved(Challenge).uuid != unsaved(Challenge).uuid


def test_every_kind_of_value_is_stored_as_save_stores_it(brands: list[Brand]) -> None:
    """Text with quotes, enumerations, moments, UUIDs, JSON, bytes, and a moment that Django has to convert."""
    server = make_server(brands[0])
    chats = [Conversation.objects.create(brand=brands[0], external_id=name) for name in ("saved", "compiled")]
    values: dict[str, Any] = {
        "authorization_server": server, "status": ChallengeStatus.STARTED, "scope": "it's \\ \u2028", "locale": "",
        "purpose_by_locale": {"de": "\u00e9'"}, "completion_attempts": 3, "issued_at": NOW, "expires_at": NOW,
        "ended_at": None, "context_ciphertext": b"\x00'\\",
    }  # fmt: skip
    Challenge.objects.create(conversation=chats[0], link_token_digest=b"1", **values)
    assert CompiledInsert(Challenge).insert(unsaved(Challenge, conversation=chats[1], link_token_digest=b"2", **values))
    own = {"id", "uuid", "conversation", "link_token_digest"}
    names = [field.name for field in Challenge._meta.concrete_fields if field.name not in own]
    saved, compiled = (
        {name: _as_bytes(value) for name, value in row.items()}
        for row in Challenge.objects.order_by("pk").values(*names)
    )
    assert compiled == saved


def _as_bytes(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


def test_an_update_says_how_many_rows_it_changed(brands: list[Brand]) -> None:
    rename = CompiledUpdate(lambda: Brand.objects.filter(slug=Parameter("slug", models.CharField())), name=NAMED)
    assert [rename.run(slug=slug, name="Renamed") for slug in ("acme", "nobody")] == [1, 0]
    assert sorted(Brand.objects.values_list("name", flat=True)) == ["Renamed", "Rival"]


def test_an_instance_is_the_querysets_own_in_every_attribute(brands: list[Brand]) -> None:
    """Also across a one-to-one relation, from both sides, and where there is nobody on the other."""
    bot = make_bot(brands[0])
    make_server(brands[0])
    bot.challenge()
    for related in ("conversation__brand", "access_token"):
        assert_same_instances(Challenge.objects.select_related(related).order_by("pk"))


def assert_same_instances(rows: models.QuerySet[Any]) -> None:
    assert [_seen(row) for row in CompiledQuery(lambda: rows).all()] == [_seen(row) for row in rows]


def _seen(instance: Any) -> Any:
    """Return all that an instance holds, and what the instances hold that it knows."""
    if not isinstance(instance, models.Model):
        return instance
    state = instance._state
    known = {name: _seen(value) if name != "challenge" else value.pk for name, value in state.fields_cache.items()}
    return {**vars(instance), "_state": (state.adding, state.db, known)}
