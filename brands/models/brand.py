"""A brand, the tenant that everything else starts from, with its logo and the keys of its bots."""

from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import uuid4

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone

from brands.branding import validate_support_contact

_Row = TypeVar("_Row", bound=models.Model)

slug_validator = RegexValidator(
    r"\A[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z",
    "Use lower-case letters, digits and hyphens, at most 64.",
    "invalid_slug",
)


class BrandQuerySet(models.QuerySet["Brand"]):
    """Brands as their admins may see them."""

    def administered_by(self, user: Any) -> "BrandQuerySet":
        """Return the brands of this admin; a superuser's are all of them."""
        return self if user.is_superuser else self.filter(admins=user)

    def keys_administered_by(self, user: Any) -> list[int]:
        """Return the primary keys of an admin's brands, asked for once for each user object, so once a request.

        Named and not joined: of a brand that it can see, the planner knows how many rows there are. It walked all of a
        million conversations for an admin whose brand had none.
        """
        found: list[int] | None = getattr(user, "brand_keys", None)
        if found is None:
            found = user.brand_keys = list(self.administered_by(user).order_by().values_list("pk", flat=True))
        return found


class Brand(models.Model):
    """A tenant: everything else starts from one."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    name = models.CharField(max_length=80, help_text="As consumers know it: it is the first thing they read.")
    slug = models.CharField(max_length=64, unique=True, validators=[slug_validator])
    admins = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="brands", blank=True)
    is_active = models.BooleanField(
        default=True, help_text="An inactive brand's bots and links are refused; nothing is deleted."
    )

    token_read_purpose_required = models.BooleanField(
        "each token read names its purpose",
        default=False,
        help_text="A bot that reads a token without saying what for is refused.",
    )
    accent_colour = models.CharField(
        max_length=7,
        blank=True,
        validators=[RegexValidator(r"\A#[0-9A-Fa-f]{6}\Z", "Write it as #1f4fbf.", "invalid_colour")],
        help_text="As #1f4fbf. Where it would be hard to read, text takes a darker or lighter shade of it.",
    )
    support_contact = models.CharField(
        max_length=255,
        blank=True,
        validators=[validate_support_contact],
        help_text="Where consumers find help: https://..., mailto:help@acme.example or tel:+4930123456.",
    )
    # Names the picture in its address, which can be kept for good; empty where there is none.
    logo_hash = models.CharField(max_length=16, blank=True, editable=False)

    objects = BrandQuerySet.as_manager()

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name

    @property
    def logo_url(self) -> str:
        """Return where we serve the logo; empty where there is none."""
        return reverse("brand_logo", args=[self.uuid, self.logo_hash]) if self.logo_hash else ""


class BrandRowsQuerySet(models.QuerySet[_Row]):
    """Rows that belong to a brand, which `brand_path` leads to (J1)."""

    brand_path = "brand"

    def administered_by(self, user: Any) -> Self:
        """Return the rows of this admin's brands; a superuser sees those of all."""
        if user.is_superuser:
            return self
        return self.filter(**{f"{self.brand_path}__in": Brand.objects.keys_administered_by(user)})


class Logo(models.Model):
    """A PNG of a few kilobytes, as `brands.branding` has drawn it."""

    brand = models.OneToOneField(Brand, on_delete=models.CASCADE, related_name="logo")
    png = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.brand} logo"


class BotKeyQuerySet(BrandRowsQuerySet["BotKey"]):
    """Keys by what they may still do."""

    def live(self, now: datetime | models.Expression) -> "BotKeyQuerySet":
        """Return the keys that are neither revoked nor expired, of brands that are active."""
        unexpired = models.Q(expires_at=None) | models.Q(expires_at__gt=now)
        return self.filter(unexpired, revoked_at=None, brand__is_active=True)


class BotKey(models.Model):
    """A bot's bearer key for our API. The key is shown once; the row keeps a keyed digest (G1)."""

    class Scope(models.TextChoices):
        """What a key may do. `token:read` is the crown jewel and never on by default (G3)."""

        CHALLENGE_CREATE = "challenge:create", "challenge:create: send links, complete and close"
        CHALLENGE_READ = "challenge:read", "challenge:read: see how it stands"
        TOKEN_READ = "token:read", "token:read: read access tokens"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="bot_keys")
    label = models.CharField(max_length=80)
    public_id = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.BinaryField(editable=False)
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    reads_unusual_at = models.DateTimeField("unusual token reads", null=True, blank=True, editable=False)

    objects = BotKeyQuerySet.as_manager()

    class Meta:
        ordering = ("brand", "label", "id")

    def __str__(self) -> str:
        return f"{self.label} ({self.public_id})"
