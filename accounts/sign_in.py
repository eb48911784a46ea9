"""The admin's sign-in: allauth's, with a second factor, limits of our own, and nobody signing themselves up (G10)."""

import time
from collections.abc import Callable
from typing import Any, Final

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY, get_authentication_records
from allauth.mfa.adapter import DefaultMFAAdapter
from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from accounts.second_factors import decrypt_text, encrypt_text
from infrastructure import rate_limits
from infrastructure.audit import actor_of_admin
from infrastructure.database_clock import CLOCK_TOLERANCE
from web.errors import too_many_requests
from web.limits import client_address

PATH: Final = "/admin/account/"
_CLOCKS_APART: Final = CLOCK_TOLERANCE.total_seconds()


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """Accounts are made by the operator; allauth's own limits count our idea of an address."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002  # allauth's signature
        """Let nobody sign themselves up."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the address that our own proxies saw."""
        return client_address(request) or "unknown"


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth has no types
    """Secrets of authenticator apps and seeds of recovery codes are kept encrypted, as all that is presented again."""

    def encrypt(self, text: str) -> str:
        """Return the ciphertext as text, for allauth's JSON column."""
        return encrypt_text(text)

    def decrypt(self, encrypted_text: str) -> str:
        """Return what `encrypt` was given. Raises `DecryptionError`."""
        return decrypt_text(encrypted_text)


def signed_in_recently(request: HttpRequest) -> bool:
    """Tell whether the admin has typed a password or shown a second factor within the last ten minutes (G10)."""
    _forget_what_lies_ahead(request)
    records = get_authentication_records(request, request.user)
    latest = max((record["at"] for record in records), default=0)
    return bool(time.time() - latest < settings.ACCOUNT_REAUTHENTICATION_TIMEOUT)


def _forget_what_lies_ahead(request: HttpRequest) -> None:
    """Take moments of the future off the session: a wrong clock wrote them, and they would count until they are past.

    allauth's own pages, which change second factors, judge by the same records.
    """
    records = request.session.get(AUTHENTICATION_METHODS_SESSION_KEY, [])
    past = [record for record in records if record["at"] <= time.time() + _CLOCKS_APART]
    if past != records:
        request.session[AUTHENTICATION_METHODS_SESSION_KEY] = past


def reauthentication_address() -> str:
    """Return where an admin confirms who it is, and comes back to the admin's first page."""
    return f"{reverse('account_reauthenticate')}?{urlencode({'next': reverse('admin:index')})}"


def confirmation_needed() -> ValidationError:
    """Ask the admin to confirm who it is, and keep what was typed: the form stays open, the secret is in no session.

    allauth's own way would keep the whole form, client secret included, in the session until the password was typed.
    """
    said = '<a href="{}" target="_blank" rel="noopener">Confirm that it is you</a> in another tab, then save again.'
    return ValidationError(format_html(said, reauthentication_address()), "confirmation_needed")


class ConfirmedForm(forms.ModelForm):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """A form of the admin that saves nothing sensitive of whoever has not signed in lately (G10)."""

    # Whether whoever sends it has; a `ConfirmedAdmin` says so.
    confirmed = False

    def needs_confirmation(self) -> bool:
        """Tell whether what was changed is sensitive; called when every field was read."""
        return True

    def clean(self) -> dict[str, Any]:
        """Ask for a recent sign-in."""
        cleaned = super().clean() or {}
        if not self.confirmed and self.needs_confirmation():
            self.add_error(None, confirmation_needed())
        return cleaned


class ConfirmedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # as above
    """A model admin whose form may be a `ConfirmedForm`."""

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Tell the form, whose class is made for this request, whether whoever sends it has signed in recently."""
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.confirmed = signed_in_recently(request)
        return form


def change_own_password(request: HttpRequest) -> HttpResponse:
    """`/admin/password_change/`: Django's page, limited for each admin: a stolen session is to guess no password."""
    if request.method == "POST" and request.user.is_authenticated:
        try:
            rate_limits.count(rate_limits.PASSWORD_CHANGES_PER_ADMIN, actor_of_admin(request.user.pk))
        except rate_limits.RateLimited as limit:
            return too_many_requests(request, limit.retry_after)
    return admin.site.admin_view(admin.site.password_change, cacheable=True)(request)


def admin_login(request: HttpRequest) -> HttpResponse:
    """`/admin/login/`: on to allauth's page. Who is signed in and may not use the admin is told so, not sent around."""
    wanted = request.GET.get("next", "")
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    target = wanted if safe else reverse("admin:index")
    if request.user.is_authenticated:
        if not admin.site.has_permission(request):
            raise PermissionDenied
        return redirect(target)
    return redirect(f"{reverse('account_login')}?{urlencode({'next': target})}")


def sign_in_limit_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Count what an address sends to the sign-in pages, in the store that all processes share (G8, G10); judge moments.

    allauth counts failures of each account too, but in Django's cache, which without Redis is each process's own.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method == "POST" and request.path.startswith(PATH):
            try:
                rate_limits.count(rate_limits.SIGN_INS_PER_ADDRESS, client_address(request))
            except rate_limits.RateLimited as limit:
                return too_many_requests(request, limit.retry_after)
        if request.path.startswith(PATH):
            _forget_what_lies_ahead(request)
        return get_response(request)

    return middleware
