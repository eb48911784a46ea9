"""A brand's OAuth 2.0 authorization server, and our registration there as its client."""

from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from brands.branding import validate_scope_descriptions
from brands.models.brand import Brand, BrandRowsQuerySet, CalledRow, slug_validator
from brands.models.same_person import ExpectedClaimsPolicy, SamePersonCheck, validate_same_person_checks
from brands.request_length import new_problem_of_length
from infrastructure.columns import EncryptedField, reveal_if_there, seal
from infrastructure.crypto import AssociatedData, Secret, new_signing_key, random_token
from oauth_client import validators
from oauth_client.configuration import ClientCredentials, ServerConfiguration
from oauth_client.step_up import NO_DEMAND, AuthenticationDemand
from oauth_client.token import MAX_ASSUMED_LIFETIME, MAX_TOKEN_LIFETIME

# How long an old public key stays published after its last signature. Assertions live a minute, but clocks differ.
OLD_KEY_PUBLISHED_FOR: Final = timedelta(hours=1)


class AuthorizationServerQuerySet(BrandRowsQuerySet["AuthorizationServer"]):
    def active(self) -> "AuthorizationServerQuerySet":
        return self.filter(is_active=True)


def default_same_person_checks() -> list[str]:
    return [SamePersonCheck.COMPLETION_CODE.value]


def default_id_token_algorithms() -> list[str]:
    """RS256 is mandatory to implement (OpenID Connect Core section 15.1)."""
    return ["RS256"]


def new_callback_id() -> str:
    """Make 128 random bits. Each server has its own redirect URI, which nobody can guess (C1)."""
    return random_token(16)


class AuthorizationServer(CalledRow):
    class ClientAuthentication(models.TextChoices):
        """The client authentication methods of RFC 7591 section 2 that we support."""

        CLIENT_SECRET_BASIC = "client_secret_basic", "client_secret_basic: HTTP Basic"
        CLIENT_SECRET_POST = "client_secret_post", "client_secret_post: in the request's body"
        PRIVATE_KEY_JWT = "private_key_jwt", "private_key_jwt: signed with a key that only this server gets (RFC 7523)"
        NONE = "none", "none: a public client, with PKCE only"

    class BasicEncoding(models.TextChoices):
        """How client id and secret are encoded for HTTP Basic; servers differ."""

        FORM = "form", "form: form-encoded first (RFC 6749 section 2.3.1)"
        RAW = "raw", "raw: not encoded"

    class ScopeSeparator(models.TextChoices):
        """How scopes are separated in requests and responses; servers differ."""

        SPACE = "space", "space: the standard (RFC 6749 section 3.3)"
        COMMA = "comma", "comma: in requests and responses (Strava, TikTok, Shopify)"
        COMMA_IN_RESPONSE = "comma_in_response", "comma_in_response: only in responses (GitHub, LinkedIn)"

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="authorization_servers")
    key = models.CharField("short name", max_length=64, validators=[slug_validator])
    is_active = models.BooleanField("active", default=True)
    callback_id = models.CharField(max_length=32, unique=True, default=new_callback_id, editable=False)

    issuer = models.CharField(max_length=2048, blank=True, validators=[validators.validate_issuer])
    authorization_endpoint = models.CharField(
        "sign-in address (authorization endpoint)",
        max_length=2048,
        validators=[validators.validate_authorization_endpoint],
    )
    token_endpoint = models.CharField(
        "token address (token endpoint)", max_length=2048, validators=[validators.validate_endpoint]
    )
    revocation_endpoint = models.CharField(
        "address to end tokens (revocation endpoint)",
        max_length=2048,
        blank=True,
        validators=[validators.validate_endpoint],
    )
    pushed_authorization_request_endpoint = models.CharField(
        "address for pushed requests (PAR endpoint)",
        max_length=2048,
        blank=True,
        validators=[validators.validate_endpoint],
    )
    userinfo_endpoint = models.CharField(
        "address that says who signed in (userinfo endpoint)",
        max_length=2048,
        blank=True,
        validators=[validators.validate_endpoint],
    )
    introspection_endpoint = models.CharField(
        "address that tells about tokens (introspection endpoint)",
        max_length=2048,
        blank=True,
        validators=[validators.validate_endpoint],
    )
    subject_member = models.CharField(
        "member that is the account (subject)",
        max_length=325,
        default="sub",
        validators=[validators.validate_subject_member],
    )
    jwks_uri = models.CharField(
        "your server's public keys (JWKS URI)", max_length=2048, blank=True, validators=[validators.validate_endpoint]
    )
    authorization_response_iss_parameter_supported = models.BooleanField(
        "sends iss in responses (RFC 9207)", default=False
    )
    ignored_metadata = models.JSONField(
        "not used, although the server announces it",
        default=list,
        blank=True,
        validators=[validators.validate_ignored_metadata],
    )

    client_id = models.CharField("client ID", max_length=255)
    client_secret_ciphertext = EncryptedField(null=True, blank=True)
    token_endpoint_auth_method = models.CharField(
        "client authentication",
        max_length=32,
        choices=ClientAuthentication,
        default=ClientAuthentication.CLIENT_SECRET_BASIC,
    )
    signing_key_ciphertext = EncryptedField(null=True, blank=True)
    signing_key_jwk = models.JSONField(null=True, blank=True, editable=False)
    # During a key rotation: the old key, and until when it signs.
    previous_signing_key_ciphertext = EncryptedField(null=True, editable=False)
    previous_signing_key_jwk = models.JSONField(null=True, editable=False)
    previous_signing_key_signs_until = models.DateTimeField(null=True, editable=False)
    basic_encoding = models.CharField(
        "encoding of client ID and secret", max_length=8, choices=BasicEncoding, default=BasicEncoding.FORM
    )
    send_client_id_with_basic = models.BooleanField("send client_id in the body, too", default=False)

    scope = models.CharField(max_length=validators.MAX_SCOPE_LENGTH, blank=True, validators=[validators.validate_scope])
    required_scope = models.CharField(
        max_length=validators.MAX_SCOPE_LENGTH, blank=True, validators=[validators.validate_scope]
    )
    scope_separator = models.CharField(max_length=24, choices=ScopeSeparator, default=ScopeSeparator.SPACE)
    resource = models.JSONField(
        "resource (the APIs that a token is for)", default=list, blank=True, validators=[validators.validate_resources]
    )
    # Those of its active APIs, separated by spaces. `save_audited` keeps it, so that a sign-in needs no query for them.
    api_resources = models.TextField(blank=True, editable=False)
    scope_descriptions = models.JSONField(
        "scope descriptions for consumers", default=dict, blank=True, validators=[validate_scope_descriptions]
    )
    extra_authorization_parameters = models.JSONField(
        "extra parameters", default=dict, blank=True, validators=[validators.validate_extra_authorization_parameters]
    )
    prompt = models.CharField(
        "what your server has to ask (prompt)",
        max_length=32,
        blank=True,
        default="login",
        choices=[("login", "login"), ("consent", "consent"), ("select_account", "select_account")],
    )
    max_age = models.PositiveIntegerField("longest time since the sign-in, in seconds", null=True, blank=True)
    id_token_signing_alg_values = models.JSONField(
        "ID token algorithms",
        default=default_id_token_algorithms,
        blank=True,
        validators=[validators.validate_id_token_algorithms],
    )
    denial_codes = models.CharField(max_length=1300, blank=True, validators=[validators.validate_denial_codes])
    trusted_audiences = models.JSONField(default=list, blank=True, validators=[validators.validate_audiences])
    accept_scope_in_authorization_response = models.BooleanField("accept a scope in the redirect", default=False)
    accept_form_encoded_tokens = models.BooleanField("accept a token answer that is a form", default=False)
    accept_missing_token_type = models.BooleanField("accept a token answer without token_type", default=False)
    accepted_token_type = models.CharField(
        "other word for Bearer", max_length=64, blank=True, validators=[validators.validate_token_type]
    )
    accept_zero_expires_in = models.BooleanField("accept a lifetime of 0 as unknown", default=False)
    # RFC 9449 section 5.2: the same as the client's metadata at the server.
    dpop_bound_access_tokens = models.BooleanField("bind tokens to this service (DPoP)", default=False)
    token_response_members = models.JSONField(
        default=list, blank=True, validators=[validators.validate_token_response_members]
    )

    same_person_checks = models.JSONField(default=default_same_person_checks, validators=[validate_same_person_checks])
    subject_claim = models.CharField(
        "claim that names the customer (subject claim)",
        max_length=64,
        default="sub",
        validators=[RegexValidator(r"\A[A-Za-z0-9_:/.-]+\Z", "This is not the name of a claim.", "invalid_claim")],
    )
    expected_claims_policy = models.CharField(
        "if a telephone number or e-mail address is not confirmed",
        max_length=8,
        choices=ExpectedClaimsPolicy,
        default=ExpectedClaimsPolicy.REFUSE,
    )
    chat_page_url = models.CharField(
        "chat page", max_length=2048, blank=True, validators=[validators.validate_endpoint]
    )
    default_token_lifetime = models.PositiveIntegerField(
        "token lifetime if your server names none",
        default=3600,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_ASSUMED_LIFETIME)],
    )
    max_token_lifetime = models.PositiveIntegerField(
        "longest token lifetime",
        default=86400,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_TOKEN_LIFETIME)],
    )
    # How long the last tokens lived, for the link's page. The worker keeps it; null until the first token.
    usual_token_lifetime = models.PositiveIntegerField(null=True, editable=False)
    challenge_lifetime = models.PositiveIntegerField(
        "how long a link works", default=900, validators=[MinValueValidator(300), MaxValueValidator(3600)]
    )

    objects = AuthorizationServerQuerySet.as_manager()

    class Meta:
        ordering = ("brand", "key")
        constraints = [models.UniqueConstraint(fields=("brand", "key"), name="one_server_per_brand_and_key")]

    def __str__(self) -> str:
        return f"{self.brand} {self.key}"

    def clean(self) -> None:
        """Check the fields against each other. Raises `ValidationError`."""
        errors: dict[str, str] = {}
        if not set(self.required_scope.split()) <= set(self.scope.split()):
            errors["required_scope"] = "Add it to the scope, too."
        if self.scope_separator != self.ScopeSeparator.SPACE:
            message = "Separate scopes with spaces here, whatever the scope separator is."
            errors |= {name: message for name in ("scope", "required_scope") if "," in getattr(self, name)}
        if SamePersonCheck.CHAT_PAGE in self.same_person_checks and not self.chat_page_url:
            errors["chat_page_url"] = "The check chat_page needs this URL."
        if "openid" in self.scope.split():
            # HS256 is verified with the client secret, all other algorithms with the server's keys.
            needed = ("issuer",) if self.id_token_signing_alg_values == ["HS256"] else ("issuer", "jwks_uri")
            errors |= {
                name: "The scope openid needs it, to verify the ID token." for name in needed if not getattr(self, name)
            }
            if not self.id_token_signing_alg_values:
                errors["id_token_signing_alg_values"] = "Choose at least one. Otherwise no ID token can be verified."
        else:
            errors |= self._errors_without_openid()
        errors |= self._errors_of_subject_endpoints() | self._errors_of_dpop() | self._errors_of_response_members()
        errors |= self._errors_of_client_authentication() | self._errors_of_request_length()
        if errors:
            raise ValidationError(errors)

    def _errors_without_openid(self) -> dict[str, str]:
        errors = {}
        if self.max_age is not None:
            errors["max_age"] = "It is checked in the ID token. Add openid to the scope."
        if SamePersonCheck.EXPECTED_SUBJECT in self.same_person_checks:
            errors["same_person_checks"] = "expected_subject is compared with the ID token. Add openid to the scope."
        return errors

    def _errors_of_response_members(self) -> dict[str, str]:
        apis = self.apis.exclude(host_member__in=["", *self.token_response_members]) if self.pk else ()
        names = ", ".join(f"{api.key} from {api.host_member}" for api in apis)
        return {"token_response_members": f"APIs take their host from it: {names}. Change them first."} if names else {}

    def _errors_of_subject_endpoints(self) -> dict[str, str]:
        """Refuse two sources that say who signed in: they could name one account in two ways (A17)."""
        given = [name for name in ("userinfo_endpoint", "introspection_endpoint") if getattr(self, name)]
        if "openid" in self.scope.split():
            return dict.fromkeys(
                given, "The ID token says who signed in, because the scope has openid: leave it empty."
            )
        return {given[1]: "Use this one or the userinfo endpoint, and leave the other empty."} if given[1:] else {}

    def _errors_of_dpop(self) -> dict[str, str]:
        """Refuse what would let a bearer token pass for a bound one, or a bound one for something else (E7)."""
        if not self.dpop_bound_access_tokens:
            return {}
        names = [name for name in ("accept_missing_token_type", "accepted_token_type") if getattr(self, name)]
        return dict.fromkeys(names, "With DPoP the token_type has to be DPoP: leave it empty.")

    def _errors_of_client_authentication(self) -> dict[str, str]:
        errors = {}
        if self.token_endpoint_auth_method == self.ClientAuthentication.PRIVATE_KEY_JWT and not self.issuer:
            errors["issuer"] = "private_key_jwt needs it: it is the audience of our signed assertions."
        if ":" in self.client_id and self.basic_encoding == "raw" and self.token_endpoint_auth_method.endswith("basic"):
            errors["basic_encoding"] = "raw does not allow a colon in the client id (RFC 7617 section 2). Choose form."
        if not self.uses_client_secret and "HS256" in self.id_token_signing_alg_values:
            errors["id_token_signing_alg_values"] = "HS256 needs a client authentication with a client secret."
        return errors

    def _errors_of_request_length(self) -> dict[str, str]:
        """Refuse a configuration whose authorization request can be too long for a URL (B20).

        Call it under the lock of the stored row: its APIs count, too. An inactive server sends no request, and must be
        possible to switch off at once, also if it was saved before a step-up counted.
        """
        if not self.is_active:
            return {}
        has_apis = bool(self.pk) and self.apis.exists()
        stored = type(self).objects.filter(pk=self.pk, is_active=True).first() if self.pk else None
        before = stored.configuration(stored.scope) if stored else None
        try:
            problem = new_problem_of_length(self.configuration(self.scope), before, has_apis=has_apis)
        except ValueError:  # not a URL; the field's validator reports it
            return {}
        return dict([problem]) if problem else {}

    @property
    def uses_client_secret(self) -> bool:
        return self.token_endpoint_auth_method in {
            self.ClientAuthentication.CLIENT_SECRET_BASIC,
            self.ClientAuthentication.CLIENT_SECRET_POST,
        }

    @property
    def redirect_uri(self) -> str:
        """The redirect URI to register at the server. It is built from a setting, never from a request (B16)."""
        return f"{settings.PUBLIC_BASE_URL}/callback/{self.callback_id}"

    @property
    def client_jwks_uri(self) -> str:
        """Where the server fetches our public keys (`jwks_uri` of RFC 7591 section 2); empty without a signing key."""
        return f"{self.redirect_uri}/jwks.json" if self.signing_key_jwk else ""

    @property
    def default_same_person_check(self) -> str:
        return str(self.same_person_checks[0])

    def configuration(self, scope: str, demand: AuthenticationDemand = NO_DEMAND) -> ServerConfiguration:
        """Copy the current configuration, with the scope and the demand of one authorization request."""
        of_request = {"redirect_uri", "scope", "demand", "resource"}
        values = {name: getattr(self, name) for name in ServerConfiguration.__struct_fields__ if name not in of_request}
        resource = list(dict.fromkeys([*self.resource, *self.api_resources.split()]))
        return ServerConfiguration(
            redirect_uri=self.redirect_uri, scope=scope, demand=demand, resource=resource, **values
        )

    def set_client_secret(self, secret: Secret | None) -> None:
        """Encrypt the secret for this row; None removes the stored one. The row is not saved."""
        seal(self, "client_secret_ciphertext", secret)

    def update_signing_key(self, *, renew: bool = False) -> None:
        """Create a signing key if the client authentication needs one, else delete it (C7). The row is not saved.

        Each server has its own key. An existing key is replaced only if `renew` is set.
        """
        if self.token_endpoint_auth_method != self.ClientAuthentication.PRIVATE_KEY_JWT:
            self.signing_key_ciphertext = self.signing_key_jwk = None
            self.forget_previous_signing_key()
        elif renew or self.signing_key_ciphertext is None:
            self._create_signing_key()
            self.forget_previous_signing_key()

    def rotate_signing_key(self, signs_from: datetime) -> None:
        """Publish a new key now, and sign with the old one until `signs_from`. The row is not saved.

        Raises `DecryptionError`.
        """
        seal(self, "previous_signing_key_ciphertext", reveal_if_there(self, "signing_key_ciphertext"))
        self.previous_signing_key_jwk, self.previous_signing_key_signs_until = self.signing_key_jwk, signs_from
        self._create_signing_key()

    def forget_previous_signing_key(self) -> None:
        """Delete the old key of a rotation. The new key signs from now on. The row is not saved."""
        self.previous_signing_key_ciphertext = self.previous_signing_key_jwk = None
        self.previous_signing_key_signs_until = None

    def previous_key_signs(self, now: datetime) -> bool:
        """Whether the old key of a rotation still signs at `now`. The clock ends this; no job has to run."""
        until = self.previous_signing_key_signs_until
        return self.previous_signing_key_ciphertext is not None and until is not None and now < until

    def published_signing_keys(self, now: datetime) -> list[dict[str, str]]:
        """Return our public keys (RFC 7517), the one that signs at `now` first. Some servers use only the first."""
        keys = [self.signing_key_jwk] if self.signing_key_jwk else []
        until = self.previous_signing_key_signs_until
        if self.previous_signing_key_jwk and until is not None and now < until + OLD_KEY_PUBLISHED_FOR:
            keys.insert(0 if self.previous_key_signs(now) else 1, self.previous_signing_key_jwk)
        return keys

    def _create_signing_key(self) -> None:
        private_key, self.signing_key_jwk = new_signing_key()
        seal(self, "signing_key_ciphertext", private_key)

    def reveal_credentials(self) -> ClientCredentials:
        """Decrypt the client secret and the key that signs now, if there are any. Raises `DecryptionError`."""
        in_rotation = self.previous_key_signs(timezone.now())
        signing_key = "previous_signing_key_ciphertext" if in_rotation else "signing_key_ciphertext"
        return ClientCredentials(
            client_secret=reveal_if_there(self, "client_secret_ciphertext"),
            signing_key=reveal_if_there(self, signing_key),
        )

    def associated_data(self, column: str) -> AssociatedData:
        return AssociatedData("brands_authorizationserver", column, self.uuid, self.brand.uuid)
