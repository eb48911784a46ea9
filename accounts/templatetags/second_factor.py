"""Template filters: whether a user has a second factor, and what a session lacks."""

from typing import Any

from django.http import HttpRequest
from django.template import Library

from accounts.second_factor_demand import demand_of, second_factors_of

register = Library()


@register.filter
def has_second_factor(user: Any) -> bool:
    return bool(second_factors_of(user))


@register.filter
def second_factor_demand(request: HttpRequest) -> str:
    """Return the sentence that says what this session lacks; empty if it lacks nothing."""
    demand = demand_of(request)
    return demand.label if demand else ""
