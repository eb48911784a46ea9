"""Django admin for webhooks: where bots are told, what is on its way, and what was given up. Never a payload.

The endpoints' rows are the brands'; their page is here, since a test event is written by the flow.
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

from accounts.sign_in import ConfirmedForm, confirmation_needed, signed_in_recently
from brands.audited_changes import save_audited
from brands.models import EVENT_PATTERNS, WebhookEndpoint
from brands.scoped_admin import BrandScopedAdmin, OwnFieldListFilter, ReadOnlyAdmin, administers_a_brand
from brands.webhooks import create_webhook_endpoint, rotate_secret
from conversations.flow.events import forget_challenges, publish_test, replay
from conversations.models import WebhookDelivery
from infrastructure.crypto import Secret


class WebhookEndpointForm(ConfirmedForm):
    """An endpoint. Who adds one reads along from then on, so a stolen session must not (G10)."""

    events = forms.MultipleChoiceField(
        choices=[(name, "* : every event" if name == "*" else name) for name in EVENT_PATTERNS],
        widget=forms.CheckboxSelectMultiple,
        initial=["*"],
        help_text="What the bot is told of.",
    )

    class Meta:
        model = WebhookEndpoint
        fields = ("brand", "url", "label", "events", "is_active")
        help_texts = {"url": "It never changes: another address is another endpoint, with a secret of its own."}

    def needs_confirmation(self) -> bool:
        """An address is told something, or told more."""
        return self.instance.pk is None or bool({"events", "is_active"} & set(self.changed_data))


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(BrandScopedAdmin):
    """An endpoint's secret is shown when it is made or replaced, and never again."""

    form = WebhookEndpointForm
    list_display = ("__str__", "brand", "url", "event_list", "is_active", "failing_since")
    list_filter = (("brand", OwnFieldListFilter), "is_active")
    allowed_lookups = ("brand__id__exact", "is_active__exact")
    list_select_related = ("brand",)
    actions = ("send_test_event", "replace_secret")

    @admin.display(description="events")
    def event_list(self, endpoint: WebhookEndpoint) -> str:
        """Show the patterns as words."""
        return ", ".join(endpoint.events)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Show what can be typed, and what is known of an old one."""
        typed = ("brand", "url", "label", "events", "is_active")
        return (*typed, "uuid", "created_at", "failing_since", "previous_secret_expires_at") if obj else typed

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """What was written for one address is never sent to another."""
        known = ("uuid", "created_at", "failing_since", "previous_secret_expires_at")
        return ("brand", "url", *known) if obj else ()

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Save it with its audit row; show a new one's secret in the one message that will ever hold it."""
        if change:
            forget_challenges(timezone.now())  # before one that was off gets what waited for it
            save_audited(obj, request.user)
        else:
            self._show(request, create_webhook_endpoint(obj, request.user))

    def _show(self, request: HttpRequest, secret: Secret) -> None:
        said = "Copy the signing secret now, it is never shown again: <code>{}</code>"
        self.message_user(request, format_html(said, secret.reveal()), messages.SUCCESS)

    @admin.action(description="Send a test event to the selected endpoint")
    def send_test_event(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        """Write a test event; the worker delivers it as every other."""
        if (endpoint := self.only_selected(request, queryset)) is None:
            return
        if not endpoint.is_active or not endpoint.brand.is_active:
            self.message_user(request, "The endpoint or its brand is switched off.", messages.WARNING)
            return
        if not self.may_test(request):
            return
        publish_test(endpoint, timezone.now())
        said = "A test event is on its way; the list of webhook deliveries says what became of it."
        self.message_user(request, said, messages.SUCCESS)

    @admin.action(description="Replace the secret of the selected endpoint")
    def replace_secret(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        """Give it a new secret; for a day both sign."""
        if (endpoint := self.only_selected(request, queryset)) is None:
            return
        if not signed_in_recently(request):
            self.message_user(request, confirmation_needed().message, messages.ERROR)
            return
        secret = rotate_secret(endpoint, now=timezone.now(), user=request.user)
        self.log_change(request, endpoint, "Secret replaced.")
        self._show(request, secret)


class StateFilter(admin.SimpleListFilter):
    """Where a delivery stands."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the three states."""
        return [(name, name) for name in ("waiting", "delivered", "dead")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the chosen one."""
        rows: dict[str, dict[str, Any]] = {
            "waiting": {"delivered_at": None, "dead_at": None},
            "delivered": {"delivered_at__isnull": False},
            "dead": {"dead_at__isnull": False},
        }
        return queryset.filter(**rows.get(self.value() or "", {}))


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    """What is told, to whom, and how it went."""

    list_display = ("event", "endpoint", "conversation", "created_at", "state", "attempts", "last_outcome")
    fields = (
        "event", "event_uuid", "endpoint", "conversation", "created_at", "state", "attempts", "last_outcome",
        "next_attempt_at", "given_up_at", "delivered_at", "dead_at", "can_be_replayed",
    )  # fmt: skip
    list_filter = (StateFilter, ("endpoint", OwnFieldListFilter), "event")
    allowed_lookups = ("state", "endpoint__id__exact", "event__exact")
    list_select_related = ("endpoint__brand", "conversation")
    search_fields = ("=conversation__external_id",)
    actions = ("replay_deliveries",)

    @admin.display(description="state")
    def state(self, delivery: WebhookDelivery) -> str:
        """Show in one word where it stands."""
        return "delivered" if delivery.delivered_at else "dead" if delivery.dead_at else "waiting"

    @admin.display(description="can be replayed", boolean=True)
    def can_be_replayed(self, delivery: WebhookDelivery) -> bool:
        return delivery.dead_at is not None and delivery.payload_ciphertext is not None

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """A brand's admins may send its dead letters again, to where they were meant to go."""
        return administers_a_brand(request)

    @admin.action(description="Replay the selected dead deliveries", permissions=["replay"])
    def replay_deliveries(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        """Put dead letters back, for another day."""
        now = timezone.now()
        replayed = sum(replay(delivery, now) for delivery in queryset)
        said = ngettext("%d delivery is on its way again.", "%d deliveries are on their way again.", replayed)
        left = len(queryset) - replayed
        more = f" {left} had nothing to send: delivered, still waiting, or erased." if left else ""
        self.message_user(request, said % replayed + more, messages.SUCCESS if replayed else messages.WARNING)
