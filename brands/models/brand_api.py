"""A brand's APIs, and the operations that its bots may call there for a consumer."""

from copy import copy
from typing import Final
from uuid import uuid4

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from brands import api_operations
from brands.branding import MAX_DESCRIPTION_LENGTH, is_description
from brands.models.authorization_server import AuthorizationServer
from brands.models.brand import Brand, BrandRowsQuerySet, CalledRow, slug_validator
from brands.request_length import problem_of_length
from oauth_client import validators

METHODS: Final = api_operations.METHODS

operation_name_validator = RegexValidator(
    r"\A[A-Za-z][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*\Z",
    "Begin with a letter; use letters, digits, _ and, between them, . and -.",
    "invalid_operation_name",
)


def validate_description(value: object) -> None:
    """Allow nothing, a text for people, or an object from languages to texts."""
    if value != {} and not is_description(value):
        message = (
            f'Write a text of at most {MAX_DESCRIPTION_LENGTH} characters, or one for each language: {{"en": ...}}.'
        )
        raise ValidationError(message, "invalid_description")


def validate_one_resource(value: str) -> None:
    validators.validate_resources([value])


class BrandAPI(CalledRow):
    """An API of a brand whose resource server accepts the access tokens of one authorization server.

    It never moves to another authorization server: tokens of that one were issued before it had this host (P16).
    """

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="apis", editable=False)
    authorization_server = models.ForeignKey(AuthorizationServer, on_delete=models.PROTECT, related_name="apis")
    key = models.CharField("short name", max_length=64, validators=[slug_validator])
    is_active = models.BooleanField("active", default=True)
    # Operations' paths are added to it. Without a query and without a slash at the end.
    base_url = models.CharField("base URL", max_length=2048, validators=[api_operations.validate_api_address])
    # Of the token response: names the host, if the base URL's begins with `*.`. Bots and browsers never do (P2).
    host_member = models.CharField("member that names the host", max_length=100, blank=True)
    # What its tokens have to be for (RFC 8707): each authorization request of the server names it.
    resource = models.CharField(
        max_length=validators.MAX_RESOURCE_LENGTH, blank=True, validators=[validate_one_resource]
    )
    # Since when tokens may go to this host: an older token never does (P2).
    host_since = models.DateTimeField("tokens go to this host since", default=timezone.now, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = BrandRowsQuerySet["BrandAPI"].as_manager()

    class Meta:
        verbose_name = "brand API"
        verbose_name_plural = "brand APIs"
        ordering = ("brand", "key")
        constraints = [models.UniqueConstraint(fields=("brand", "key"), name="one_api_per_brand_and_key")]

    def __str__(self) -> str:
        return f"{self.brand} {self.key}"

    @property
    def called_for(self) -> Brand | None:
        """The brand of the authorization server, also before `clean` takes it from there."""
        return self.authorization_server.brand if self.authorization_server_id else None

    def clean(self) -> None:
        """Take the brand from the authorization server, which stays. Raises `ValidationError`.

        Call it under the lock of that server's row, with the row as it is stored: of two APIs that are saved at once,
        each alone may leave its request short enough (B20).
        """
        self.base_url = self.base_url.rstrip("/")
        if not self.authorization_server_id:
            return
        stored = BrandAPI.objects.filter(pk=self.pk).first()
        if stored is not None and stored.authorization_server_id != self.authorization_server_id:
            message = "An API stays with its authorization server. Add another API for this one."
            raise ValidationError({"authorization_server": ValidationError(message, "other_server")})
        self.brand = self.authorization_server.brand
        if self.brand.apis.filter(key=self.key).exclude(pk=self.pk).exists():
            message = "This brand already has an API of this short name."
            raise ValidationError({"key": ValidationError(message, "unique_together")})
        self._check_host_member()
        if self.is_active:
            self._refuse_too_long_a_request()

    def _refuse_too_long_a_request(self) -> None:
        """Refuse an API with which the server's authorization request can become too long to be sent (B20)."""
        others = self.authorization_server.apis.filter(is_active=True).exclude(pk=self.pk).exclude(resource="")
        server = copy(self.authorization_server)
        server.api_resources = " ".join([*others.values_list("resource", flat=True), self.resource])
        if problem := problem_of_length(server.configuration(server.scope), has_apis=True):
            # Whatever is too long of the server, this API is what would be saved.
            raise ValidationError({"resource": ValidationError(problem[1], "request_too_long")})

    def _check_host_member(self) -> None:
        if not self.host_member:
            if api_operations.host_suffix(self.base_url):
                message = "Name the member of the token response that says which host it is, such as instance_url."
                raise ValidationError({"host_member": ValidationError(message, "required")})
        elif not api_operations.host_suffix(self.base_url):
            message = (
                "Begin the host of the base URL with *., such as https://*.my.salesforce.com, or leave this empty."
            )
            raise ValidationError({"host_member": ValidationError(message, "no_suffix")})
        elif self.host_member not in self.authorization_server.token_response_members:
            message = "Add it to the authorization server's token response members first: no other one is kept."
            raise ValidationError({"host_member": ValidationError(message, "undeclared_member")})


class Operation(models.Model):
    """One request that bots may make at a brand's API. What is not declared here cannot be called."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="operations", editable=False)
    api = models.ForeignKey(BrandAPI, on_delete=models.CASCADE, related_name="operations", verbose_name="API")
    # What bots call it, such as orders.list.
    name = models.CharField(max_length=100, validators=[operation_name_validator])
    is_active = models.BooleanField("active", default=True)
    method = models.CharField(max_length=8, choices=[(method, method) for method in METHODS])
    # Added to the API's base URL. `{order_id}` is one path segment.
    path = models.CharField(max_length=1024, validators=[api_operations.validate_path])
    # A list of {"name", "in": "path" | "query" | "header", "required": bool, "schema": JSON Schema}.
    parameters = models.JSONField(default=list, blank=True, validators=[api_operations.validate_parameters])
    # JSON Schema of the JSON body; null if the operation takes none.
    body_schema = models.JSONField(
        "JSON Schema of the body", null=True, blank=True, validators=[api_operations.validate_body_schema]
    )
    is_body_required = models.BooleanField("the body is required", default=False)
    # What the token must have been granted, separated by spaces.
    scope = models.CharField(max_length=validators.MAX_SCOPE_LENGTH, blank=True, validators=[validators.validate_scope])
    # What it does, for people: one text, or one for each locale.
    description = models.JSONField(default=dict, blank=True, validators=[validate_description])
    is_safe_to_repeat = models.BooleanField("safe to repeat", default=False)

    objects = BrandRowsQuerySet["Operation"].as_manager()

    class Meta:
        ordering = ("brand", "name")
        constraints = [models.UniqueConstraint(fields=("brand", "name"), name="one_operation_per_brand_and_name")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Take the brand from the API, which stays, and check the fields against each other.

        Raises `ValidationError`.
        """
        errors: dict[str, ValidationError] = {}
        if self.api_id:
            self.brand = self.api.brand
            errors |= self._errors_of_the_name()
        if self.is_body_required and self.body_schema is None:
            errors["is_body_required"] = ValidationError("Write the schema of the body, too.", "no_body_schema")
        errors |= self._errors_between_fields()
        if errors:
            raise ValidationError(errors)

    def _errors_of_the_name(self) -> dict[str, ValidationError]:
        """Bots name an operation alone, so its name is unique in the brand."""
        others = Operation.objects.filter(brand=self.brand, name=self.name).exclude(pk=self.pk)
        if others.exists():
            message = "This brand already has an operation of this name."
            return {"name": ValidationError(message, "unique_together")}
        stored = Operation.objects.filter(pk=self.pk).first()
        if stored is not None and stored.api_id != self.api_id:
            return {"api": ValidationError("An operation stays with its API. Add another operation.", "other_api")}
        return {}

    def _errors_between_fields(self) -> dict[str, ValidationError]:
        try:
            api_operations.validate_path(self.path)
            api_operations.validate_parameters(self.parameters)
        except ValidationError:  # reported at its field
            return {}
        has_body = self.body_schema is not None
        return api_operations.mismatches(self.method, self.path, self.parameters, has_body=has_body)
