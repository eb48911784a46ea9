"""A brand's two settings of its conversation ids, in the form, in files and in the audit log (S9)."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from brands.configuration_export import export_configuration
from brands.configuration_file import (
    ConfigurationRefused,
    apply_configuration,
    preview_configuration,
    read_configuration,
)
from brands.models import Brand
from conversations.models import Conversation
from infrastructure.models import AuditEvent
from tests.admin_pages import House, address
from tests.cast import Bot

pytestmark = pytest.mark.django_db

BRAND = '[brand]\nslug = "acme"\nname = "Acme"\n'


def apply(lines: str = "") -> Brand:
    apply_configuration(read_configuration(BRAND + lines))
    return Brand.objects.get(slug="acme")


def problems(lines: str) -> list[str]:
    with pytest.raises(ConfigurationRefused) as refused:
        apply(lines)
    return refused.value.problems


def test_ids_are_unique_unless_somebody_says_otherwise() -> None:
    """S9."""
    brand = apply()
    assert (brand.conversation_ids, brand.close_idle_after) == ("unique", 0)


def test_a_file_sets_them_and_one_without_them_leaves_them() -> None:
    """S9: an old file must not bar every number that was closed."""
    brand = apply('conversation_ids = "reused"\nclose_idle_after = 30\n')
    assert (brand.conversation_ids, brand.close_idle_after) == ("reused", 30)
    brand = apply()
    assert (brand.conversation_ids, brand.close_idle_after) == ("reused", 30)


def test_an_export_is_what_sets_them() -> None:
    brand = apply('conversation_ids = "reused"\nclose_idle_after = 30\n')
    exported = export_configuration(brand)
    assert 'conversation_ids = "reused"\nclose_idle_after = 30\n' in exported
    assert preview_configuration(read_configuration(exported)) == []


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ('conversation_ids = "sometimes"', "conversation_ids"),
        ("conversation_ids = true", "conversation_ids"),
        ('conversation_ids = ""', "conversation_ids"),
        ('conversation_ids = "reused"\nclose_idle_after = -1', "close_idle_after"),
        ('conversation_ids = "reused"\nclose_idle_after = 9999999', "close_idle_after"),
        ('conversation_ids = "reused"\nclose_idle_after = "30"', "close_idle_after"),
        ("close_idle_after = 30", "close_idle_after"),
        ('conversation_ids = "unique"\nclose_idle_after = 30', "close_idle_after"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_line(lines: str, field: str) -> None:
    """S9: idle conversations whose ids are unique would be closed for ever."""
    assert [problem.split(":")[0] for problem in problems(f"{lines}\n")] == [f"brand.{field}"]


def test_switching_back_asks_for_the_idle_close_to_go_too() -> None:
    apply('conversation_ids = "reused"\nclose_idle_after = 30\n')
    (problem,) = problems('conversation_ids = "unique"\n')
    assert problem.startswith("brand.close_idle_after: Only if ids come back")
    assert apply('conversation_ids = "unique"\nclose_idle_after = 0\n').conversation_ids == "unique"


def test_the_row_itself_is_checked() -> None:
    with pytest.raises(ValidationError) as error:
        Brand(name="Acme", slug="acme", close_idle_after=5).full_clean()
    assert set(error.value.message_dict) == {"close_idle_after"}


def test_an_admin_of_the_brand_switches_and_the_log_says_from_what_to_what(houses: tuple[House, House]) -> None:
    """S9, J13."""
    acme, _ = houses
    url = address(Brand, "change", acme.brand)
    page = acme.admin.get(url)
    titles = [fieldset.name for fieldset in page.context["adminform"]]
    assert titles == [None, "Conversation ids, and purposes of token reads", "Private networks"]
    assert acme.admin.send_changed(url, conversation_ids="reused", close_idle_after="60").status_code == 302
    brand = Brand.objects.get(pk=acme.brand.pk)
    assert (brand.conversation_ids, brand.close_idle_after) == ("reused", 60)
    event = AuditEvent.objects.filter(object_uuid=brand.uuid).first()
    assert event is not None
    assert event.changed_values == {"conversation_ids": ["unique", "reused"], "close_idle_after": [0, 60]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"close_idle_after": "60"}, "close_idle_after"),
        ({"conversation_ids": "reused", "close_idle_after": ""}, "close_idle_after"),
        ({"conversation_ids": "both"}, "conversation_ids"),
    ],
)
def test_the_form_says_at_the_field_what_is_wrong(
    houses: tuple[House, House], changes: dict[str, Any], field: str
) -> None:
    acme, _ = houses
    page = acme.admin.send_changed(address(Brand, "change", acme.brand), **changes)
    assert list(page.context["adminform"].form.errors) == [field]


def test_the_admin_tells_sessions_apart(houses: tuple[House, House]) -> None:
    """Lists, search, timeline, and the question before a close."""
    acme, _ = houses
    Brand.objects.filter(pk=acme.brand.pk).update(conversation_ids="reused")
    number = "sms:491511"
    first = Conversation.objects.create(brand=acme.brand, external_id=number, closed_at=timezone.now())
    second = Conversation.objects.create(brand=acme.brand, external_id=number, session=2)
    listed = acme.admin.get(address(Conversation, "changelist"), q=number)
    assert [(row.pk, row.session) for row in listed.context["cl"].result_list] == [(second.pk, 2), (first.pk, 1)]
    page = acme.admin.get(address(Conversation, "change", second)).content.decode()
    assert "Session 2 begun" in page
    assert "sms%3A491511" in page
    assert f"{number} (session 2)" in page
    asked = acme.admin.get(f"/admin/conversations/conversation/{second.pk}/close/").content.decode()
    assert "the next sign-in link of the bot begins a new one" in asked
    assert "Session 1 closed and erased" in acme.admin.get(address(Conversation, "change", first)).content.decode()


def test_the_timeline_of_a_session_has_nothing_of_the_others(houses: tuple[House, House]) -> None:
    acme, _ = houses
    Brand.objects.filter(pk=acme.brand.pk).update(conversation_ids="reused")
    bot = Bot(acme.bot.key, "sms:491522")
    earlier = bot.challenge()
    bot.in_chat("DELETE", "?session=1")
    later = bot.challenge()
    row = Conversation.objects.get(external_id=bot.chat, session=2)
    entries = acme.admin.get(address(Conversation, "change", row)).context["timeline"].entries
    steps = {str(entry.step[0]) for entry in entries if entry.step}
    assert later["challenge_id"] in steps
    assert earlier["challenge_id"] not in steps
