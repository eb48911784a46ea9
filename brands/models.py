"""Brands, the authorization servers they sign their consumers in at, and the keys of their bots."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from brands import validators
from brands.oauth.configuration import ServerConfiguration
from delegation_site.crypto import Place, Secret, key_ring, random_token

# The product's own ceiling: no brand may keep a consumer's access token longer than this (E11).
MAX_TOKEN_LIFETIME = 7 * 24 * 60 * 60
# What an assumed lifetime may be at most, where the answer names none (E8).
MAX_DEFAULT_TOKEN_LIFETIME = 60 * 60

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


class Brand(models.Model):
    """A tenant: everything else starts from one."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    name = models.CharField(max_length=80, help_text="As consumers know it: it is the first thing they read.")
    slug = models.CharField(max_length=64, unique=True, validators=[slug_validator])
    admins = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="brands", blank=True)
    is_active = models.BooleanField(
        default=True, help_text="An inactive brand's bots and links are refused; nothing is deleted."
    )

    objects = BrandQuerySet.as_manager()

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name


class SamePersonCheck(models.TextChoices):
    """How we make sure that whoever signed in is the person in the chat (DESIGN section 3)."""

    COMPLETION_CODE = "completion_code", "Completion code: six digits, typed into the chat"
    NONE = "none", "None: whoever holds the link signs in for this chat, also when it was forwarded to them"


def validate_same_person_checks(value: object) -> None:
    """Refuse an unknown, doubled or empty list, and `none` beside others: a bot could pick it over a stronger one."""
    if not isinstance(value, list) or not value or not set(map(str, value)) <= set(SamePersonCheck.values):
        raise ValidationError(f"Give a list of: {', '.join(SamePersonCheck.values)}.", "invalid_same_person_checks")
    if len(set(value)) != len(value):
        raise ValidationError("Name each check once.", "invalid_same_person_checks")
    if SamePersonCheck.NONE in value and len(value) > 1:
        raise ValidationError("none can only stand alone.", "none_beside_others")


class AuthorizationServerQuerySet(models.QuerySet["AuthorizationServer"]):
    """Authorization servers as their admins and bots may see them."""

    def administered_by(self, user: Any) -> "AuthorizationServerQuerySet":
        """Return the servers of this admin's brands."""
        return self if user.is_superuser else self.filter(brand__admins=user)

    def active(self) -> "AuthorizationServerQuerySet":
        """Return those that new challenges may use."""
        return self.filter(is_active=True)


def default_same_person_checks() -> list[str]:
    """Return the safe default: the check that works in every channel."""
    return [SamePersonCheck.COMPLETION_CODE.value]


def default_id_token_algorithms() -> list[str]:
    """Return what OpenID Connect Core section 15.1 makes mandatory."""
    return ["RS256"]


def new_callback_id() -> str:
    """Return 128 random bits: each server has a redirect URI of its own, which nobody can guess (C1)."""
    return random_token(16)


class AuthorizationServer(models.Model):
    """A brand's OAuth 2.0 authorization server and our registration there as its client."""

    class ClientAuthentication(models.TextChoices):
        """The client authentication methods of RFC 7591 section 2 that we can use."""

        CLIENT_SECRET_BASIC = "client_secret_basic", "client_secret_basic: HTTP Basic"
        CLIENT_SECRET_POST = "client_secret_post", "client_secret_post: in the request's body"
        NONE = "none", "none: a public client, with PKCE alone"

    class BasicEncoding(models.TextChoices):
        """How HTTP Basic writes client id and secret; servers differ."""

        FORM = "form", "form: form-encoded first (RFC 6749 section 2.3.1)"
        RAW = "raw", "raw: as they are"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="authorization_servers")
    key = models.CharField(
        max_length=64, validators=[slug_validator], help_text="What bots call it, for example orders."
    )
    is_active = models.BooleanField(default=True)
    callback_id = models.CharField(max_length=32, unique=True, default=new_callback_id, editable=False)

    issuer = models.CharField(max_length=2048, blank=True, validators=[validators.validate_issuer])
    authorization_endpoint = models.CharField(max_length=2048, validators=[validators.validate_endpoint])
    token_endpoint = models.CharField(max_length=2048, validators=[validators.validate_endpoint])
    jwks_uri = models.CharField("JWKS URI", max_length=2048, blank=True, validators=[validators.validate_endpoint])
    authorization_response_iss_parameter_supported = models.BooleanField(
        "sends iss back (RFC 9207)",
        default=False,
        help_text="As its metadata says. When on, a success without iss is refused.",
    )

    client_id = models.CharField(max_length=255)
    client_secret_ciphertext = models.BinaryField(null=True, blank=True)
    token_endpoint_auth_method = models.CharField(
        max_length=32, choices=ClientAuthentication, default=ClientAuthentication.CLIENT_SECRET_BASIC
    )
    basic_encoding = models.CharField(max_length=8, choices=BasicEncoding, default=BasicEncoding.FORM)

    scope = models.CharField(max_length=1000, blank=True, validators=[validators.validate_scope])
    required_scope = models.CharField(
        max_length=1000,
        blank=True,
        validators=[validators.validate_scope],
        help_text="A grant without all of it is refused: some consent pages let the consumer untick scopes.",
    )
    extra_authorization_parameters = models.JSONField(
        default=dict, blank=True, validators=[validators.validate_extra_authorization_parameters]
    )
    prompt = models.CharField(
        max_length=32,
        blank=True,
        choices=[("login", "login"), ("consent", "consent"), ("select_account", "select_account")],
        help_text="login makes the consumer sign in even where the browser still is (OpenID Connect).",
    )
    max_age = models.PositiveIntegerField(null=True, blank=True, help_text="Seconds since the last sign-in, at most.")
    id_token_signing_alg_values = models.JSONField(
        "ID token algorithms",
        default=default_id_token_algorithms,
        blank=True,
        validators=[validators.validate_id_token_algorithms],
    )
    accept_form_encoded_tokens = models.BooleanField(default=False)
    accept_missing_token_type = models.BooleanField(default=False)

    same_person_checks = models.JSONField(
        default=default_same_person_checks,
        validators=[validate_same_person_checks],
        help_text="Accepted checks; the first is the default. none may only stand alone.",
    )
    default_token_lifetime = models.PositiveIntegerField(
        default=3600,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_DEFAULT_TOKEN_LIFETIME)],
        help_text="Seconds, where the server does not say.",
    )
    max_token_lifetime = models.PositiveIntegerField(
        default=86400, validators=[MinValueValidator(1), MaxValueValidator(MAX_TOKEN_LIFETIME)]
    )
    challenge_lifetime = models.PositiveIntegerField(
        default=900,
        validators=[MinValueValidator(300), MaxValueValidator(3600)],
        help_text="Seconds a link lives: long enough for a real sign-in with a second factor.",
    )

    objects = AuthorizationServerQuerySet.as_manager()

    class Meta:
        ordering = ("brand", "key")
        constraints = [
            models.UniqueConstraint(fields=("brand", "key"), name="one_server_per_brand_and_key"),
        ]

    def __str__(self) -> str:
        return f"{self.brand} {self.key}"

    def clean(self) -> None:
        """Refuse combinations that no single field can see. Raises `ValidationError`."""
        errors: dict[str, str] = {}
        if not set(self.required_scope.split()) <= set(self.scope.split()):
            errors["required_scope"] = "Ask for it in the scope as well."
        if "openid" in self.scope.split():
            errors |= {
                name: "OpenID Connect needs it: the ID token is verified against it."
                for name in ("issuer", "jwks_uri")
                if not getattr(self, name)
            }
        elif self.max_age is not None:
            errors["max_age"] = "It can only be checked in an ID token: add openid to the scope."
        if errors:
            raise ValidationError(errors)

    @property
    def redirect_uri(self) -> str:
        """Return the address to register at the brand. Built from configuration, never from a request (B16)."""
        return f"{settings.PUBLIC_BASE_URL}/callback/{self.callback_id}"

    @property
    def default_same_person_check(self) -> str:
        """Return the check of a challenge that names none."""
        return str(self.same_person_checks[0])

    def configuration(self, scope: str) -> ServerConfiguration:
        """Return what an attempt that asks for `scope` keeps of this server."""
        names = [name for name in ServerConfiguration.__struct_fields__ if name not in {"redirect_uri", "scope"}]
        values = {name: getattr(self, name) for name in names}
        return ServerConfiguration(redirect_uri=self.redirect_uri, scope=scope, **values)

    def set_client_secret(self, secret: Secret | None) -> None:
        """Encrypt the secret for this row, or forget it. The row is not saved."""
        ring = key_ring()
        self.client_secret_ciphertext = ring.encrypt(secret, self.place("client_secret_ciphertext")) if secret else None

    def reveal_client_secret(self) -> Secret | None:
        """Return the secret to be presented to the token endpoint. Raises `DecryptionError`."""
        if self.client_secret_ciphertext is None:
            return None
        return key_ring().decrypt(self.client_secret_ciphertext, self.place("client_secret_ciphertext"))

    def place(self, column: str) -> Place:
        """Return where a ciphertext of this row lives."""
        return Place("brands_authorizationserver", column, self.uuid, self.brand.uuid)


class BotKeyQuerySet(models.QuerySet["BotKey"]):
    """Keys by what they may still do."""

    def administered_by(self, user: Any) -> "BotKeyQuerySet":
        """Return the keys of this admin's brands."""
        return self if user.is_superuser else self.filter(brand__admins=user)

    def live(self, now: datetime) -> "BotKeyQuerySet":
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

    objects = BotKeyQuerySet.as_manager()

    class Meta:
        ordering = ("brand", "label", "id")

    def __str__(self) -> str:
        return f"{self.label} ({self.public_id})"
