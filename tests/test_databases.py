"""The ground that concurrency tests stand on holds, on both databases."""

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from tests import databases
from tests.concurrency import at_once


def test_the_chosen_database_is_the_one_in_use() -> None:
    assert connection.vendor == databases.chosen()


@pytest.mark.django_db(transaction=True)
def test_of_twenty_conditional_updates_exactly_one_wins() -> None:
    ada = User.objects.create_user("ada", is_active=True)

    changed = at_once(20, lambda _: User.objects.filter(pk=ada.pk, is_active=True).update(is_active=False))

    assert sorted(changed) == [0] * 19 + [1]


@pytest.mark.django_db(transaction=True)
def test_twenty_transactions_that_read_and_write_all_finish() -> None:
    def add_a_user(number: int) -> int:
        with transaction.atomic():
            User.objects.count()
            return User.objects.create_user(f"user-{number}").pk

    assert len(set(at_once(20, add_a_user))) == 20
