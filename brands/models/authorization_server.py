"""A brand's authorization server, and our registration there as its client."""

from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from brands.branding import validate_scope_descriptions
from brands.models.brand import Brand, BrandRowsQuerySet, slug_validator
from brands.models.same_person import SamePersonCheck, validate_same_person_checks
from infrastructure.columns import EncryptedField, reveal_if_there, seal
from infrastructure.crypto import AssociatedData, Secret, new_signing_key, random_token
from oauth_client import validators
from oauth_client.authorization import authorization_url
from oauth_client.configuration import ClientCredentials, ServerConfiguration
from oauth_client.errors import AuthorizationServerError
from oauth_client.token import MAX_ASSUMED_LIFETIME, MAX_TOKEN_LIFETIME

# For how long the old public key stays published after its last signature: assertions live a minute, clocks differ.
OLD_KEY_PUBLISHED_FOR: Final = timedelta(hours=1)


class AuthorizationServerQuerySet(BrandRowsQuerySet["AuthorizationServer"]):
    """Authorization servers as their admins and bots may see them."""

    def active(self) -> "AuthorizationServerQuerySet":
        return self.filter(is_active=True)


def default_same_person_checks() -> list[str]:
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
        PRIVATE_KEY_JWT = "private_key_jwt", "private_key_jwt: signed with a key of this server's own (RFC 7523)"
        NONE = "none", "none: a public client, with PKCE alone"

    class BasicEncoding(models.TextChoices):
        """How HTTP Basic writes client id and secret; servers differ."""

        FORM = "form", "form: form-encoded first (RFC 6749 section 2.3.1)"
        RAW = "raw", "raw: as they are"

    class ScopeSeparator(models.TextChoices):
        """How a server separates scopes on the wire; servers differ."""

        SPACE = "space", "space: as RFC 6749 section 3.3 says"
        COMMA = "comma", "comma: in requests and answers (Strava, TikTok, Shopify)"
        COMMA_IN_RESPONSE = "comma_in_response", "comma in answers alone (GitHub, LinkedIn)"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="authorization_servers")
    key = models.CharField(
        max_length=64, validators=[slug_validator], help_text="What bots call it, for example orders."
    )
    is_active = models.BooleanField(default=True)
    callback_id = models.CharField(max_length=32, unique=True, default=new_callback_id, editable=False)

    issuer = models.CharField(max_length=2048, blank=True, validators=[validators.validate_issuer])
    authorization_endpoint = models.CharField(max_length=2048, validators=[validators.validate_authorization_endpoint])
    token_endpoint = models.CharField(max_length=2048, validators=[validators.validate_endpoint])
    revocation_endpoint = models.CharField(
        max_length=2048,
        blank=True,
        validators=[validators.validate_endpoint],
        help_text="Tokens that end early are revoked there (RFC 7009).",
    )
    pushed_authorization_request_endpoint = models.CharField(
        max_length=2048,
        blank=True,
        validators=[validators.validate_endpoint],
        help_text="Where there is one, authorization requests are pushed (RFC 9126).",
    )
    jwks_uri = models.CharField("JWKS URI", max_length=2048, blank=True, validators=[validators.validate_endpoint])
    authorization_response_iss_parameter_supported = models.BooleanField(
        "sends iss back (RFC 9207)",
        default=False,
        help_text="As its metadata says. When on, a success without iss is refused.",
    )
    ignored_metadata = models.JSONField(
        "not used, although the server announces it",
        default=list,
        blank=True,
        validators=[validators.validate_ignored_metadata],
    )

    client_id = models.CharField(max_length=255)
    client_secret_ciphertext = EncryptedField(null=True, blank=True)
    token_endpoint_auth_method = models.CharField(
        max_length=32, choices=ClientAuthentication, default=ClientAuthentication.CLIENT_SECRET_BASIC
    )
    signing_key_ciphertext = EncryptedField(null=True, blank=True)
    signing_key_jwk = models.JSONField(null=True, blank=True, editable=False)
    # While a key is replaced with an overlap: the old one, and until when it signs.
    previous_signing_key_ciphertext = EncryptedField(null=True, editable=False)
    previous_signing_key_jwk = models.JSONField(null=True, editable=False)
    previous_signing_key_signs_until = models.DateTimeField(null=True, editable=False)
    basic_encoding = models.CharField(max_length=8, choices=BasicEncoding, default=BasicEncoding.FORM)
    send_client_id_with_basic = models.BooleanField(
        "send client_id beside Basic",
        default=False,
        help_text="In the body, too: some servers demand it (MCP's Python SDK), others refuse it.",
    )

    scope = models.CharField(
        max_length=validators.MAX_SCOPE_LENGTH,
        blank=True,
        validators=[validators.validate_scope],
        help_text="With a space between two, whatever separates them on the wire.",
    )
    required_scope = models.CharField(
        max_length=validators.MAX_SCOPE_LENGTH,
        blank=True,
        validators=[validators.validate_scope],
        help_text="A grant without all of it is refused: some consent pages let the consumer untick scopes.",
    )
    scope_separator = models.CharField(
        max_length=24,
        choices=ScopeSeparator,
        default=ScopeSeparator.SPACE,
        help_text="On the wire: bots and this page always have spaces.",
    )
    resource = models.JSONField(
        default=list,
        blank=True,
        validators=[validators.validate_resources],
        help_text="The APIs that the token is for, where the server binds it to some (RFC 8707): one address a line.",
    )
    scope_descriptions = models.JSONField(
        default=dict,
        blank=True,
        validators=[validate_scope_descriptions],
        help_text="What consumers read for each scope. Shown once every scope that is asked for has words.",
    )
    extra_authorization_parameters = models.JSONField(
        default=dict, blank=True, validators=[validators.validate_extra_authorization_parameters]
    )
    prompt = models.CharField(
        max_length=32,
        blank=True,
        default="login",
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
    denial_codes = models.CharField(
        max_length=1300,
        blank=True,
        validators=[validators.validate_denial_codes],
        help_text="Error codes by which this server says that the consumer cancelled, separated by spaces. "
        "access_denied and the well-known ones need not be named.",
    )
    trusted_audiences = models.JSONField(
        default=list,
        blank=True,
        validators=[validators.validate_audiences],
        help_text="Others that an ID token without azp may name in aud beside our client id: one a line.",
    )
    accept_scope_in_authorization_response = models.BooleanField(
        default=False,
        help_text="Where the token answer names no scope, one in the redirect narrows what was asked for.",
    )
    accept_form_encoded_tokens = models.BooleanField(default=False)
    accept_missing_token_type = models.BooleanField(default=False)
    accepted_token_type = models.CharField(
        max_length=64,
        blank=True,
        validators=[validators.validate_token_type],
        help_text="What the server writes in place of Bearer: BearerToken (Apigee), User Access Token (eBay).",
    )
    accept_zero_expires_in = models.BooleanField(
        default=False,
        help_text="An expires_in of 0 means that the lifetime is not told (Mailchimp, VK): the default below holds.",
    )
    token_response_members = models.JSONField(
        default=list, blank=True, validators=[validators.validate_token_response_members]
    )

    same_person_checks = models.JSONField(
        default=default_same_person_checks,
        validators=[validate_same_person_checks],
        help_text="Accepted checks; the first is the default. none may only stand alone.",
    )
    subject_claim = models.CharField(
        max_length=64,
        default="sub",
        validators=[RegexValidator(r"\A[A-Za-z0-9_:/.-]+\Z", "This is not the name of a claim.", "invalid_claim")],
        help_text="The ID token's claim that expected_subject is compared with.",
    )
    chat_page_url = models.CharField(
        "chat page",
        max_length=2048,
        blank=True,
        validators=[validators.validate_endpoint],
        help_text="For the check chat_page: where the consumer is sent back to, with a handle in the fragment.",
    )
    default_token_lifetime = models.PositiveIntegerField(
        default=3600,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_ASSUMED_LIFETIME)],
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
        if self.scope_separator != self.ScopeSeparator.SPACE:
            message = "Write a space between two scopes, here too: the comma is put in where it is sent."
            errors |= {name: message for name in ("scope", "required_scope") if "," in getattr(self, name)}
        if SamePersonCheck.CHAT_PAGE in self.same_person_checks and not self.chat_page_url:
            errors["chat_page_url"] = "The check chat_page needs it."
        if "openid" in self.scope.split():
            # HS256 is verified with the client secret, everything else with the server's keys.
            needed = ("issuer",) if self.id_token_signing_alg_values == ["HS256"] else ("issuer", "jwks_uri")
            errors |= {
                name: "OpenID Connect needs it: the ID token is verified against it."
                for name in needed
                if not getattr(self, name)
            }
            if not self.id_token_signing_alg_values:
                errors["id_token_signing_alg_values"] = "Name at least one: no ID token could be verified."
        else:
            errors |= self._errors_without_openid()
        errors |= self._errors_of_client_authentication() | self._errors_of_the_address()
        if errors:
            raise ValidationError(errors)

    def _errors_without_openid(self) -> dict[str, str]:
        errors = {}
        if self.max_age is not None:
            errors["max_age"] = "It can only be checked in an ID token: add openid to the scope."
        if SamePersonCheck.EXPECTED_SUBJECT in self.same_person_checks:
            errors["same_person_checks"] = "expected_subject is compared with an ID token: add openid to the scope."
        return errors

    def _errors_of_client_authentication(self) -> dict[str, str]:
        errors = {}
        if self.token_endpoint_auth_method == self.ClientAuthentication.PRIVATE_KEY_JWT and not self.issuer:
            errors["issuer"] = "private_key_jwt needs it: what we sign is addressed to it, and to nobody else."
        if ":" in self.client_id and self.basic_encoding == "raw" and self.token_endpoint_auth_method.endswith("basic"):
            errors["basic_encoding"] = "raw cannot write a client id with a colon (RFC 7617 section 2): choose form."
        if not self.uses_client_secret and "HS256" in self.id_token_signing_alg_values:
            errors["id_token_signing_alg_values"] = "HS256 is verified with a client secret, and there is none."
        return errors

    def _errors_of_the_address(self) -> dict[str, str]:
        """Refuse a request that no browser or server would carry; a pushed one is not in the address (RFC 9126)."""
        if not self.authorization_endpoint or self.pushed_authorization_request_endpoint:
            return {}
        values = {"state": random_token(), "nonce": random_token(), "code_challenge": random_token()}
        try:
            authorization_url(self.configuration(self.scope), **values)
        except AuthorizationServerError as error:
            field = "resource" if sum(map(len, self.resource)) > len(self.scope) else "scope"
            return {field: f"The request is {error.detail}. Ask for less, or have it pushed: give the PAR endpoint."}
        except ValueError:  # of an address that is none, which its field says
            return {}
        return {}

    @property
    def uses_client_secret(self) -> bool:
        return self.token_endpoint_auth_method in {
            self.ClientAuthentication.CLIENT_SECRET_BASIC,
            self.ClientAuthentication.CLIENT_SECRET_POST,
        }

    @property
    def redirect_uri(self) -> str:
        """Return the address to register at the brand. Built from configuration, never from a request (B16)."""
        return f"{settings.PUBLIC_BASE_URL}/callback/{self.callback_id}"

    @property
    def client_jwks_uri(self) -> str:
        """Return where the brand reads the public half of our signing key; empty without one (RFC 7591 section 2)."""
        return f"{self.redirect_uri}/jwks.json" if self.signing_key_jwk else ""

    @property
    def default_same_person_check(self) -> str:
        return str(self.same_person_checks[0])

    def configuration(self, scope: str) -> ServerConfiguration:
        """Return what an authorization request that asks for `scope` keeps of this server."""
        names = [name for name in ServerConfiguration.__struct_fields__ if name not in {"redirect_uri", "scope"}]
        values = {name: getattr(self, name) for name in names}
        return ServerConfiguration(redirect_uri=self.redirect_uri, scope=scope, **values)

    def set_client_secret(self, secret: Secret | None) -> None:
        """Encrypt the secret for this row, or forget it. The row is not saved."""
        seal(self, "client_secret_ciphertext", secret)

    def settle_signing_key(self, *, renew: bool = False) -> None:
        """Make a key of this server's own where its client authentication needs one; forget it where not (C7).

        The row is not saved. What is kept is made anew only where `renew` says so.
        """
        if self.token_endpoint_auth_method != self.ClientAuthentication.PRIVATE_KEY_JWT:
            self.signing_key_ciphertext = self.signing_key_jwk = None
            self.forget_previous_signing_key()
        elif renew or self.signing_key_ciphertext is None:
            self._make_signing_key()
            self.forget_previous_signing_key()

    def rotate_signing_key(self, signs_from: datetime) -> None:
        """Publish a new key at once, and sign with the old one until `signs_from`. The row is not saved.

        Raises `DecryptionError`.
        """
        seal(self, "previous_signing_key_ciphertext", reveal_if_there(self, "signing_key_ciphertext"))
        self.previous_signing_key_jwk, self.previous_signing_key_signs_until = self.signing_key_jwk, signs_from
        self._make_signing_key()

    def forget_previous_signing_key(self) -> None:
        """Sign with the published new key from now on. The row is not saved."""
        self.previous_signing_key_ciphertext = self.previous_signing_key_jwk = None
        self.previous_signing_key_signs_until = None

    def previous_key_signs(self, now: datetime) -> bool:
        """Tell whether the old key of a rotation still signs at `now`: no job has to come by for it to stop."""
        until = self.previous_signing_key_signs_until
        return self.previous_signing_key_ciphertext is not None and until is not None and now < until

    def published_signing_keys(self, now: datetime) -> list[dict[str, str]]:
        """Return our public keys (RFC 7517), the one that signs at `now` first: some servers look at no other."""
        keys = [self.signing_key_jwk] if self.signing_key_jwk else []
        until = self.previous_signing_key_signs_until
        if self.previous_signing_key_jwk and until is not None and now < until + OLD_KEY_PUBLISHED_FOR:
            keys.insert(0 if self.previous_key_signs(now) else 1, self.previous_signing_key_jwk)
        return keys

    def _make_signing_key(self) -> None:
        private_key, self.signing_key_jwk = new_signing_key()
        seal(self, "signing_key_ciphertext", private_key)

    def reveal_credentials(self) -> ClientCredentials:
        """Return what authenticates us at this server's endpoints now. Raises `DecryptionError`."""
        in_rotation = self.previous_key_signs(timezone.now())
        signing_key = "previous_signing_key_ciphertext" if in_rotation else "signing_key_ciphertext"
        return ClientCredentials(
            client_secret=reveal_if_there(self, "client_secret_ciphertext"),
            signing_key=reveal_if_there(self, signing_key),
        )

    def associated_data(self, column: str) -> AssociatedData:
        return AssociatedData("brands_authorizationserver", column, self.uuid, self.brand.uuid)
