"""Template filter for the admin index: whether a user has a second factor."""

from typing import Any

from allauth.mfa.utils import is_mfa_enabled
from django.template import Library

register = Library()


@register.filter
def has_second_factor(user: Any) -> bool:
    return bool(is_mfa_enabled(user))
