"""Compiled statements: other values each time, and the queryset's own instances."""

from typing import Any

import pytest
from django.db import IntegrityError, connection, models, transaction

from brands.models import Brand
from conversations.models import Challenge, Conversation
from infrastructure.compiled import CompiledInsert, CompiledQuery, CompiledUpdate, Parameter
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
