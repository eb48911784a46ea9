"""Base classes of our model admins. Users see only rows of their own brands (J1 to J8, J15).

A brand's viewers read these rows, its admins also change them. Filtering the list is not enough: foreign keys, list
filters and lookups in the URL could show other brands' rows, too.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.core.exceptions import NON_FIELD_ERRORS, BadRequest, PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import connection, models
from django.forms import ModelForm, SplitDateTimeField, model_to_dict
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.crypto import salted_hmac
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from accounts.sign_in import RecentSignInAdmin
from brands.audited_changes import actor_of
from brands.models import Brand, memberships_of
from infrastructure import rate_limits

# A primary key as our pages write it; it fits into 64 bits.
_KEY: Final = re.compile(r"[0-9]{1,18}")

_CHANGED_MEANWHILE: Final = (
    "This {} was saved while this form was open, in another tab or by somebody else. Nothing was saved now. "
    '<a href="" target="_blank">Look at what is stored</a>, then save again: what this form shows is stored then.'
)

# Longer lists show only the newest rows. Older rows can be found by searching.
MOST_LISTED: Final = 10_000


class OwnFieldListFilter(admin.RelatedFieldListFilter):
    """Offers the related rows of the user's own brands, also those that no row of the list refers to (J4).

    Django's `RelatedOnlyFieldListFilter` offers only those in use. To find them it reads the whole list, which takes
    seconds for a million rows.
    """

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        own = field.remote_field.model._default_manager.visible_to(request.user)
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


class StoredRowForm(ModelForm):  # type: ignore[type-arg]  # no generics at run time
    """A form that is not saved over what another save has changed since the form was opened (H10)."""

    # The fingerprint that the page of this form had when it was opened; empty for a new row.
    seen = ""

    def clean(self) -> dict[str, Any]:
        """Refuse an older form. The row stays locked until the save, so that no other save comes in between."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.seen and self.instance.pk and self._would_undo_another_save():
            words = format_html(_CHANGED_MEANWHILE, self.instance._meta.verbose_name)
            self.add_error(None, ValidationError(words, "changed_meanwhile"))
        return cleaned

    def _would_undo_another_save(self) -> bool:
        """Whether another save was faster, and this one would change anything. A form may be sent twice."""
        rows = type(self.instance)._default_manager.select_for_update(no_key=True)
        is_changed = not set(self._columns).isdisjoint(self.changed_data)
        return is_changed and self.seen != self.fingerprint(rows.get(pk=self.instance.pk))

    @property
    def _columns(self) -> list[str]:
        options = self.instance._meta
        return [field.name for field in (*options.fields, *options.many_to_many) if field.name in self.fields]

    def fingerprint(self, row: models.Model) -> str:
        """Return a digest of the values of a stored row that this form can change."""
        values = [(name, _comparable(value)) for name, value in model_to_dict(row, self._columns).items()]
        return salted_hmac("brands.scoped_admin.seen", repr(values), algorithm="sha256").hexdigest()

    def seen_now(self) -> str:
        """Return the fingerprint for the page: that of the stored row once the admin was told that it has changed."""
        if self.instance.pk is None or (self.seen and not self.has_error(NON_FIELD_ERRORS, "changed_meanwhile")):
            return self.seen
        stored = type(self.instance)._default_manager.get(pk=self.instance.pk) if self.is_bound else self.instance
        return self.fingerprint(stored)


def _comparable(value: Any) -> Any:
    """Name related rows by their keys, in order."""
    is_rows = isinstance(value, list) and value and all(isinstance(one, models.Model) for one in value)
    return sorted(one.pk for one in value) if is_rows else value


class BrandScopedAdmin(RecentSignInAdmin):
    """A brand's members need no Django permissions. Nothing can be deleted.

    A brand's viewers see its rows, and its admins also change them. Lists show what is visible. Actions get only what
    the user administers. Rows are switched off, revoked or pruned instead.
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
        return rows.visible_to(request.user)  # type: ignore[no-any-return]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Show a viewer a plain form: ours count on having their fields, and there are none."""
        if obj is not None and not self.has_change_permission(request, obj):
            words = getattr(self.form, "_meta", None)
            kwargs |= {"form": ModelForm, "labels": words and words.labels, "help_texts": words and words.help_texts}
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.seen = request.POST.get("seen", "")
        return form

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Give the page the fingerprint of what it shows."""
        form = context["adminform"].form
        if isinstance(form, StoredRowForm):
            context["seen"] = form.seen_now()
        return super().render_change_form(request, context, *args, **kwargs)

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
        user: Any = request.user
        if user.is_superuser:
            # The index begins with the brand, so the operator's search names all brands, as keys for the planner.
            queryset = queryset.filter(**{f"{self._brand_path}__in": list(Brand.objects.values_list("pk", flat=True))})
        return queryset.filter(begins_with(self.searched_by_prefix, term)), False

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

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Name both halves of a moment: Django's label stands for neither, and a screen reader reads nothing.

        Offer a choice without Django's three pictures beside it, which open another form in a window.
        """
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget = field.widget.widget
        if isinstance(field, SplitDateTimeField):
            for half, widget in zip(("date", "time"), field.widget.widgets, strict=True):
                widget.attrs["aria-label"] = f"{capfirst(db_field.verbose_name)}: {half}"
        return field

    def only_selected(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> Any:
        """Return the selected row of an action. If none or several are selected, show a message and return None."""
        selected = list(queryset[:2])
        if len(selected) == 1:
            return selected[0]
        self.message_user(request, f"Select one {self.opts.verbose_name}.", messages.WARNING)
        return None

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Offer actions to admins of a brand alone (J15). Django 6.1 says where they are shown; 5.2 does not."""
        where = {} if action_location is None else {"action_location": action_location}
        return super().get_actions(request, **where) if administers_a_brand(request) else {}

    def response_action(  # type: ignore[override]
        self, request: HttpRequest, queryset: Any, **where: Any
    ) -> HttpResponse | None:
        """Run an action on rows that the user administers; refuse it if another row is selected (J15).

        Answer 400 where a selected row is named by anything but a key: Django asks the database for it as it is.
        """
        keys = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if not all(map(is_key, keys)):
            raise BadRequest
        own = queryset.administered_by(request.user)
        if queryset.filter(pk__in=keys).count() > own.filter(pk__in=keys).count():
            self.message_user(request, "Nothing was changed: you may only look at a selected row.", messages.WARNING)
            return None
        return super().response_action(request, own, **where)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Refuse a viewer's form, whatever it holds (J15). The heading says what is listed."""
        if request.method == "POST" and not administers_a_brand(request):
            raise PermissionDenied
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow only the listed lookups and the parameters of our own filters (J5)."""
        filters = [found for found in self.list_filter if isinstance(found, type)]
        own = [found.parameter_name for found in filters if issubclass(found, admin.SimpleListFilter)]
        return lookup in (*self.allowed_lookups, *own)

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


def may_test(request: HttpRequest) -> bool:
    """Count a call to a brand's server on an admin's behalf (N9). Show a message and return False if it is too many."""
    try:
        rate_limits.count(rate_limits.CONNECTION_TESTS_PER_ADMIN, actor_of(request.user))
    except rate_limits.RateLimited as limit:
        messages.warning(request, f"Too many tests: wait {limit.retry_after} seconds.")
        return False
    return True


def is_key(text: str) -> bool:
    """Whether a text is a primary key as our pages write it. The database would refuse a longer number."""
    return _KEY.fullmatch(text) is not None


def own_row_or_404(model: type[models.Model], request: HttpRequest, key: object, *, to_change: bool) -> Any:
    """Return the row with this primary key, for a view of our own in the admin (J1, J15).

    `to_change` says what the view does: read or change. It is about the view and not the HTTP method: a POST that only
    shows something may read, and a GET never changes. Raises `Http404` if the row is not visible to the user, and
    `PermissionDenied` if the view changes something and the user may only look.
    """
    user: Any = request.user
    visible: Any = model._default_manager
    if not _is_staff(user) or not is_key(str(key)):
        raise Http404
    row = visible.visible_to(user).filter(pk=key).first()
    if row is None:
        raise Http404
    if to_change and not visible.administered_by(user).filter(pk=key).exists():
        raise PermissionDenied
    return row


def copyable(text: str, name: str) -> SafeString:
    """Return a text that is pasted elsewhere, with a button that copies it. `name` is what the button calls it."""
    return render_to_string("admin/copyable.html", {"text": text, "name": name})


def no_autocomplete(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # a view
    """`/admin/autocomplete/` is not found (J3): no form has such a field, and Django's view fails for some names."""
    raise Http404


def _is_staff(user: Any) -> bool:
    return bool(user.is_active and user.is_staff)
