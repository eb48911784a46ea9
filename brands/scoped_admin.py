"""A model admin that limits each user to the rows of their own brands (J1 to J8, J11).

A brand's viewers read these rows, its admins also change them. Scoping the list is not enough: foreign keys, filters
and lookups in the address each lead around it.
"""

import re
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.paginator import Paginator
from django.db import models
from django.forms import ModelForm, SplitDateTimeField
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.functional import cached_property
from django.utils.text import capfirst

from accounts.sign_in import ConfirmedAdmin
from brands.audited_changes import actor_of
from brands.models import Brand, memberships_of
from infrastructure import rate_limits

# A key as our pages write it, and that fits into a column of 64 bits.
_KEY: Final = re.compile(r"[0-9]{1,18}")

# Of a longer list the newest are shown: nobody turns ten thousand pages, and what is older is found by searching.
MOST_LISTED: Final = 10_000


class OwnFieldListFilter(admin.RelatedFieldListFilter):
    """Offers what belongs to the user's own brands, whether or not a row of the list names it (J4).

    Django's `RelatedOnlyFieldListFilter` reads the whole list to find out: seconds, of a million rows.
    """

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        own = field.remote_field.model._default_manager.visible_to(request.user)
        ordering = self.field_admin_ordering(field, request, model_admin)
        only = {"pk__in": own.order_by().values("pk")}
        return field.get_choices(include_blank=False, limit_choices_to=only, ordering=ordering)


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # no generics at run time
    """Counts no further than `MOST_LISTED`, so that neither the count nor the last page reads the whole table."""

    @cached_property
    def count(self) -> int:
        """Return how many rows can be paged through."""
        rows: Any = self.object_list
        return int(rows.order_by()[:MOST_LISTED].count())


class BrandScopedAdmin(ConfirmedAdmin):
    """Base of every model admin of ours.

    A brand's viewers see its rows, its admins also change them; no further permission has to be given. Lists show what
    is visible, and actions get only what the user administers. Nothing is deleted here: rows are switched off, revoked
    or pruned.
    """

    # Lookups that may stand in the address of a list. All others are a 400: `?digest__startswith=` is an oracle (J5).
    allowed_lookups: tuple[str, ...] = ()

    paginator = BoundedPaginator
    show_full_result_count = False

    class Media:
        css = {"all": ("admin_forms.css",)}

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows: Any = super().get_queryset(request)
        return rows.visible_to(request.user)  # type: ignore[no-any-return]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Show a viewer a plain form: ours count on having their fields, and there are none."""
        if obj is not None and not self.has_change_permission(request, obj):
            kwargs["form"] = ModelForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Leave out, where nothing can be typed, what the form asks for and no row has: it would read as empty."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        columns = {field.name for field in self.opts.fields}
        of_the_form = set(getattr(self.form, "declared_fields", ())) - columns
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name not in of_the_form]})
            for title, options in fieldsets
        ]

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Limit the choices and, with them, what a posted form may name (J2)."""
        related = db_field.remote_field.model
        own = kwargs["queryset"] = related._default_manager.administered_by(request.user)
        if len(only := own[:2]) == 1:
            kwargs["initial"] = only[0].pk
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Name both halves of a moment: Django's label stands for neither, and a screen reader reads nothing."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if isinstance(field, SplitDateTimeField):
            for half, widget in zip(("date", "time"), field.widget.widgets, strict=True):
                widget.attrs["aria-label"] = f"{capfirst(db_field.verbose_name)}: {half}"
        return field

    def only_selected(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> Any:
        """Return the one row that an action was called for; say so and return None where there is not just one."""
        selected = list(queryset[:2])
        if len(selected) == 1:
            return selected[0]
        self.message_user(request, f"Select one {self.opts.verbose_name}.", messages.WARNING)
        return None

    def may_test(self, request: HttpRequest) -> bool:
        """Count a call to a brand's server on an admin's behalf; say so and return False where it is too many (N9)."""
        try:
            rate_limits.count(rate_limits.CONNECTION_TESTS_PER_ADMIN, actor_of(request.user))
        except rate_limits.RateLimited as limit:
            self.message_user(request, f"Too many tests: wait {limit.retry_after} seconds.", messages.WARNING)
            return False
        return True

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Offer actions to admins of a brand alone (J11)."""
        return super().get_actions(request) if administers_a_brand(request) else {}

    def response_action(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:  # type: ignore[override]
        """Run an action on rows that the user administers; refuse it if another row is selected (J11).

        Answer 400 where a selected row is named by anything but a key: Django asks the database for it as it is.
        """
        keys = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if not all(_KEY.fullmatch(key) for key in keys):
            raise BadRequest
        own = queryset.administered_by(request.user)
        if queryset.filter(pk__in=keys).count() > own.filter(pk__in=keys).count():
            self.message_user(request, "Nothing was changed: you may only look at a selected row.", messages.WARNING)
            return None
        return super().response_action(request, own)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Refuse a viewer's form, whatever it holds (J11)."""
        if request.method == "POST" and not administers_a_brand(request):
            raise PermissionDenied
        return super().changelist_view(request, extra_context)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow the listed lookups alone (J5)."""
        return lookup in self.allowed_lookups

    def has_module_permission(self, request: HttpRequest) -> bool:
        return sees_a_brand(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Rows of other brands are never fetched, so membership is all there is to ask."""
        return sees_a_brand(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Without a row: whether the user administers any brand."""
        return administers_a_brand(request) if obj is None else administers(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return administers_a_brand(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing is deleted by hand."""
        return False


class ReadOnlyAdmin(BrandScopedAdmin):
    """For rows that only the flow may change."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only the flow adds rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only the flow changes rows."""
        return False


def sees_a_brand(request: HttpRequest) -> bool:
    """Whether the user is an admin or a viewer of any brand, or the operator."""
    user: Any = request.user
    return _is_staff(user) and bool(user.is_superuser or memberships_of(user).visible)


def administers_a_brand(request: HttpRequest) -> bool:
    """Whether the user is an admin of any brand, or the operator."""
    user: Any = request.user
    return _is_staff(user) and bool(user.is_superuser or memberships_of(user).administered)


def administers(request: HttpRequest, row: Any) -> bool:
    """Whether the user is an admin of this row's brand, or the operator. The row is a brand or has a `brand`."""
    user: Any = request.user
    brand_key = row.pk if isinstance(row, Brand) else row.brand_id
    return _is_staff(user) and bool(user.is_superuser or brand_key in memberships_of(user).administered)


def own_row_or_404(model: type[models.Model], request: HttpRequest, key: object, *, to_change: bool) -> Any:
    """Return the row with this primary key, for a view of our own in the admin (J1, J11).

    `to_change` says what the view does: read or change. It is about the view and not the HTTP method: a POST that only
    shows something may read, and a GET never changes. Raises `Http404` if the row is not visible to the user, and
    `PermissionDenied` if the view changes something and the user may only look.
    """
    user: Any = request.user
    visible: Any = model._default_manager
    if not _is_staff(user) or not _KEY.fullmatch(str(key)):
        raise Http404
    row = visible.visible_to(user).filter(pk=key).first()
    if row is None:
        raise Http404
    if to_change and not visible.administered_by(user).filter(pk=key).exists():
        raise PermissionDenied
    return row


def _is_staff(user: Any) -> bool:
    return bool(user.is_active and user.is_staff)
