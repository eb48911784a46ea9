"""Brands (our tenants), their logos and the keys of their bots."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Self, TypeVar
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone

from brands.branding import normalised_support_contact, validate_support_contact
from brands.models.private_networks import NetworkUse, networks_for_use, validate_private_networks
from oauth_client.addresses import PrivateNetwork, allowing

# How long a key is marked after unusual reads or calls, and the shortest time between two mails about either.
UNUSUAL_SHOWN: Final = timedelta(days=1)

_Row = TypeVar("_Row", bound=models.Model)

# A year.
MOST_IDLE_MINUTES: Final = 366 * 24 * 60
# Of a bot key, set by the operator alone (G12).
LIMITS_OF_A_KEY: Final = ("calls_per_minute", "token_reads_per_minute")
_IN_A_MINUTE: Final = [MinValueValidator(1), MaxValueValidator(10_000_000)]

slug_validator = RegexValidator(
    r"\A[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z",
    "Use lower-case letters, digits and hyphens, at most 64.",
    "invalid_slug",
)


class BrandQuerySet(models.QuerySet["Brand"]):
    """Brands by what a user of the admin may do with them (J7, J15)."""

    def visible_to(self, user: Any) -> "BrandQuerySet":
        """Return the brands that this user may look at, as an admin or as a viewer; a superuser sees all of them."""
        return self if user.is_superuser else self.filter(pk__in=memberships_of(user).visible)

    def administered_by(self, user: Any) -> "BrandQuerySet":
        """Return the brands that this user may change; a superuser may change all of them."""
        return self if user.is_superuser else self.filter(pk__in=memberships_of(user).administered)


class SupportContactField(models.CharField):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """A column that takes e-mail addresses and telephone numbers as people write them, in forms and in files."""

    def deconstruct(self) -> Any:
        """Describe the field to migrations as a plain `CharField`."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.CharField", args, options

    def to_python(self, value: Any) -> Any:
        return normalised_support_contact(value) if isinstance(value, str) else value


class ConversationIds(models.TextChoices):
    """Whether a conversation's id can be used again after the conversation was closed."""

    UNIQUE = "unique", "Each chat has an id of its own (unique)"
    REUSED = "reused", "An id comes back, as a telephone number does (reused)"


class Brand(models.Model):
    """A tenant. All other rows belong to one, directly or through others."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    name = models.CharField(max_length=80, help_text="The name that consumers know. Our pages show it first.")
    slug = models.CharField(max_length=64, unique=True, validators=[slug_validator])
    admins = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="brands", blank=True)
    viewers = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        related_name="viewed_brands",
        blank=True,
        help_text="They see what the admins see and change nothing. Whoever is chosen in both lists is an admin.",
    )
    is_active = models.BooleanField(
        default=True, help_text="Off: bots and links of this brand are refused. Nothing is deleted."
    )

    token_read_purpose_required = models.BooleanField(
        "token reads need a purpose",
        default=False,
        help_text="On: a bot that reads a token must name the purpose in its request.",
    )
    conversation_ids = models.CharField(
        max_length=8,
        choices=ConversationIds,
        default=ConversationIds.UNIQUE,
        help_text="Unique: a closed conversation never opens again. Reused, for WhatsApp, SMS or RCS: the next sign-in "
        "link under the id begins a new session, which can use nothing of the last one. When you change this, open "
        "chats stay open, and closed ones stay closed: only what may begin under their ids changes.",
    )
    close_idle_after = models.PositiveIntegerField(
        "close idle sessions after (minutes)",
        default=0,
        validators=[MaxValueValidator(MOST_IDLE_MINUTES)],
        help_text="Only if ids come back. A session without an open link and a live token is closed after this time, "
        "as if the bot had closed it. Token reads do not count. 0: never.",
    )
    accent_colour = models.CharField(
        max_length=7,
        blank=True,
        validators=[RegexValidator(r"\A#[0-9A-Fa-f]{6}\Z", "Write it as #1f4fbf.", "invalid_colour")],
        help_text="For example #1f4fbf. If text in it would be hard to read, a darker or lighter shade is used.",
    )
    support_contact = SupportContactField(
        max_length=255,
        blank=True,
        validators=[validate_support_contact],
        help_text="Where consumers find help: an e-mail address, a telephone number, or an address that begins with "
        "https://.",
    )
    # See `AllowedNetwork`. No form and no file sets them: `brands.private_networks` does, for the operator (N14).
    private_networks = models.JSONField(
        default=list, blank=True, editable=False, validators=[validate_private_networks]
    )
    # Part of the logo's URL, so that browsers may cache it for ever. Empty if there is no logo.
    logo_hash = models.CharField(max_length=16, blank=True, editable=False)

    objects = BrandQuerySet.as_manager()

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name

    def networks_for(self, use: NetworkUse) -> tuple[PrivateNetwork, ...]:
        """Return the private networks in which this brand may be called for a use (N14)."""
        return networks_for_use(self.private_networks, use)

    @property
    def reuses_conversation_ids(self) -> bool:
        return self.conversation_ids == ConversationIds.REUSED

    def clean(self) -> None:
        """Refuse to close idle conversations whose id could never be used again (S9). Raises `ValidationError`."""
        if self.close_idle_after and not self.reuses_conversation_ids:
            message = "Only if ids come back: a closed id would never open again. Write 0, or change the ids."
            raise ValidationError({"close_idle_after": ValidationError(message, "ids_are_unique")})

    @property
    def logo_url(self) -> str:
        """The logo's path on our server; empty if there is no logo."""
        return reverse("brand_logo", args=[self.uuid, self.logo_hash]) if self.logo_hash else ""


@dataclass(frozen=True)
class Memberships:
    """The primary keys of a user's brands. An admin of a brand may look at it, too."""

    administered: tuple[int, ...]
    visible: tuple[int, ...]


def memberships_of(user: Any) -> Memberships:
    """Return a user's memberships, read with one query for each user object, so once a request.

    The rows of brands are found by these keys and not by a join: the planner knows how many rows a key has. With a join
    it read all of a million conversations for an admin whose brand had none.
    """
    found: Memberships | None = getattr(user, "brand_memberships", None)
    if found is None:
        as_admin, as_viewer = (
            members._default_manager.filter(user_id=user.pk).values_list("brand_id", models.Value(is_admin))
            for members, is_admin in ((Brand.admins.through, 1), (Brand.viewers.through, 0))
        )
        rows = sorted(as_admin.union(as_viewer))
        administered = tuple(key for key, is_admin in rows if is_admin)
        found = user.brand_memberships = Memberships(administered, tuple(sorted({key for key, _ in rows})))
    return found


class BrandRowsQuerySet(models.QuerySet[_Row]):
    """Rows that belong to a brand (J1, J15). `brand_path` is the lookup from the row to its brand."""

    brand_path = "brand"

    def visible_to(self, user: Any) -> Self:
        """Return the rows that this user may look at, as an admin or as a viewer of their brand."""
        return self if user.is_superuser else self._of(memberships_of(user).visible)

    def administered_by(self, user: Any) -> Self:
        """Return the rows that this user may change, as an admin of their brand."""
        return self if user.is_superuser else self._of(memberships_of(user).administered)

    def _of(self, brand_keys: tuple[int, ...]) -> Self:
        return self.filter(**{f"{self.brand_path}__in": brand_keys})


class CalledRow(models.Model):
    """A row of a brand with addresses that we call, perhaps in a private network of the brand (N14)."""

    network_use: ClassVar[NetworkUse] = NetworkUse.SERVERS

    class Meta:
        abstract = True

    @property
    def called_for(self) -> Brand | None:
        """The brand that the addresses are called for; None while a new row has none."""
        return self.brand if self.brand_id else None  # type: ignore[attr-defined]  # each model has this column

    @property
    def private_networks(self) -> tuple[PrivateNetwork, ...]:
        """The private networks in which these addresses may be called."""
        brand = self.called_for
        return brand.networks_for(self.network_use) if brand else ()

    @contextmanager
    def in_private_networks(self) -> Iterator[None]:
        """Allow, in the block, validating and calling addresses in these networks."""
        with allowing(self.private_networks):
            yield

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Validate the addresses by what the brand may be called at. Raises `ValidationError`."""
        with self.in_private_networks():
            super().clean_fields(exclude)


class Logo(models.Model):
    """A PNG of a few kilobytes, made by `brands.branding.reencode_logo`."""

    brand = models.OneToOneField(Brand, on_delete=models.CASCADE, related_name="logo")
    png = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.brand} logo"


class BotKeyQuerySet(BrandRowsQuerySet["BotKey"]):
    def live(self, now: datetime | models.Expression) -> "BotKeyQuerySet":
        """Select keys of active brands that are neither revoked nor expired."""
        unexpired = models.Q(expires_at=None) | models.Q(expires_at__gt=now)
        return self.filter(unexpired, revoked_at=None, brand__is_active=True)

    def with_unusual(self, marked_at: str, now: datetime) -> "BotKeyQuerySet":
        """Select the live keys that were marked in the last day: `reads_unusual_at` or `calls_unusual_at`."""
        return self.live(now).filter(**{f"{marked_at}__gt": now - UNUSUAL_SHOWN, f"{marked_at}__lte": now})


def may_use_check(checks_of_key: Collection[str], same_person_check: str) -> bool:
    """Whether a bot key with this column `same_person_checks` may use the check. An empty one allows all."""
    return not checks_of_key or same_person_check in checks_of_key


class BotKey(models.Model):
    """A bot's bearer key for our API. The key is shown once; the row stores only a keyed digest (G1)."""

    class Scope(models.TextChoices):
        """What a key may do. `token:read` gives access to consumers' data and is never selected by default (G3)."""

        CHALLENGE_CREATE = "challenge:create", "challenge:create: create, complete, withdraw; close conversations"
        CHALLENGE_READ = "challenge:read", "challenge:read: read challenges and conversations"
        TOKEN_READ = "token:read", "token:read: read and end access tokens"
        API_CALL = "api:call", "api:call: call the declared operations of the brand's APIs"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="bot_keys")
    label = models.CharField(max_length=80)
    public_id = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.BinaryField(editable=False)
    scopes = models.JSONField(default=list)
    # The checks that its challenges may use, of those that the server accepts. Empty: all of them.
    same_person_checks = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    # Set by the operator alone (G12). None: as `infrastructure.rate_limits` has it for every key.
    calls_per_minute = models.PositiveIntegerField(null=True, blank=True, validators=_IN_A_MINUTE)
    token_reads_per_minute = models.PositiveIntegerField(null=True, blank=True, validators=_IN_A_MINUTE)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    reads_unusual_at = models.DateTimeField("unusual token reads", null=True, blank=True, editable=False)
    calls_unusual_at = models.DateTimeField("unusual API calls", null=True, blank=True, editable=False)
    # When the brand was last told of them.
    reads_unusual_told_at = models.DateTimeField(null=True, editable=False)
    calls_unusual_told_at = models.DateTimeField(null=True, editable=False)

    objects = BotKeyQuerySet.as_manager()

    class Meta:
        ordering = ("brand", "label", "id")

    def __str__(self) -> str:
        return f"{self.label} ({self.public_id})"

    def may_use(self, same_person_check: str) -> bool:
        """Whether a challenge of this key may use the check, if the authorization server accepts it, too."""
        return may_use_check(self.same_person_checks, same_person_check)
