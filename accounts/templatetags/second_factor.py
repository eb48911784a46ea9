"""What the admin's first page knows about the second factor of whoever looks at it."""

from typing import Any

from allauth.mfa.utils import is_mfa_enabled
from django.template import Library

register = Library()


@register.filter
def has_second_factor(user: Any) -> bool:
    """Tell whether an authenticator app or a passkey is set up."""
    return bool(is_mfa_enabled(user))
