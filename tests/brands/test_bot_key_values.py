"""A bot key: its format, the `Authorization` header, and its row."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from brands.authentication import PresentedKey, authenticate, create_bot_key, revoke
from brands.models import BotKey, Brand
from infrastructure.crypto import KeyRing, checksum, key_id_of, key_ring
from infrastructure.models import AuditEvent
from tests.environment import TEST_ENVIRONMENT

pytestmark = pytest.mark.django_db

BOTH_KEYS = TEST_ENVIRONMENT["ENCRYPTION_KEYS"]
OLD_KEY = BOTH_KEYS.split(",")[1]


def test_a_key_is_written_as_scanners_look_for_it(acme: Brand) -> None:
    """G5: a prefix, 64 bits to find it by, 256 secret bits, and a checksum."""
    row, key = create_bot_key(acme, "acme-bot", ["token:read", "challenge:read"])
    match = re.fullmatch(r"cdk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})([0-9a-f]{8})", key.reveal())
    assert match
    assert (match[1], match[3]) == (row.public_id, checksum(match[1] + match[2]))
    saved = BotKey.objects.get()
    assert (saved.brand, saved.label, saved.scopes) == (acme, "acme-bot", ["challenge:read", "token:read"])
    assert (saved.expires_at, saved.last_used_at, saved.revoked_at) == (None, None, None)


def test_making_and_revoking_a_key_names_the_admin_who_did_it(acme: Brand, acme_admin: Any) -> None:
    """Each once, however often it is revoked."""
    row, _ = create_bot_key(acme, "acme-bot", ["token:read"], user=acme_admin)
    assert [revoke(row, acme_admin), revoke(row, acme_admin)] == [True, False]
    events = AuditEvent.objects.filter(object_uuid=row.uuid).order_by("pk").values_list("kind", "actor")
    actor = f"admin:{acme_admin.pk}"
    assert list(events) == [("bot_key.created", actor), ("bot_key.revoked", actor)]


@pytest.mark.parametrize("written", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer  {}", "Bearer {} "], ids=repr)
def test_the_scheme_is_read_in_any_case_and_spaces_around_the_key_do_not_count(acme: Brand, written: str) -> None:
    """RFC 9110 section 11.1."""
    row, key = create_bot_key(acme, "acme-bot", ["token:read"])
    assert authenticate(written.format(key.reveal()), timezone.now()) == row


@pytest.mark.parametrize("written", ["{}", "Bearer{}", "Basic {}", "Bearer x {}", "Bearer {} x", "", "Bearer"])
def test_a_header_in_another_form_presents_no_key(acme: Brand, written: str) -> None:
    """G1."""
    _, key = create_bot_key(acme, "acme-bot", ["token:read"])
    assert PresentedKey.read(written.format(key.reveal())) is None


def test_a_presented_key_shows_its_public_part_alone(acme: Brand) -> None:
    """K5."""
    row, key = create_bot_key(acme, "acme-bot", ["token:read"])
    assert repr(PresentedKey.read(f"Bearer {key.reveal()}")) == f"PresentedKey(public_id='{row.public_id}')"


def test_a_key_and_its_brand_are_found_in_one_query_and_a_second_use_within_the_minute_writes_nothing(
    acme: Brand, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    """G4."""
    _, key = create_bot_key(acme, "acme-bot", ["token:read"])
    now = timezone.now()
    authenticate(f"Bearer {key.reveal()}", now)
    with django_assert_num_queries(1):
        found = authenticate(f"Bearer {key.reveal()}", now + timedelta(seconds=59))
        assert found
        assert found.brand == acme
    authenticate(f"Bearer {key.reveal()}", now + timedelta(minutes=1))
    assert BotKey.objects.get().last_used_at == now + timedelta(minutes=1)


def test_using_one_key_says_nothing_about_another(acme: Brand) -> None:
    other, _ = create_bot_key(acme, "unused", ["token:read"])
    _, key = create_bot_key(acme, "acme-bot", ["token:read"])
    authenticate(f"Bearer {key.reveal()}", timezone.now())
    other.refresh_from_db()
    assert (other.last_used_at, other.revoked_at) == (None, None)


def test_a_keys_first_use_after_a_rotation_moves_its_digest_to_the_newest_encryption_key(
    acme: Brand, settings: Any
) -> None:
    """K4: and it still works once the old encryption key has gone."""
    settings.ENCRYPTION_KEYS = OLD_KEY
    row, key = create_bot_key(acme, "acme-bot", ["token:read"])
    made_of_old = bytes(row.digest)
    settings.ENCRYPTION_KEYS = BOTH_KEYS
    authenticate(f"Bearer {key.reveal()}", timezone.now())
    row.refresh_from_db()
    assert (key_id_of(made_of_old), key_id_of(bytes(row.digest))) == ("test-old", "test-new")
    settings.ENCRYPTION_KEYS = BOTH_KEYS.split(",")[0]
    assert authenticate(f"Bearer {key.reveal()}", timezone.now()) == row


def test_a_digest_of_the_newest_encryption_key_is_left_as_it_is(acme: Brand) -> None:
    row, key = create_bot_key(acme, "acme-bot", ["token:read"])
    BotKey.objects.update(digest=KeyRing.from_setting(BOTH_KEYS).digest("bot-key", acme.uuid.bytes, key.reveal()))
    assert authenticate(f"Bearer {key.reveal()}", timezone.now()) == row
    assert key_id_of(bytes(BotKey.objects.get().digest)) == key_ring().newest_id
