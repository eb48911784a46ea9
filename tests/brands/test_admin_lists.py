"""Lists show what is in use; what was switched off or revoked is put away, and one press shows it again."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from brands.authentication import create_bot_key, revoke
from brands.models import AuthorizationServer, BotKey, Brand, WebhookEndpoint
from tests.admin_pages import OURS, AdminBrowser, House, address
from tests.cast import Bot, make_server
from tests.webhook_receiver import make_endpoint

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme_house(houses: tuple[House, House]) -> House:
    return houses[0]


def listed(browser: AdminBrowser, model: type[Any], **query: str) -> list[Any]:
    page = browser.get(address(model, "changelist"), **query)
    assert page.status_code == 200
    return sorted(row.pk for row in page.context["cl"].result_list)


def put_away(house: House, model: type[Any]) -> Any:
    """Give a house one more row of a model, and switch it off."""
    if model is WebhookEndpoint:
        row: Any = make_endpoint(house.brand, "tried.acme.example")[0]
    else:
        row = make_server(house.brand, "tried")
    type(row).objects.filter(pk=row.pk).update(is_active=False)
    return row


@pytest.mark.parametrize("model", [AuthorizationServer, WebhookEndpoint])
def test_what_was_switched_off_is_put_away(acme_house: House, model: type[Any]) -> None:
    """The bug: every try stayed in the list for good, since no row is deleted."""
    used, tried = acme_house.row(model), put_away(acme_house, model)
    assert listed(acme_house.admin, model) == [used.pk]
    assert listed(acme_house.admin, model, state="inactive") == [tried.pk]
    assert listed(acme_house.admin, model, state="all") == [used.pk, tried.pk]
    assert listed(acme_house.admin, model, state="nonsense") == [used.pk]


def test_a_brand_that_was_switched_off_is_put_away(acme_house: House, operator: AdminBrowser) -> None:
    rival = Brand.objects.get(slug="rival")
    Brand.objects.filter(pk=rival.pk).update(is_active=False)
    assert listed(operator, Brand) == [acme_house.brand.pk]
    assert listed(operator, Brand, state="inactive") == [rival.pk]
    assert listed(acme_house.admin, Brand, state="all") == [acme_house.brand.pk]


def test_a_key_that_nobody_can_use_is_put_away(acme_house: House) -> None:
    """G4: a revoked key and one that has expired."""
    used = acme_house.row(BotKey)
    revoked, _ = create_bot_key(acme_house.brand, "revoked", ["challenge:read"])
    revoke(revoked)
    over = timezone.now() - timedelta(seconds=1)
    expired, _ = create_bot_key(acme_house.brand, "expired", ["challenge:read"], over)
    assert listed(acme_house.admin, BotKey) == [used.pk]
    assert listed(acme_house.admin, BotKey, state="inactive") == [revoked.pk, expired.pk]
    assert listed(acme_house.admin, BotKey, state="all") == [used.pk, revoked.pk, expired.pk]


@pytest.mark.parametrize("query", [{}, {"_facets": "True"}])
def test_the_list_says_that_it_shows_what_is_active(acme_house: House, query: dict[str, str]) -> None:
    page = acme_house.admin.get(address(AuthorizationServer, "changelist"), **query)
    (state,) = [spec for spec in page.context["cl"].filter_specs if spec.title == "state"]
    choices = list(state.choices(page.context["cl"]))
    assert [choice["display"].partition(" (")[0] for choice in choices] == ["Active", "Inactive", "All"]
    assert [choice["selected"] for choice in choices] == [True, False, False]


def test_a_bot_is_not_troubled_by_a_server_that_was_put_away(acme_house: House) -> None:
    """With two servers it would have to name one of them in each call."""
    put_away(acme_house, AuthorizationServer)
    bot = Bot(acme_house.bot.key, "another-chat")
    assert bot.in_chat("POST", "/challenges", {})[0] == 201


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_every_choice_of_every_filter_opens(acme_house: House, model: type[Any]) -> None:
    """J5. The bug: each kind of the audit log's filter was a 400."""
    page = acme_house.admin.get(address(model, "changelist"))
    filters = page.context["cl"].filter_specs
    offered = [choice["query_string"] for spec in filters for choice in spec.choices(page.context["cl"])]
    addresses = {address(model, "changelist") + query for query in offered}
    assert {url: acme_house.admin.get(url).status_code for url in addresses} == dict.fromkeys(addresses, 200)
