"""Webhook endpoints: the URLs that receive a brand's events, and the secrets that sign them."""

from datetime import datetime
from typing import ClassVar, Final
from uuid import uuid4

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from brands.models.brand import Brand, BrandRowsQuerySet, CalledRow
from brands.models.private_networks import NetworkUse
from infrastructure.columns import EncryptedField, reveal, seal
from infrastructure.crypto import AssociatedData, Secret
from oauth_client import validators

EVERY_EVENT: Final = "*"
# Each event is written once per endpoint, while its conversation is locked.
MAX_ACTIVE_ENDPOINTS: Final = 10


class WebhookEvent(models.TextChoices):
    """The event types. `WEBHOOK_TEST` is sent only if an admin asks for it."""

    CHALLENGE_ISSUED = "challenge.issued"
    CHALLENGE_STARTED = "challenge.started"
    CHALLENGE_CONFIRMATION_NEEDED = "challenge.confirmation_needed"
    CHALLENGE_COMPLETED = "challenge.completed"
    CHALLENGE_DENIED = "challenge.denied"
    CHALLENGE_CANCELLED = "challenge.cancelled"
    CHALLENGE_EXPIRED = "challenge.expired"
    CHALLENGE_SUPERSEDED = "challenge.superseded"
    CHALLENGE_WITHDRAWN = "challenge.withdrawn"
    CHALLENGE_FAILED = "challenge.failed"
    AUTHORIZATION_REQUEST_FAILED = "authorization_request.failed"
    TOKEN_ISSUED = "token.issued"
    TOKEN_ENDED = "token.ended"
    TOKEN_READS_UNUSUAL = "token.reads_unusual"
    API_CALLS_UNUSUAL = "api.calls_unusual"
    CONVERSATION_CLOSED = "conversation.closed"
    SERVER_FAILING = "authorization_server.failing"
    SERVER_RECOVERED = "authorization_server.recovered"
    WEBHOOK_TEST = "webhook.test"


def group_of(event: str) -> str:
    """Return the pattern of an event's group, such as `challenge.*` for `challenge.issued`."""
    return f"{event.partition('.')[0]}.*"


_SELECTABLE: Final = [event.value for event in WebhookEvent if event != WebhookEvent.WEBHOOK_TEST]
# In the order of the admin form.
EVENT_PATTERNS: Final = (EVERY_EVENT, *dict.fromkeys(group_of(event) for event in _SELECTABLE), *_SELECTABLE)


def every_event() -> list[str]:
    """Default for `events`; Django needs a function here."""
    return [EVERY_EVENT]


def validate_events(value: object) -> None:
    """Refuse an empty list, repeated names and unknown events, because a typing error would silently match no event."""
    if not isinstance(value, list) or not value or not set(map(str, value)) <= set(EVENT_PATTERNS):
        raise ValidationError(f"Give a list of: {', '.join(EVENT_PATTERNS)}.", "unknown_event")
    if len(set(map(str, value))) != len(value):
        raise ValidationError("Name each event once.", "unknown_event")


class WebhookEndpoint(CalledRow):
    """A URL that receives a brand's events. The URL never changes; another URL is another endpoint.

    So an event that waits for one host is never sent to another.
    """

    network_use: ClassVar[NetworkUse] = NetworkUse.WEBHOOKS

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="webhook_endpoints")
    url = models.CharField("URL", max_length=2048, validators=[validators.validate_endpoint])
    label = models.CharField(max_length=80, blank=True, help_text="A name for this list.")
    events = models.JSONField(default=every_event, validators=[validate_events])
    is_active = models.BooleanField(
        default=True, help_text="Off: no new events are stored for this endpoint. Events that wait for it stay stored."
    )
    secret_ciphertext = EncryptedField(editable=False)
    previous_secret_ciphertext = EncryptedField(null=True, editable=False)
    previous_secret_expires_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    failing_since = models.DateTimeField(null=True, editable=False)

    objects = BrandRowsQuerySet["WebhookEndpoint"].as_manager()

    class Meta:
        ordering = ("brand", "url")
        constraints = [
            models.UniqueConstraint(fields=("brand", "url"), name="one_webhook_endpoint_per_brand_and_url"),
        ]

    def __str__(self) -> str:
        return self.label or self.url

    def clean(self) -> None:
        """Refuse more active endpoints than a brand may have. Raises `ValidationError`."""
        if not self.is_active or self.brand_id is None:
            return
        others = WebhookEndpoint.objects.filter(brand_id=self.brand_id, is_active=True).exclude(pk=self.pk)
        if others.count() >= MAX_ACTIVE_ENDPOINTS:
            message = f"A brand can have {MAX_ACTIVE_ENDPOINTS} active endpoints. Switch another one off first."
            field = "url" if self._state.adding else "is_active"
            raise ValidationError({field: ValidationError(message, "too_many_endpoints")})

    def wants(self, event: WebhookEvent) -> bool:
        return not {EVERY_EVENT, group_of(event.value), event.value}.isdisjoint(self.events)

    def set_secret(self, secret: Secret) -> None:
        """Encrypt the signing secret for this row. The row is not saved."""
        seal(self, "secret_ciphertext", secret)

    def reveal_secret(self) -> Secret:
        """Decrypt the signing secret. Raises `DecryptionError`."""
        return reveal(self, "secret_ciphertext")

    def replace_secret(self, secret: Secret, previous_until: datetime) -> None:
        """Set a new secret; the current one also signs until `previous_until`. The row is not saved.

        Raises `DecryptionError`.
        """
        seal(self, "previous_secret_ciphertext", self.reveal_secret())
        self.previous_secret_expires_at = previous_until
        self.set_secret(secret)

    def reveal_signing_secrets(self, now: datetime) -> list[Secret]:
        """Decrypt the secrets that sign at `now`, the newest first. Raises `DecryptionError`."""
        secrets = [self.reveal_secret()]
        if self.previous_secret_ciphertext is not None and (self.previous_secret_expires_at or now) > now:
            secrets.append(reveal(self, "previous_secret_ciphertext"))
        return secrets

    def associated_data(self, column: str) -> AssociatedData:
        return AssociatedData("brands_webhookendpoint", column, self.uuid, self.brand.uuid)
