"""Base classes of our model admins. A brand's admins see only rows of their own brands (J1 to J8).

Filtering the list is not enough: foreign keys, list filters and lookups in the URL could show other brands' rows, too.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest
from django.core.paginator import Paginator
from django.db import connection, models
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property

from accounts.sign_in import ConfirmedAdmin
from brands.audited_changes import actor_of
from brands.models import Brand
from infrastructure import rate_limits

# A primary key as our pages write it; it fits into 64 bits.
_KEY: Final = re.compile(r"[0-9]{1,18}")

# Longer lists show only the newest rows. Older rows can be found by searching.
MOST_LISTED: Final = 10_000


class OwnFieldListFilter(admin.RelatedFieldListFilter):
    """Offers the related rows of the admin's own brands, also those that no row of the list refers to (J4).

    Django's `RelatedOnlyFieldListFilter` offers only those in use. To find them it reads the whole list, which takes
    seconds for a million rows.
    """

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        own = field.remote_field.model._default_manager.administered_by(request.user)
        ordering = self.field_admin_ordering(field, request, model_admin)
        only = {"pk__in": own.order_by().values("pk")}
        return field.get_choices(include_blank=False, limit_choices_to=only, ordering=ordering)


class ActiveFilter(admin.SimpleListFilter):
    """Shows the active rows first: rows are never deleted, and what was tried once would stay in the list for good."""

    title = parameter_name = "state"

    def active(self) -> models.Q:
        return models.Q(is_active=True)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("inactive", "Inactive"), ("all", "All")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Name the choice without a parameter, which Django calls All."""
        first, *others = super().choices(changelist)
        yield {**first, "display": "Active"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> models.QuerySet[Any]:
        chosen = self.value()
        if chosen == "all":
            return queryset
        return queryset.exclude(self.active()) if chosen == "inactive" else queryset.filter(self.active())


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # no generics at run time
    """Stops counting at `MOST_LISTED`, so that neither the count nor the last page reads the whole table."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MOST_LISTED].count())


class BrandScopedAdmin(ConfirmedAdmin):
    """A brand's admins may view and change its rows; they need no Django permissions. Nothing can be deleted.

    Rows are switched off, revoked or pruned instead.
    """

    # Lookups allowed in a list's URL. All others get a 400. With `?digest__startswith=`, digests could be guessed (J5).
    allowed_lookups: tuple[str, ...] = ()

    # The column whose beginning the search box takes, such as `conversation__external_id`.
    searched_by_prefix = ""
    search_help_text = "The beginning of a conversation's id, or a whole UUID."

    paginator = BoundedPaginator
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows: Any = super().get_queryset(request)
        return rows.administered_by(request.user)  # type: ignore[no-any-return]

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return (self.searched_by_prefix,) if self.searched_by_prefix else ()

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        """Find rows by their own UUID or by the beginning of an id, both by index."""
        term = search_term.strip()
        if not term or not self.searched_by_prefix:
            return queryset, False
        if (uuid := _uuid(term)) and (found := queryset.filter(uuid=uuid)).exists():
            return found, False
        # The index begins with the brand, so the operator's search names all brands.
        brands = {f"{self._brand_path}__in": Brand.objects.keys_administered_by(request.user)}
        return queryset.filter(begins_with(self.searched_by_prefix, term), **brands), False

    @property
    def _brand_path(self) -> str:
        return str(self.model._default_manager.all().brand_path)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Limit the choices to the admin's own brands. Django refuses a posted value that is not a choice (J2)."""
        related = db_field.remote_field.model
        own = kwargs["queryset"] = related._default_manager.administered_by(request.user)
        if len(only := own[:2]) == 1:
            kwargs["initial"] = only[0].pk
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def only_selected(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> Any:
        """Return the selected row of an action. If none or several are selected, show a message and return None."""
        selected = list(queryset[:2])
        if len(selected) == 1:
            return selected[0]
        self.message_user(request, f"Select one {self.opts.verbose_name}.", messages.WARNING)
        return None

    def may_test(self, request: HttpRequest) -> bool:
        """Count an admin's request to a brand's server. After too many, show a message and return False (N9)."""
        try:
            rate_limits.count(rate_limits.CONNECTION_TESTS_PER_ADMIN, actor_of(request.user))
        except rate_limits.RateLimited as limit:
            self.message_user(request, f"Too many tests: wait {limit.retry_after} seconds.", messages.WARNING)
            return False
        return True

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse | None:
        """Answer 400 if a selected primary key is not a number: Django passes it to the database unchecked."""
        if not all(_KEY.fullmatch(key) for key in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            raise BadRequest
        return super().response_action(request, *args, **kwargs)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow only the listed lookups and the parameters of our own filters (J5)."""
        filters = [found for found in self.list_filter if isinstance(found, type)]
        own = [found.parameter_name for found in filters if issubclass(found, admin.SimpleListFilter)]
        return lookup in (*self.allowed_lookups, *own)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return _administers_a_brand(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user administers any brand. Rows of other brands are never fetched, so that is enough."""
        return _administers_a_brand(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _administers_a_brand(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _administers_a_brand(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyAdmin(BrandScopedAdmin):
    """For rows that only `conversations.flow` may add and change."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def begins_with(column: str, prefix: str) -> models.Q:
    """Return the condition that a text begins with exactly these characters, in the form that an index serves."""
    if connection.vendor == "postgresql":
        return models.Q(**{f"{column}__startswith": prefix})  # by an index with `varchar_pattern_ops`
    # SQLite's LIKE ignores upper and lower case, and uses no index if it has an ESCAPE clause.
    return models.Q(**{f"{column}__gte": prefix, f"{column}__lt": prefix + chr(sys.maxunicode)})


def _uuid(term: str) -> UUID | None:
    try:
        return UUID(term)
    except ValueError:
        return None


def _administers_a_brand(request: HttpRequest) -> bool:
    user: Any = request.user
    if not user.is_active or not user.is_staff:
        return False
    return bool(user.is_superuser or Brand.objects.keys_administered_by(user))
