"""Audit rows of changed accounts, and how the operator takes a lost second factor away."""

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from django.db import models

from infrastructure.audit import actor_of_admin, record_event

# Used for accounts without a brand. Only the operator sees these events.
NO_BRAND: Final = UUID(int=0)


class AccountEvent(models.TextChoices):
    ADMIN_CREATED = "admin.created"
    ADMIN_CHANGED = "admin.changed"
    ADMIN_DELETED = "admin.deleted"


def record_account_change(kind: AccountEvent, user: Any, actor: str, changed: Iterable[str] = ()) -> None:
    """Write one event for each brand of an account, so that the brand's admins see it. `outcome` names the account."""
    uuids = user.brands.order_by().values_list("uuid", flat=True)
    own = sorted(uuids.union(user.viewed_brands.order_by().values_list("uuid", flat=True)))
    for brand_uuid in own or [NO_BRAND]:
        record_event(kind, brand_uuid=brand_uuid, actor=actor, outcome=actor_of_admin(user.pk), changed_fields=changed)
