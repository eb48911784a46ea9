"""Django admin for brands, their authorization servers and their bots' keys."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html

from brands.authentication import create_bot_key, revoke
from brands.forms import AuthorizationServerForm, BotKeyForm
from brands.models import AuthorizationServer, BotKey, Brand
from brands.scoped_admin import BrandScopedAdmin


@admin.register(Brand)
class BrandAdmin(BrandScopedAdmin):
    """A brand's admin may rename it; who administers it, its slug and whether it is active are the operator's (J7)."""

    list_display = ("name", "slug", "is_active")
    filter_horizontal = ("admins",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show the admins of a brand to the operator alone."""
        return ["name", "slug", "is_active", *(["admins"] if request.user.is_superuser else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Bots and configuration files name the slug, so it never changes."""
        fixed = ["slug"] if obj else []
        return fixed if request.user.is_superuser else ["slug", "is_active"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only the operator adds brands."""
        return bool(request.user.is_active and request.user.is_superuser)


@admin.register(AuthorizationServer)
class AuthorizationServerAdmin(BrandScopedAdmin):
    """Where a brand's consumers sign in."""

    form = AuthorizationServerForm
    list_display = ("key", "brand", "is_active", "authorization_endpoint")
    list_filter = (("brand", admin.RelatedOnlyFieldListFilter), "is_active")
    allowed_lookups = ("brand__id__exact", "is_active__exact")
    list_select_related = ("brand",)
    readonly_fields = ("redirect_uri",)
    fieldsets = (
        (None, {"fields": ("brand", "key", "is_active", "redirect_uri")}),
        ("Endpoints", {"fields": ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")}),
        (
            "Our registration",
            {
                "fields": ("client_id", "client_secret", "token_endpoint_auth_method", "basic_encoding"),
            },
        ),
        ("Same person", {"fields": ("same_person_checks", "default_check")}),
        (
            "What is asked for",
            {
                "fields": ("scope", "required_scope", "prompt", "max_age", "extra_authorization_parameters"),
            },
        ),
        (
            "What comes back",
            {
                "fields": (
                    "authorization_response_iss_parameter_supported",
                    "id_token_signing_alg_values",
                    "accept_form_encoded_tokens",
                    "accept_missing_token_type",
                ),
            },
        ),
        (
            "Lifetimes, in seconds",
            {
                "fields": ("default_token_lifetime", "max_token_lifetime", "challenge_lifetime"),
            },
        ),
    )

    @admin.display(description="Redirect URI, to be registered at the brand")
    def redirect_uri(self, server: AuthorizationServer) -> str:
        """Show the address to copy; a new row already has it."""
        return server.redirect_uri if server.pk else "Shown once the server is saved."

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """A server never moves to another brand: its secret and its tokens are bound to this one."""
        return (*self.readonly_fields, "brand", "key") if obj else self.readonly_fields

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Encrypt the typed secret for its row before the row is written."""
        form.apply_secret()  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)


@admin.register(BotKey)
class BotKeyAdmin(BrandScopedAdmin):
    """Keys are made here, shown once, and revoked here."""

    form = BotKeyForm
    list_display = (
        "label",
        "brand",
        "public_id",
        "scope_list",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    )
    list_filter = (("brand", admin.RelatedOnlyFieldListFilter),)
    allowed_lookups = ("brand__id__exact",)
    list_select_related = ("brand",)
    actions = ("revoke_keys",)

    @admin.display(description="scopes")
    def scope_list(self, bot_key: BotKey) -> str:
        """Show the scopes as words."""
        return ", ".join(bot_key.scopes)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """A key's powers never change; make another key."""
        return ("brand", "public_id", "scope_list", "created_at", "last_used_at", "revoked_at") if obj else ()

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Show what can be typed for a new key, and what can be known of an old one."""
        added = ("brand", "label", "scopes", "expires_at")
        known = ("brand", "public_id", "scope_list", "label", "expires_at", "created_at", "last_used_at", "revoked_at")
        return known if obj else added

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Make the key and show it in the one message that will ever hold it (G1)."""
        if change:
            super().save_model(request, obj, form, change)
            return
        cleaned = form.cleaned_data
        row, key = create_bot_key(cleaned["brand"], cleaned["label"], cleaned["scopes"], cleaned["expires_at"])
        obj.__dict__.update(row.__dict__)
        shown = format_html("The key, shown only now: <code>{}</code>", key.reveal())
        self.message_user(request, shown, messages.SUCCESS)

    @admin.action(description="Revoke the selected keys")
    def revoke_keys(self, request: HttpRequest, queryset: QuerySet[BotKey]) -> None:
        """Revoke from the next request on."""
        revoked = sum(revoke(bot_key) for bot_key in queryset)
        self.message_user(request, f"{revoked} keys revoked.", messages.SUCCESS)
