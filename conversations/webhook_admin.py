"""Django admin for webhook endpoints and deliveries. It never shows a payload.

The model of endpoints is in `brands`. Its admin is here, because a test event needs `conversations.flow`.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import ngettext

from accounts.sign_in import RecentSignInForm, recent_sign_in_needed, signed_in_recently
from brands.audited_changes import save_audited
from brands.models import EVENT_PATTERNS, WebhookEndpoint
from brands.scoped_admin import (
    ActiveFilter,
    BrandScopedAdmin,
    OwnFieldListFilter,
    ReadOnlyAdmin,
    StoredRowForm,
    administers_a_brand,
    copyable,
    may_test,
)
from brands.webhooks import create_webhook_endpoint, rotate_secret
from conversations.flow.events import erase_payloads_of_closed, publish_test, replay
from conversations.models import WebhookDelivery
from infrastructure.crypto import Secret


class WebhookEndpointForm(RecentSignInForm, StoredRowForm):
    """Needs a recent sign-in (G10): with a stolen session an attacker could add an endpoint and receive all events."""

    events = forms.MultipleChoiceField(
        choices=[(name, "* : every event" if name == "*" else name) for name in EVENT_PATTERNS],
        widget=forms.CheckboxSelectMultiple,
        initial=["*"],
        help_text="The events that are sent to this endpoint.",
    )

    class Meta:
        model = WebhookEndpoint
        fields = ("brand", "url", "label", "events", "is_active")
        help_texts = {"url": "It cannot be changed later. For another address add an endpoint; it gets its own secret."}

    def needs_recent_sign_in(self) -> bool:
        """Whether the endpoint is new, or its events or its active flag change."""
        return self.instance.pk is None or bool({"events", "is_active"} & set(self.changed_data))


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(BrandScopedAdmin):
    """Shows an endpoint's secret once: when it is created or replaced."""

    form = WebhookEndpointForm
    list_display = ("__str__", "brand", "url", "event_list", "is_active", "failing_since")
    list_filter = (ActiveFilter, ("brand", OwnFieldListFilter))
    allowed_lookups = ("brand__id__exact",)
    list_select_related = ("brand",)
    actions = ("send_test_event", "replace_secret")

    @admin.display(description="events")
    def event_list(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.events)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        editable = ("brand", "url", "label", "events", "is_active")
        return (*editable, "uuid", "created_at", "failing_since", "previous_secret_expires_at") if obj else editable

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Brand and URL of a saved endpoint are read-only: waiting events must not go to another address."""
        fixed = ("uuid", "created_at", "failing_since", "previous_secret_expires_at")
        return ("brand", "url", *fixed) if obj else ()

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Save the endpoint and its audit event. The secret of a new endpoint is shown in one message only."""
        if change:
            # Erase waiting events of closed conversations first: an endpoint that becomes active would get them.
            erase_payloads_of_closed(timezone.now())
            save_audited(obj, request.user)
        else:
            self._show(request, create_webhook_endpoint(obj, request.user))

    def _show(self, request: HttpRequest, secret: Secret) -> None:
        text = "Copy the signing secret now, it is never shown again: {}"
        value = copyable(secret.reveal(), "the signing secret")
        self.message_user(request, format_html(text, value), messages.SUCCESS)

    @admin.action(description="Send a test event to the selected endpoint")
    def send_test_event(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        """Write a test event to the outbox. The worker delivers it as any other event."""
        if (endpoint := self.only_selected(request, queryset)) is None:
            return
        if not endpoint.is_active or not endpoint.brand.is_active:
            self.message_user(request, "The endpoint or its brand is inactive.", messages.WARNING)
            return
        if not may_test(request):
            return
        publish_test(endpoint, timezone.now())
        text = "The test event will be sent. The list of webhook deliveries shows its outcome."
        self.message_user(request, text, messages.SUCCESS)

    @admin.action(description="Replace the secret of the selected endpoint")
    def replace_secret(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        """Create a new secret. For one day, deliveries are signed with both."""
        if (endpoint := self.only_selected(request, queryset)) is None:
            return
        if not signed_in_recently(request):
            self.message_user(request, recent_sign_in_needed().message, messages.ERROR)
            return
        secret = rotate_secret(endpoint, now=timezone.now(), user=request.user)
        self.log_change(request, endpoint, "Secret replaced.")
        self._show(request, secret)


class StateFilter(admin.SimpleListFilter):
    """Filters by state: waiting, delivered or dead."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in ("waiting", "delivered", "dead")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        rows: dict[str, dict[str, Any]] = {
            "waiting": {"delivered_at": None, "dead_at": None},
            "delivered": {"delivered_at__isnull": False},
            "dead": {"dead_at__isnull": False},
        }
        return queryset.filter(**rows.get(self.value() or "", {}))


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    """Webhook deliveries, read-only. Dead ones can be replayed."""

    list_display = ("event", "endpoint", "conversation", "created_at", "state", "attempts", "last_outcome")
    fields = (
        "event", "event_uuid", "endpoint", "conversation", "created_at", "state", "attempts", "last_outcome",
        "next_attempt_at", "give_up_at", "delivered_at", "dead_at", "can_be_replayed",
    )  # fmt: skip
    list_filter = (StateFilter, ("endpoint", OwnFieldListFilter), "event")
    allowed_lookups = ("endpoint__id__exact", "event__exact")
    list_select_related = ("endpoint__brand", "conversation")
    searched_by_prefix = "conversation__external_id"
    actions = ("replay_deliveries",)

    @admin.display(description="state")
    def state(self, delivery: WebhookDelivery) -> str:
        return "delivered" if delivery.delivered_at else "dead" if delivery.dead_at else "waiting"

    @admin.display(description="can be replayed", boolean=True)
    def can_be_replayed(self, delivery: WebhookDelivery) -> bool:
        return delivery.dead_at is not None and delivery.payload_ciphertext is not None

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """A brand's admins may send its dead letters again, to where they were meant to go."""
        return administers_a_brand(request)

    @admin.action(description="Replay the selected dead deliveries", permissions=["replay"])
    def replay_deliveries(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        """Put dead letters back into the outbox. They are tried for another 24 hours."""
        now = timezone.now()
        replayed = sum(replay(delivery, now) for delivery in queryset)
        text = ngettext("%d delivery will be sent again.", "%d deliveries will be sent again.", replayed)
        left = len(queryset) - replayed
        more = f" {left} cannot be replayed: delivered, still waiting, or erased." if left else ""
        self.message_user(request, text % replayed + more, messages.SUCCESS if replayed else messages.WARNING)
