"""The audit log's events about a row, for the history page of every model admin."""

from typing import Any

from django.template import Library

from conversations.object_history import Line, history_of

register = Library()


@register.filter
def audit_history(row: Any) -> list[Line]:
    """Return them, as `history_of` does."""
    return history_of(row)
