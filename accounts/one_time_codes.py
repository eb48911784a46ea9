"""Codes of authenticator apps: accepted one period early or late, and once (G10, RFC 6238 section 5.2).

allauth remembers a used code for one period, in the cache. That is too short once late codes are accepted, and without
Redis each worker has a cache of its own: a code that somebody read over the shoulder worked once more. So the period of
the last accepted code is kept in the authenticator's row.
"""

from typing import Any, Final

from allauth.core.internal.cryptokit import compare_user_code
from allauth.mfa.adapter import get_adapter
from allauth.mfa.base.forms import AuthenticateForm, ReauthenticateForm
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time

_LAST_PERIOD: Final = "last_period"


def use_code(authenticator: Authenticator, secret: str, code: str) -> bool:
    """Note the period of a code that was found right, and return whether this was its first use.

    False also for a code of a period before the last accepted one, and if another request changed the row meanwhile.
    """
    period = _period_of(secret, code)
    if period is None or _is_over(authenticator, period):
        return False
    rows = Authenticator.objects.filter(pk=authenticator.pk, data=authenticator.data)
    authenticator.data = authenticator.data | {_LAST_PERIOD: period}
    return bool(rows.update(data=authenticator.data))


def is_used(authenticator: Authenticator, secret: str, code: str) -> bool:
    """Whether the code is right, and was used before, or one after it."""
    period = _period_of(secret, code)
    return period is not None and _is_over(authenticator, period)


def _period_of(secret: str, code: str) -> int | None:
    return next((period for period in yield_hotp_counters_from_time() if _is_code_of(secret, period, code)), None)


def _is_over(authenticator: Authenticator, period: int) -> bool:
    """A last period in the future was noted while a server's clock was wrong, and does not count."""
    *_, newest = yield_hotp_counters_from_time()
    return bool(period <= authenticator.data.get(_LAST_PERIOD, 0) <= newest)


def _is_code_of(secret: str, period: int, code: str) -> bool:
    right: bool = compare_user_code(actual=code, expected=format_hotp_value(hotp_value(secret, period)))
    return right


class _UsedOnce:
    """Refuses a used code as a wrong one: whoever has only watched must not learn that it was right."""

    user: Any
    cleaned_data: dict[str, str]
    authenticator: Authenticator

    def clean_code(self) -> str:
        given = self.cleaned_data["code"]
        app = Authenticator.objects.filter(user=self.user, type=Authenticator.Type.TOTP).first()
        secret = get_adapter().decrypt(app.data["secret"]) if app else ""
        # First: allauth forgets the wrong tries before a right code, so a watched one would allow guesses without end.
        if app and is_used(app, secret, given):
            raise get_adapter().validation_error("incorrect_code")
        code: str = super().clean_code()  # type: ignore[misc]  # allauth's form
        found: Authenticator = self.authenticator
        if found.type == Authenticator.Type.TOTP and not use_code(found, secret, code):
            raise get_adapter().validation_error("incorrect_code")
        return code


class AuthenticateOnceForm(_UsedOnce, AuthenticateForm):  # type: ignore[misc]  # allauth has no types
    """The second step of a sign-in."""


class ReauthenticateOnceForm(_UsedOnce, ReauthenticateForm):  # type: ignore[misc]  # as above
    """The confirmation of an open session."""
