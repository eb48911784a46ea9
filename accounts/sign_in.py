"""Admin sign-in: allauth with a second factor, our own rate limits and no self-registration (G10)."""

import time
from collections.abc import Callable
from typing import Any, Final

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY, get_authentication_records
from allauth.mfa.adapter import DefaultMFAAdapter
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
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
NOT_SAVED: Final = "Nothing was changed, and nothing that you typed is kept: do it again after this."
_CLOCK_TOLERANCE_SECONDS: Final = CLOCK_TOLERANCE.total_seconds()


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """Disables sign-up. allauth's limits use the client address as we determine it behind our proxies."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002  # allauth's signature
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the client address, or "unknown" if there is none."""
        return client_address(request) or "unknown"


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth has no types
    """Encrypts the secrets of authenticator apps and the seeds of recovery codes at rest."""

    def encrypt(self, text: str) -> str:
        return encrypt_text(text)

    def decrypt(self, encrypted_text: str) -> str:
        return decrypt_text(encrypted_text)


def signed_in_recently(request: HttpRequest) -> bool:
    """Whether the admin gave a password or a second factor within `ACCOUNT_REAUTHENTICATION_TIMEOUT` (G10)."""
    _drop_future_records(request)
    records = get_authentication_records(request, request.user)
    latest = max((record["at"] for record in records), default=0)
    return bool(time.time() - latest < settings.ACCOUNT_REAUTHENTICATION_TIMEOUT)


def _drop_future_records(request: HttpRequest) -> None:
    """Drop authentication records whose time lies in the future from the session.

    They were written while a server's clock was wrong, and would count as recent for too long. allauth's pages, which
    change second factors, read the same records.
    """
    records = request.session.get(AUTHENTICATION_METHODS_SESSION_KEY, [])
    past = [record for record in records if record["at"] <= time.time() + _CLOCK_TOLERANCE_SECONDS]
    if past != records:
        request.session[AUTHENTICATION_METHODS_SESSION_KEY] = past


def reauthentication_address() -> str:
    """Return the URL of the reauthentication page. Afterwards it leads back to the admin index."""
    return f"{reverse('account_reauthenticate')}?{urlencode({'next': reverse('admin:index')})}"


def recent_sign_in_needed(then: str = "save again") -> ValidationError:
    """Build the form error that asks to reauthenticate.

    allauth's own decorator would store the whole POST, with its secrets, in the session.
    """
    said = '<a href="{}" target="_blank" rel="noopener">Confirm that it is you</a> in another tab, then {}.'
    return ValidationError(format_html(said, reauthentication_address(), then), "recent_sign_in_needed")


class RecentSignInForm(forms.ModelForm):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """An admin form that saves sensitive changes only after a recent sign-in (G10)."""

    # Whether the admin signed in recently; set by `RecentSignInAdmin`.
    signed_in_recently = False

    def needs_recent_sign_in(self) -> bool:
        """Whether the changes are sensitive. Called after all fields are cleaned."""
        return True

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.signed_in_recently and self.needs_recent_sign_in():
            self.add_error(None, recent_sign_in_needed())
        return cleaned

    def ask_again_for_what_is_not_kept(self) -> None:
        """Add an error at each password and file of a form that comes back: a browser shows them empty (H10)."""
        for name, field in self.fields.items() if self.is_bound else ():
            if name not in self.errors and self[name].data and (message := _not_kept(field.widget)):
                self.add_error(name, ValidationError(message, "not_kept"))


def _not_kept(widget: forms.Widget) -> str:
    if isinstance(widget, forms.FileInput):
        return "Choose the file again: nothing was saved, and a browser does not keep a chosen file."
    if isinstance(widget, forms.PasswordInput) and not getattr(widget, "kept", None):
        return "Type it again: nothing was saved, and what was typed here is not kept."
    return ""


class RecentSignInAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # as above
    """A model admin whose form may be a `RecentSignInForm`, and is filled in by whoever uses it, not by a link."""

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:  # noqa: ARG002  # Django's signature
        """Ignore the query: a link of a stranger could fill in addresses, and Django fails for some values."""
        return {}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Refuse "save as new", for which no form of ours has a button: pages of rows fail without a row."""
        if "_saveasnew" in request.POST:
            raise BadRequest
        return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Set `signed_in_recently` on the form class, which Django creates for each request."""
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.signed_in_recently = signed_in_recently(request)
        return form

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        form = context["adminform"].form
        if isinstance(form, RecentSignInForm):
            form.ask_again_for_what_is_not_kept()
        return super().render_change_form(request, context, *args, **kwargs)


def change_own_password(request: HttpRequest) -> HttpResponse:
    """Serve `/admin/password_change/`, limited per admin: with a stolen session the password could be guessed."""
    if request.method == "POST" and request.user.is_authenticated:
        try:
            rate_limits.count(rate_limits.PASSWORD_CHANGES_PER_ADMIN, actor_of_admin(request.user.pk))
        except rate_limits.RateLimited as limit:
            return too_many_requests(request, limit.retry_after)
    return admin.site.admin_view(admin.site.password_change, cacheable=True)(request)


def admin_login(request: HttpRequest) -> HttpResponse:
    """Redirect `/admin/login/` to allauth's page. A signed-in user without access gets a 403, not a redirect loop."""
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
    """Limit POSTs to the sign-in pages by address, in the shared store (G8, G10). Drop future records.

    allauth limits failures of each account too, but its store is Django's cache, which is per process without Redis.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method == "POST" and request.path_info.startswith(PATH):
            try:
                rate_limits.count(rate_limits.SIGN_INS_PER_ADDRESS, client_address(request))
            except rate_limits.RateLimited as limit:
                return too_many_requests(request, limit.retry_after)
        if request.path_info.startswith(PATH):
            _drop_future_records(request)
        return get_response(request)

    return middleware


def lost_form_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Say on the sign-in page that a form was lost, if the session ended while it was open (H10)."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.method == "POST" and request.path_info.startswith("/admin/"):
            leads_to_sign_in = response.get("Location", "").startswith(f"{reverse('admin:login')}?")
            if leads_to_sign_in and not request.user.is_authenticated:
                messages.warning(request, NOT_SAVED)
        return response

    return middleware
