"""Admin pages for accounts and second factors. Every change needs a recent sign-in (G10).

A thief of the operator's session could otherwise create a permanent account or set another admin's password.
"""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.base.internal.flows import delete_dangling_recovery_codes
from allauth.mfa.models import Authenticator
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from accounts.account_changes import (
    AccountEvent,
    end_sessions,
    record_account_change,
    tell_of_removed_second_factor,
)
from accounts.sign_in import RecentSignInAdmin, RecentSignInForm, recent_sign_in_needed, signed_in_recently
from infrastructure.audit import actor_of_admin

admin.site.unregister(User)
# Permissions come from brand membership; groups are not used.
admin.site.unregister(Group)
# Of allauth's own admin pages, one would show and change the secrets of second factors, and the other is not needed.
admin.site.unregister(Authenticator)
admin.site.unregister(EmailAddress)


class NewAccountForm(RecentSignInForm, AdminUserCreationForm):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """Django's form, requiring a recent sign-in."""


class AccountForm(RecentSignInForm, UserChangeForm):  # type: ignore[type-arg]  # as above
    """Django's form, requiring a recent sign-in."""


@admin.register(User)
class AccountAdmin(RecentSignInAdmin, UserAdmin):  # type: ignore[type-arg]  # as above
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
            record_account_change(AccountEvent.ADMIN_CHANGED, obj, actor_of_admin(request.user.pk), form.changed_data)
        else:
            record_account_change(AccountEvent.ADMIN_CREATED, obj, actor_of_admin(request.user.pk))

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002  # Django's own name
        """Set another user's password, with an audit row."""
        if refused := _refuse_without_recent_sign_in(request):
            return refused
        with transaction.atomic():
            user = self.get_object(request, unquote(id))
            before = user.password if user else None
            answer = super().user_change_password(request, id, form_url)
            if user and User.objects.get(pk=user.pk).password != before:
                record_account_change(AccountEvent.ADMIN_CHANGED, user, actor_of_admin(request.user.pk), ["password"])
        return answer

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        return _refuse_without_recent_sign_in(request) or super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        record_account_change(AccountEvent.ADMIN_DELETED, obj, actor_of_admin(request.user.pk))
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
        return _refuse_without_recent_sign_in(request) or super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        record_account_change(AccountEvent.ADMIN_CHANGED, obj.user, actor_of_admin(request.user.pk), ["second_factor"])
        super().delete_model(request, obj)
        delete_dangling_recovery_codes(obj.user)
        end_sessions(obj.user, but=request.session.session_key)
        transaction.on_commit(lambda: tell_of_removed_second_factor(obj.user), robust=True)


def _refuse_without_recent_sign_in(request: HttpRequest) -> HttpResponse | None:
    """Redirect a POST without a recent sign-in back to its page, with the message that asks for one."""
    if request.method != "POST" or signed_in_recently(request):
        return None
    then = "do it again: nothing was changed, and nothing that you typed is kept"
    messages.error(request, recent_sign_in_needed(then).message)
    return redirect(request.get_full_path())
