"""A brand's APIs, and the operations that its bots may call there for a consumer."""

from typing import Final
from uuid import uuid4

from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from brands.models.authorization_server import AuthorizationServer
from brands.models.brand import Brand, BrandRowsQuerySet, slug_validator
from oauth_client import validators

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

operation_name_validator = RegexValidator(
    r"\A[A-Za-z][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*\Z",
    "Begin with a letter; use letters, digits, _ and, between them, . and -.",
    "invalid_operation_name",
)


class BrandAPI(models.Model):
    """An API of a brand whose resource server accepts the access tokens of one authorization server."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="apis", editable=False)
    authorization_server = models.ForeignKey(AuthorizationServer, on_delete=models.PROTECT, related_name="apis")
    key = models.CharField("short name", max_length=64, validators=[slug_validator])
    is_active = models.BooleanField("active", default=True)
    # Operations' paths are added to it. Without a query.
    base_url = models.CharField("base URL", max_length=2048, validators=[validators.validate_endpoint])
    # Since when tokens may go to this host: an older token never does (P2).
    host_since = models.DateTimeField(default=timezone.now, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = BrandRowsQuerySet["BrandAPI"].as_manager()

    class Meta:
        verbose_name = "brand API"
        verbose_name_plural = "brand APIs"
        ordering = ("brand", "key")
        constraints = [models.UniqueConstraint(fields=("brand", "key"), name="one_api_per_brand_and_key")]

    def __str__(self) -> str:
        return f"{self.brand} {self.key}"


class Operation(models.Model):
    """One request that bots may make at a brand's API. What is not declared here cannot be called."""

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    brand = models.ForeignKey(Brand, on_delete=models.PROTECT, related_name="operations", editable=False)
    api = models.ForeignKey(BrandAPI, on_delete=models.CASCADE, related_name="operations")
    # What bots call it, such as orders.list.
    name = models.CharField(max_length=100, validators=[operation_name_validator])
    is_active = models.BooleanField("active", default=True)
    method = models.CharField(max_length=8, choices=[(method, method) for method in METHODS])
    # Added to the API's base URL. `{order_id}` is one path segment.
    path = models.CharField(max_length=1024)
    # A list of {"name", "in": "path" | "query" | "header", "required": bool, "schema": JSON Schema}.
    parameters = models.JSONField(default=list, blank=True)
    # JSON Schema of the JSON body; null if the operation takes none.
    body_schema = models.JSONField(null=True, blank=True)
    is_body_required = models.BooleanField("the body is required", default=False)
    # What the token must have been granted, separated by spaces.
    scope = models.CharField(max_length=validators.MAX_SCOPE_LENGTH, blank=True, validators=[validators.validate_scope])
    # What it does, for people: one text, or one for each locale.
    description = models.JSONField(default=dict, blank=True)
    is_safe_to_repeat = models.BooleanField("safe to repeat", default=False)

    objects = BrandRowsQuerySet["Operation"].as_manager()

    class Meta:
        ordering = ("brand", "name")
        constraints = [models.UniqueConstraint(fields=("brand", "name"), name="one_operation_per_brand_and_name")]

    def __str__(self) -> str:
        return self.name
