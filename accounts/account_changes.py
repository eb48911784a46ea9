"""Audit rows of changed accounts, and how the operator takes a lost second factor away."""

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from allauth.account.internal.stagekit import LOGIN_SESSION_KEY
from allauth.account.utils import user_pk_to_url_str
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone

from infrastructure import mail
from infrastructure.audit import OPERATOR, actor_of_admin, record_event

# Used for accounts without a brand. Only the operator sees these events.
NO_BRAND: Final = UUID(int=0)


class AccountEvent(models.TextChoices):
    ADMIN_CREATED = "admin.created"
    ADMIN_CHANGED = "admin.changed"
    ADMIN_DELETED = "admin.deleted"


def record_account_change(kind: AccountEvent, user: Any, actor: str, changed: Iterable[str] = ()) -> None:
    """Write one event for each brand of an account, so that the brand's admins see it. `outcome` names the account."""
    uuids = user.brands.order_by().values_list("uuid", flat=True)
    own = sorted(uuids.union(user.viewed_brands.order_by().values_list("uuid", flat=True)).order_by())
    for brand_uuid in own or [NO_BRAND]:
        record_event(kind, brand_uuid=brand_uuid, actor=actor, outcome=actor_of_admin(user.pk), changed_fields=changed)


def reset_second_factor(user: Any) -> int:
    """Delete every second factor of an account as the operator, and end its sessions; return how many were deleted."""
    with transaction.atomic():
        deleted: int = Authenticator.objects.filter(user=user).delete()[0]
        if deleted:
            record_account_change(AccountEvent.ADMIN_CHANGED, user, OPERATOR, ["second_factor"])
            end_sessions(user)
    return deleted


def end_sessions(user: Any, but: str | None = None) -> None:
    """End an account's sessions, but one; also those that gave the password and not yet the second factor."""
    live = Session.objects.filter(expire_date__gt=timezone.now()).exclude(pk=but or "")
    ended = [session.pk for session in live.iterator() if _belongs_to(user, session.get_decoded())]
    Session.objects.filter(pk__in=ended).delete()


def _belongs_to(user: Any, session: dict[str, Any]) -> bool:
    signing_in = session.get(LOGIN_SESSION_KEY) or {}
    return session.get(SESSION_KEY) == str(user.pk) or signing_in.get("user_pk") == user_pk_to_url_str(user)


def tell_of_removed_second_factor(user: Any) -> bool:
    """Mail the account's owner; return False if there is no address or the mail server did not take the mail."""
    text = (
        f"The operator removed the second factor of your account {user.get_username()} and ended its sessions.",
        "",
        "Sign in with your password and set up a new second factor at once:",
        settings.PUBLIC_BASE_URL + reverse("mfa_index"),
        "",
        "If you did not ask for this, tell the operator at once: until you have set one up, your password is enough.",
    )
    return bool(user.email) and mail.send("Your second factor was removed", text, [user.email])
