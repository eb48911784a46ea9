"""With `REQUIRE_ADMIN_MFA`, a session opens the admin only after a second factor (G10).

Two sessions must not count. One whose user has no second factor: a stolen password would be enough. And one that was
opened with the password alone, before its user set a second factor up: whoever had stolen the password by then would
stay in, or add a passkey of their own.
"""

from collections.abc import Callable
from typing import Any, Final

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import record_authentication
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.views import ActivateTOTPView
from allauth.mfa.webauthn.views import AddWebAuthnView
from django.conf import settings
from django.contrib import messages
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode

from accounts.one_time_codes import use_code
from accounts.sign_in import NOT_SAVED

_SECOND_FACTORS: Final = frozenset({Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN})
_WHY: Final = "a stolen password alone must not open anything here."


class Demand(models.TextChoices):
    """What a session lacks, in the words that its pages show."""

    ENROL = "enrol", f"Set up a second factor first, an authenticator app or a security key: {_WHY}"
    CONFIRM = "confirm", "Confirm with your second factor first: this session was opened with the password alone."


def second_factors_of(user: Any) -> frozenset[str]:
    """Return the types of a user's second factors, read once for each user object. Recovery codes alone are none."""
    found: frozenset[str] | None = getattr(user, "second_factors", None)
    if found is None:
        types = Authenticator.objects.filter(user_id=user.pk, type__in=_SECOND_FACTORS).values_list("type", flat=True)
        found = user.second_factors = frozenset(types)
    return found


def demand_of(request: HttpRequest) -> Demand | None:
    """Return what this session lacks; None if it may go on, or if nobody is signed in."""
    user: Any = request.user
    if not settings.REQUIRE_ADMIN_MFA or not user.is_authenticated:
        return None
    if not second_factors_of(user):
        return Demand.ENROL
    used = any(record.get("method") == "mfa" for record in get_authentication_records(request, user))
    return None if used else Demand.CONFIRM


def second_factor_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Redirect a session that lacks a second factor to the page where it gets one, from everywhere in the admin."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith("/admin/"):
            return get_response(request)
        demand = demand_of(request)
        if demand is None or request.path.startswith(_reachable(demand)):
            return get_response(request)
        if request.method == "POST":  # such as a form that was open when the second factor became needed (H10)
            messages.warning(request, NOT_SAVED)
        return _to_enrolment() if demand is Demand.ENROL else _to_confirmation(request)

    return middleware


def _reachable(demand: Demand) -> tuple[str, ...]:
    names: tuple[str, ...] = ("account_logout", "admin:logout")
    if demand is Demand.CONFIRM:
        names += ("mfa_reauthenticate", "mfa_reauthenticate_webauthn")
    else:
        names += ("mfa_index", "account_reauthenticate", "admin:password_change")
    return tuple(map(reverse, names))


def _to_enrolment() -> HttpResponse:
    return redirect("mfa_index")


def _to_confirmation(request: HttpRequest) -> HttpResponse:
    has_app = Authenticator.Type.TOTP in second_factors_of(request.user)
    page = reverse("mfa_reauthenticate" if has_app else "mfa_reauthenticate_webauthn")
    wanted = request.get_full_path() if request.method == "GET" else reverse("admin:index")
    return redirect(f"{page}?{urlencode({'next': wanted})}")


class _ActivateTOTP(ActivateTOTPView):  # type: ignore[misc]  # allauth has no types
    def form_valid(self, form: Any) -> HttpResponse:
        """Count the code that was just typed as a use of the new authenticator app: it is not accepted again."""
        response: HttpResponse = super().form_valid(form)
        use_code(_count_as_used(self.request), form.secret, form.cleaned_data["code"])
        return response


class _AddWebAuthn(AddWebAuthnView):  # type: ignore[misc]  # as above
    def form_valid(self, form: Any) -> HttpResponse:
        """Count the registration, which its owner just confirmed, as a use of the new security key."""
        response: HttpResponse = super().form_valid(form)
        _count_as_used(self.request)
        return response


def _count_as_used(request: HttpRequest) -> Authenticator:
    newest = Authenticator.objects.filter(user_id=request.user.pk, type__in=_SECOND_FACTORS).latest("pk")
    record_authentication(request, request.user, "mfa", id=newest.pk, type=newest.type)
    return newest


activate_totp = _ActivateTOTP.as_view()
add_webauthn = _AddWebAuthn.as_view()
