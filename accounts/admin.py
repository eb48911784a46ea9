"""Admin pages for accounts and second factors. Every change needs a recent sign-in (G10).

A thief of the operator's session could otherwise create a permanent account or set another admin's password.
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

# Used for accounts without a brand. Only the operator sees these events.
NO_BRAND: Final = UUID(int=0)


class AccountEvent(models.TextChoices):
    ADMIN_CREATED = "admin.created"
    ADMIN_CHANGED = "admin.changed"
    ADMIN_DELETED = "admin.deleted"


admin.site.unregister(User)
# Permissions come from brand membership; groups are not used.
admin.site.unregister(Group)
# Of allauth's own admin pages, one would show and change the secrets of second factors, and the other is not needed.
admin.site.unregister(Authenticator)
admin.site.unregister(EmailAddress)


class NewAccountForm(ConfirmedForm, AdminUserCreationForm):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """Django's form, requiring a recent sign-in."""


class AccountForm(ConfirmedForm, UserChangeForm):  # type: ignore[type-arg]  # as above
    """Django's form, requiring a recent sign-in."""


@admin.register(User)
class AccountAdmin(ConfirmedAdmin, UserAdmin):  # type: ignore[type-arg]  # as above
    """Django's user admin with audit rows and a recent sign-in, without groups and permissions."""

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

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the index lists it. Nobody but superusers has permissions; to ask for them costs two queries."""
        return bool(request.user.is_active and request.user.is_superuser)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change:
            _record(AccountEvent.ADMIN_CHANGED, request, obj, form.changed_data)
        else:
            _record(AccountEvent.ADMIN_CREATED, request, obj)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002  # Django's own name
        """Set another user's password, with an audit row."""
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
        return _unconfirmed(request) or super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        _record(AccountEvent.ADMIN_DELETED, request, obj)
        super().delete_model(request, obj)


@admin.register(Authenticator)
class AuthenticatorAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # as above
    """Lets the operator delete the second factor of an admin who lost a phone."""

    list_display = fields = ("user", "type", "created_at", "last_used_at")
    list_select_related = ("user",)
    actions = None

    def has_module_permission(self, request: HttpRequest) -> bool:
        """As accounts."""
        return bool(request.user.is_active and request.user.is_superuser)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Authenticator | None = None) -> bool:
        return False

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        """Require a recent sign-in: without the second factor, that admin's password alone is enough."""
        return _unconfirmed(request) or super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        _record(AccountEvent.ADMIN_CHANGED, request, obj.user, ["second_factor"])
        super().delete_model(request, obj)


def _unconfirmed(request: HttpRequest) -> HttpResponse | None:
    """Redirect a POST without a recent sign-in back to its page, with the message that asks for one."""
    if request.method != "POST" or signed_in_recently(request):
        return None
    then = "do it again: nothing was changed, and nothing that you typed is kept"
    messages.error(request, confirmation_needed(then).message)
    return redirect(request.get_full_path())


def _record(kind: AccountEvent, request: HttpRequest, user: Any, changed: Iterable[str] = ()) -> None:
    """Write one event for each brand of an account, so that its co-admins see it. `outcome` names the account."""
    actor, whose = actor_of_admin(request.user.pk), actor_of_admin(user.pk)
    for brand_uuid in list(user.brands.order_by("pk").values_list("uuid", flat=True)) or [NO_BRAND]:
        record_event(kind, brand_uuid=brand_uuid, actor=actor, outcome=whose, changed_fields=changed)
