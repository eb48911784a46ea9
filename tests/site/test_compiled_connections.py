"""Compiled statements on PostgreSQL's kept connections, one of which may have died in between."""

from typing import Any

import pytest
from django.utils import timezone

from brands.authentication import authenticate
from infrastructure import rate_limits
from tests.cast import Bot
from tests.connections import kill_the_kept_connection

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("first", ["a key is looked up", "a page is counted"])
def test_a_kept_connection_that_died_costs_no_request(acme_bot: Bot, first: str) -> None:
    """Nobody asks beforehand whether it still works: the first statement does, once more on a new one."""
    kill_the_kept_connection()
    if first == "a page is counted":
        rate_limits.count(rate_limits.PAGES_PER_LINK, "somebody's")
    else:
        key: Any = authenticate(f"Bearer {acme_bot.key}", timezone.now())
        assert key.brand.slug == "acme"
