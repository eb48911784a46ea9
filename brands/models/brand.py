"""A brand: the tenant that everything else starts from."""

from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse

from brands.wording import validate_support_contact

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
        """Return the primary keys of an admin's brands, for the queries of what belongs to them.

        Named and not joined: of a brand that it can see, the planner knows how many rows there are. It walked all of a
        million conversations for an admin whose brand had none.
        """
        return list(self.administered_by(user).order_by().values_list("pk", flat=True))


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
