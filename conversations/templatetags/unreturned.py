"""Sign-ins that never came back, for the admin's page of a server, which belongs to `brands`."""

from django.template import Library
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.failures_in_words import unreturned_sign_ins

register = Library()


@register.filter
def unreturned(server: AuthorizationServer) -> int:
    """Count them, as `unreturned_sign_ins` does."""
    return unreturned_sign_ins(server, timezone.now())
