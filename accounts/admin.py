"""Accounts and second factors as the operator sees them: nothing of theirs changes without a recent sign-in (G10).

A stolen session of the operator's would otherwise make itself an account that stays, or a password for somebody else's.
"""

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group, User
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from accounts.sign_in import ConfirmedAdmin, ConfirmedForm, confirmation_needed, signed_in_recently
from infrastructure.audit import actor_of_admin, record_event

# Of accounts that administer no brand; the operator alone sees such events.
NO_BRAND: Final = UUID(int=0)


class AccountEvent(models.TextChoices):
    """What is recorded of accounts."""

    ADMIN_CREATED = "admin.created"
    ADMIN_CHANGED = "admin.changed"
    ADMIN_DELETED = "admin.deleted"


admin.site.unregister(User)
# Membership of a brand is all that a brand's admin needs: nothing here asks for a group.
admin.site.unregister(Group)
# allauth's own pages: the one would show and change what a second factor is made of, the other is of no use here.
admin.site.unregister(Authenticator)
admin.site.unregister(EmailAddress)


class NewAccountForm(ConfirmedForm, AdminUserCreationForm):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """Django's own, confirmed."""


class AccountForm(ConfirmedForm, UserChangeForm):  # type: ignore[type-arg]  # as above
    """Django's own, confirmed."""


@admin.register(User)
class AccountAdmin(ConfirmedAdmin, UserAdmin):  # type: ignore[type-arg]  # as above
    """Django's own, confirmed and audited; without groups and permissions, which nothing here asks for."""

    form = AccountForm
    add_form = NewAccountForm
    actions = None
    list_filter = ("is_staff", "is_superuser", "is_active")
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Personal info", {"fields": ("first_name", "last_name", "email")}),
        ("Permissions", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Important dates", {"fields": ("last_login", "date_joined")}),
    )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save it with its audit rows."""
        super().save_model(request, obj, form, change)
        if change:
            _record(AccountEvent.ADMIN_CHANGED, request, obj, form.changed_data)
        else:
            _record(AccountEvent.ADMIN_CREATED, request, obj)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002  # Django's own name
        """Set somebody's password, with its audit rows."""
        if refused := _unconfirmed(request):
            return refused
        with transaction.atomic():
            user = self.get_object(request, unquote(id))
            before = user.password if user else None
            answer = super().user_change_password(request, id, form_url)
            if user and User.objects.get(pk=user.pk).password != before:
                _record(AccountEvent.ADMIN_CHANGED, request, user, ["password"])
        return answer

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        """Ask for a recent sign-in."""
        return _unconfirmed(request) or super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete it with its audit rows."""
        _record(AccountEvent.ADMIN_DELETED, request, obj)
        super().delete_model(request, obj)


@admin.register(Authenticator)
class AuthenticatorAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # as above
    """Only for the operator: somebody who lost a phone sets up another one."""

    list_display = fields = ("user", "type", "created_at", "last_used_at")
    list_select_related = ("user",)
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Each admin sets up their own."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Authenticator | None = None) -> bool:
        """There is nothing to change."""
        return False

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        """Ask for a recent sign-in: without their second factor somebody's password is enough."""
        return _unconfirmed(request) or super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete it with its audit rows."""
        _record(AccountEvent.ADMIN_CHANGED, request, obj.user, ["second_factor"])
        super().delete_model(request, obj)


def _unconfirmed(request: HttpRequest) -> HttpResponse | None:
    """Send whoever posts without a recent sign-in back to the page, which then says how to confirm it."""
    if request.method != "POST" or signed_in_recently(request):
        return None
    messages.error(request, confirmation_needed().message)
    return redirect(request.get_full_path())


def _record(kind: AccountEvent, request: HttpRequest, user: Any, changed: Iterable[str] = ()) -> None:
    """Write one event for each brand of an account, so that those who share it see it; `outcome` names the account."""
    actor, whose = actor_of_admin(request.user.pk), actor_of_admin(user.pk)
    for brand_uuid in list(user.brands.order_by("pk").values_list("uuid", flat=True)) or [NO_BRAND]:
        record_event(kind, brand_uuid=brand_uuid, actor=actor, outcome=whose, changed_fields=changed)
