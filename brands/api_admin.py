"""Django admin for a brand's APIs and the operations that its bots may call there."""

import json
import re
from functools import partial
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest
from django.urls import path
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from accounts.sign_in import RecentSignInForm
from brands.api_operations import validate_body_schema, validate_parameters
from brands.audited_changes import BrandEvent, save_audited
from brands.forms import ParametersField
from brands.models import AuthorizationServer, BrandAPI, Operation
from brands.models.brand_api import validate_description
from brands.openapi_page import import_page
from brands.operation_requests import WHY_NO_HOST
from brands.scoped_admin import ActiveFilter, BrandScopedAdmin, OwnFieldListFilter, StoredRowForm
from brands.server_rules import lock_server
from infrastructure.models import AuditEvent

_OF_ONE_LANGUAGE: Final = re.compile(r"([a-z]{2,3}(?:-[a-z]{2,4})?):\s*(.+)")
_LANGUAGES: Final = frozenset(code for code, _ in settings.LANGUAGES)
_TALL: Final = {"rows": 8, "class": "vLargeTextField", "spellcheck": "false"}


class DeclarationField(ParametersField):
    """JSON that is shown in lines. An empty field is nothing, and not the word null."""

    widget = forms.Textarea(attrs=_TALL)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, InvalidJSONInput):
            return value
        return "" if value is None else json.dumps(value, ensure_ascii=False, indent=2)


class DeclaredParametersField(DeclarationField):
    check_object = staticmethod(validate_parameters)


class BodySchemaField(DeclarationField):
    check_object = staticmethod(validate_body_schema)


class DescriptionField(forms.CharField):
    """One text, or a line for each language, such as `en: see your orders`."""

    widget = forms.Textarea(attrs={"rows": 2, "class": "vLargeTextField"})

    def to_python(self, value: Any) -> Any:
        lines = [line.strip() for line in str(super().to_python(value)).splitlines() if line.strip()]
        by_language = [_OF_ONE_LANGUAGE.fullmatch(line) for line in lines]
        is_one_text = len(lines) == 1 and (by_language[0] is None or by_language[0][1] not in _LANGUAGES)
        if is_one_text:
            description: Any = lines[0]
        elif None in by_language:
            message = "Write one line, or begin each line with its language, such as en: see your orders."
            raise ValidationError(message, "invalid_description")
        else:
            description = {found[1]: found[2] for found in by_language if found}
        validate_description(description)
        return description

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(f"{name}: {text}" for name, text in value.items()) if isinstance(value, dict) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare the texts, because a dictionary is no text."""
        return super().has_changed(self.prepare_value(initial), data)


class BrandAPIForm(RecentSignInForm, StoredRowForm):
    """Needs a recent sign-in (G10): with a stolen session an attacker could have tokens sent to a host of their own."""

    class Meta:
        model = BrandAPI
        fields = ("authorization_server", "key", "base_url", "host_member", "resource", "is_active")
        labels = {
            "authorization_server": "Authorization server",
            "base_url": "Address of the API (base URL)",
            "resource": "What its tokens are for (resource)",
        }
        help_texts = {
            "authorization_server": "Whose access tokens the API takes. It never changes: add another API for another "
            "server.",
            "key": "The name that configuration files use (key), for example orders-api. It never changes.",
            "base_url": "The paths of its operations are added to it, for example https://api.acme.example/v1. For a "
            "new host your consumers sign in again: a token only goes to a host that was set when it was issued.",
            "host_member": "Only if each of your customers has a host of their own: begin the host above with *. "
            "(https://*.my.salesforce.com), and name the member of the token response that says which host it is: "
            "instance_url. A token only goes to a host below that ending.",
            "resource": "Only for servers that support RFC 8707 and APIs that check whom a token is for: the URI by "
            "which the server knows the API. Each sign-in asks for it, beside the server's own resources. If the API "
            "refuses a token from before, its consumer signs in again.",
            "is_active": "Off: bots cannot call any of its operations.",
        }

    def clean(self) -> dict[str, Any]:
        """Lock the authorization server before the API, and check by what is stored of it now (B20)."""
        chosen = self.cleaned_data.get("authorization_server")
        pk = chosen.pk if chosen else self.instance.authorization_server_id
        server = lock_server(pk) if pk else None
        if server is not None and "authorization_server" in self.cleaned_data:
            self.cleaned_data["authorization_server"] = server
        elif server is not None:
            self.instance.authorization_server = server
        return super().clean()

    def needs_recent_sign_in(self) -> bool:
        """Whether tokens may go somewhere new. Switching an API off must be possible at once."""
        is_switched_on = "is_active" in self.changed_data and bool(self.cleaned_data.get("is_active"))
        return self.instance.pk is None or bool({"base_url", "host_member"} & {*self.changed_data}) or is_switched_on


@admin.register(BrandAPI)
class BrandAPIAdmin(BrandScopedAdmin):
    """Where bots' calls go. Its operations are a list of their own."""

    form = BrandAPIForm
    list_display = ("key", "brand", "authorization_server", "base_url", "is_active")
    list_filter = (ActiveFilter, ("brand", OwnFieldListFilter))
    allowed_lookups = ("brand__id__exact",)
    list_select_related = ("brand", "authorization_server__brand")
    fields = ("authorization_server", "key", "base_url", "host_member", "resource", "is_active")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Show what is known of a saved API, too."""
        return (*self.fields, "host_since", "last_refused_host") if obj else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """An API never moves to another authorization server, and files name its key."""
        return ("authorization_server", "key", "host_since", "last_refused_host") if obj else ()

    @admin.display(description="last token without a host for it")
    def last_refused_host(self, api: BrandAPI) -> str:
        """Say why the newest such token could not be used here, since the address is as it is."""
        kind, since = BrandEvent.API_HOST_REFUSED, api.host_since
        refused = AuditEvent.objects.filter(kind=kind, object_uuid=api.uuid, at__gte=since).first()
        if refused is None:
            return "-"
        return f"{refused.at:%Y-%m-%d %H:%M:%S} UTC: {WHY_NO_HOST[refused.outcome].format(api.host_member)}"

    def get_urls(self) -> list[Any]:
        """Add the page that imports an OpenAPI document, before the pattern that takes everything for a key."""
        view = require_http_methods(["GET", "HEAD", "POST"])(self.admin_site.admin_view(partial(import_page, self)))
        return [path("<int:pk>/import/", view, name="brands_brandapi_import"), *super().get_urls()]

    def save_model(self, request: HttpRequest, obj: Any, form: forms.ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Save it, and say what a new host means."""
        since = obj.host_since
        save_audited(obj, request.user)
        if change and obj.host_since != since:
            said = "The host is new: tokens that were issued before now are not sent there, so consumers sign in again."
            self.message_user(request, said, messages.WARNING)
        elif not change:
            said = "Declare its operations next: import them from your OpenAPI document, or add them one by one."
            self.message_user(request, said, messages.INFO)


def describe_scopes(operations: QuerySet[Operation], user: Any) -> list[str]:
    """Copy the words of operations that need one scope to servers that lack them. Return the scopes in order.

    They are copied and not looked up, so that the link's page needs no query of its own for them.
    """
    found, described = list(operations.select_related("api")), []
    with transaction.atomic():
        # Locked in one order: what another admin describes meanwhile is neither lost nor waited for by both.
        rows = AuthorizationServer.objects.select_for_update(of=("self",), no_key=True).select_related("brand")
        pks = {operation.api.authorization_server_id for operation in found}
        servers = {server.pk: server for server in rows.filter(pk__in=pks).order_by("pk")}
        for operation in found:
            server = servers[operation.api.authorization_server_id]
            is_one = operation.scope and " " not in operation.scope
            if is_one and operation.description and operation.scope not in server.scope_descriptions:
                server.scope_descriptions = {**server.scope_descriptions, operation.scope: operation.description}
                save_audited(server, user)
                described.append(operation.scope)
    return described


class OperationForm(StoredRowForm):
    """What is declared here, bots can call with the consumer's token; nothing else."""

    description = DescriptionField(
        label="What it does, for people",
        required=False,
        help_text="Short and with a verb, as in: see your orders. For several languages write one line each: "
        "en: see your orders.",
    )

    class Meta:
        model = Operation
        fields = (
            *("api", "name", "description", "is_active", "method", "path", "parameters", "scope"),
            *("body_schema", "is_body_required", "is_safe_to_repeat"),
        )
        field_classes = {"parameters": DeclaredParametersField, "body_schema": BodySchemaField}
        labels = {"scope": "Scope that the token needs"}
        help_texts = {
            "name": "Bots call it by this name, for example orders.list. It is unique in your brand.",
            "is_active": "Off: bots cannot call it.",
            "path": "Added to the address of the API. {order_id} stands for one whole segment: /orders/{order_id}.",
            "parameters": 'A list of {"name": "limit", "in": "query", "required": false, "schema": {"type": "integer", '
            '"maximum": 100}}; in is path, query or header. Each parameter of the path is declared, as required. Bots '
            "can send no other ones.",
            "scope": "Separate scopes with spaces. A token that lacks one is not sent: the bot asks for another "
            "sign-in.",
            "body_schema": 'JSON Schema of what bots may send, for example {"type": "object", "required": ["reason"], '
            '"properties": {"reason": {"type": "string", "maxLength": 200}}}. Empty: the request has no body. '
            "References ($ref), regular expressions (pattern) and uniqueItems are not read.",
            "is_body_required": "Off: bots may leave the body out.",
            "is_safe_to_repeat": "On: if no connection could be made, we try once more. Nothing is ever repeated after "
            "a byte was sent.",
        }

    def clean_parameters(self) -> list[Any]:
        return self.cleaned_data["parameters"] or []


@admin.register(Operation)
class OperationAdmin(BrandScopedAdmin):
    """The requests that bots may make."""

    form = OperationForm
    list_display = ("name", "api", "method", "path", "scope", "is_active")
    list_filter = (ActiveFilter, ("api", OwnFieldListFilter))
    allowed_lookups = ("api__id__exact",)
    list_select_related = ("api__brand",)
    actions = ("switch_on", "switch_off", "describe_scopes")
    fieldsets = (
        (None, {"fields": ("api", "name", "description", "is_active")}),
        ("The request", {"fields": ("method", "path", "parameters", "scope")}),
        (
            "Body, and repeating",
            {"classes": ("collapse",), "fields": ("body_schema", "is_body_required", "is_safe_to_repeat")},
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """An operation never moves to another API, whose host and token are others."""
        return ("api",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Any, form: forms.ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Save the operation and its audit event."""
        save_audited(obj, request.user)

    @admin.action(description="Switch the selected operations on")
    def switch_on(self, request: HttpRequest, queryset: QuerySet[Operation]) -> None:
        """Let bots call them from now on."""
        self._switch(request, queryset, is_active=True)

    @admin.action(description="Switch the selected operations off")
    def switch_off(self, request: HttpRequest, queryset: QuerySet[Operation]) -> None:
        """Refuse calls of them from now on."""
        self._switch(request, queryset, is_active=False)

    @admin.action(description="Tell consumers of the selected operations, by their scopes")
    def describe_scopes(self, request: HttpRequest, queryset: QuerySet[Operation]) -> None:
        """Describe scopes on the link's page by these operations' words, where the server has none."""
        described = describe_scopes(queryset, request.user)
        if described:
            said = f"The link's page now describes {', '.join(described)}, once it can describe all that is asked for."
            self.message_user(request, said, messages.SUCCESS)
        else:
            said = "Nothing was changed: choose operations with words and one scope that the server does not describe."
            self.message_user(request, said, messages.WARNING)

    def _switch(self, request: HttpRequest, queryset: QuerySet[Operation], *, is_active: bool) -> None:
        switched = list(queryset.exclude(is_active=is_active))
        for operation in switched:
            operation.is_active = is_active
            save_audited(operation, request.user)
        said = ngettext("%d operation switched %s.", "%d operations switched %s.", len(switched))
        self.message_user(request, said % (len(switched), "on" if is_active else "off"), messages.SUCCESS)
