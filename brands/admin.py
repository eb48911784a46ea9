"""Django admin for brands, their authorization servers and their bots' keys."""

from datetime import datetime
from functools import partial
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import Q, QuerySet
from django.forms import CheckboxSelectMultiple, ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from accounts.sign_in import recent_sign_in_needed, signed_in_recently
from brands.api_admin import BrandAPIAdmin, OperationAdmin
from brands.audited_changes import BrandEvent, record_change, save_audited, save_logo
from brands.authentication import create_bot_key, revoke
from brands.discovered import DISCOVER, wanted_metadata
from brands.doctor_page import doctor_page
from brands.forms import SHOWN_CALLBACK_ID, AccountsField, AuthorizationServerForm, BotKeyForm, BrandForm
from brands.models import LIMITS_OF_A_KEY, AuthorizationServer, BotKey, Brand, ServerHealth
from brands.private_networks import networks_in_words
from brands.scoped_admin import ActiveFilter, BrandScopedAdmin, OwnFieldListFilter, administers, copyable, is_key
from brands.server_rules import servers_with_shared_registration
from brands.server_words import FIELDSETS, OUR_KEYS
from brands.signing_keys import NoSigningKey, RotationUnderWay, rotate_signing_key
from brands.unsaved_secrets import UnsavedSecrets
from oauth_client import DiscoveryFailed, ServerMetadata

# Django looks for admins in this module alone.
__all__ = ["BrandAPIAdmin", "OperationAdmin"]

admin.site.site_header = admin.site.site_title = "Consumer Delegation"
admin.site.index_title = "Brands and their conversations"
admin.site.site_url = None  # the page at / is for consumers

_LOOK: Final = ("accent_colour", "support_contact", "logo", "remove_logo")
_RARELY_CHANGED: Final = ("conversation_ids", "close_idle_after", "token_read_purpose_required")
_NEW_CALLBACK_ID: Final = "new_callback_id"
_NO_NETWORKS: Final = "Nothing. If a server of yours is inside a private network, ask the operator to allow it."
_USE_OF_A_KEY: Final = ("last_used_at", "reads_unusual_at", "calls_unusual_at", "revoked_at")


@admin.register(Brand)
class BrandAdmin(BrandScopedAdmin):
    """A brand's admin may rename it; its members, its slug and whether it is active are the operator's (J7)."""

    form = BrandForm
    list_display = ("name", "slug", "is_active")
    list_filter = (ActiveFilter,)
    fieldsets = (
        (None, {"fields": ("name", "slug", "is_active", *_LOOK, "admins", "viewers")}),
        ("Conversation ids, and purposes of token reads", {"classes": ("collapse",), "fields": _RARELY_CHANGED}),
        ("Private networks", {"classes": ("collapse",), "fields": ("reachable",)}),
    )

    @admin.display(description="We may call, beside public addresses at port 443")
    def reachable(self, brand: Brand) -> str:
        """Show what the operator has allowed. A command alone changes it: no session of the admin opens a network."""
        lines = networks_in_words(brand)
        return format_html_join(mark_safe("<br>"), "{}", ([line] for line in lines)) or _NO_NETWORKS

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Show the admins and viewers of a brand to the operator alone."""
        hidden = () if request.user.is_superuser else ("admins", "viewers")
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name not in hidden]})
            for title, options in super().get_fieldsets(request, obj)
        ]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return super().formfield_for_manytomany(
            db_field, request, form_class=AccountsField, widget=CheckboxSelectMultiple, **kwargs
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Bots and configuration files name the slug, so it never changes."""
        fixed = ["slug"] if obj else []
        return ["reachable", *(fixed if request.user.is_superuser else ["slug", "is_active"])]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only the operator adds brands."""
        return bool(request.user.is_active and request.user.is_superuser)

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Save it with its audit row, and its logo."""
        save_audited(obj, request.user)
        save_logo(obj, form.cleaned_data["logo"])

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Audit a change of the members. Tell the operator where new admins give one registration two owners (C5)."""
        super().save_related(request, form, formsets, change)
        if members := [name for name in ("admins", "viewers") if name in form.changed_data]:
            record_change(form.instance, BrandEvent.BRAND_CHANGED, request.user, members)
        for server in servers_with_shared_registration(form.instance):
            said = "%s uses its client id together with a brand of other admins: give it a registration of its own."
            self.message_user(request, said % server, messages.WARNING)


def _chosen_brand(request: HttpRequest) -> Brand | None:
    """Return the brand that the form of a new server names; None if the user does not administer it (N14)."""
    chosen = request.POST.get("brand", "")
    own = Brand.objects.administered_by(request.user)
    return own.filter(pk=chosen).first() if is_key(chosen) else None


_SECRET_LEFT_BEHIND: Final = (
    "The client secret that you typed a short while ago is not saved: this form was opened anew. Type it again if it "
    "is still to be stored."
)


@admin.register(AuthorizationServer)
class AuthorizationServerAdmin(BrandScopedAdmin):
    """Where a brand's consumers sign in."""

    form = AuthorizationServerForm
    list_display = ("key", "brand", "is_active", "failing_since", "authorization_endpoint")
    actions = ("check_set_up", "rotate_key", "rotate_key_at_once")
    list_filter = (ActiveFilter, ("brand", OwnFieldListFilter))
    allowed_lookups = ("brand__id__exact",)
    list_select_related = ("brand", "health")
    readonly_fields = ("redirect_uri", "client_jwks_uri", "signing_keys")
    fieldsets = FIELDSETS

    @admin.display(description="failing since", empty_value="")
    def failing_since(self, server: AuthorizationServer) -> datetime | None:
        """Mark a server that the standing health check found broken."""
        health = getattr(server, "health", None)
        return health.failing_since if health is not None and server.is_active and server.brand.is_active else None

    @admin.display(description="Redirect URI, to be registered at your server")
    def redirect_uri(self, server: AuthorizationServer) -> str:
        """Show the address to copy, also before the first save. The form of a new server says which one it showed."""
        shown = copyable(server.redirect_uri, "the redirect URI")
        if server.pk:
            return shown
        return shown + format_html('<input type="hidden" name="{}" value="{}">', SHOWN_CALLBACK_ID, server.callback_id)

    @admin.display(description="Our keys (JWKS URI), to be registered at your server")
    def client_jwks_uri(self, server: AuthorizationServer) -> str:
        """Show the address to copy, where there is a key."""
        if not server.client_jwks_uri:
            return "Only for private_key_jwt; shown once the server is saved."
        return copyable(server.client_jwks_uri, "the address of our keys")

    @admin.display(description="Our signing key")
    def signing_keys(self, server: AuthorizationServer) -> str:
        """Show which key signs, and from when the next one does."""
        if not server.signing_key_jwk:
            return "Only for private_key_jwt."
        kid, now = server.signing_key_jwk["kid"], timezone.now()
        until = server.previous_signing_key_signs_until
        if until is None or not server.previous_key_signs(now):
            return f"{kid} signs."
        old = (server.previous_signing_key_jwk or {}).get("kid")
        return f"{old} signs until {until:%Y-%m-%d %H:%M} UTC, {kid} from then on; both are published."

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Fetch metadata before Django opens the transaction in which it reads and saves the form."""
        if request.method == "POST":
            request.server_metadata = self._wanted_metadata(request, object_id)  # type: ignore[attr-defined]  # for `get_form`
        return super().changeform_view(request, object_id, form_url, extra_context)

    def _wanted_metadata(self, request: HttpRequest, object_id: str | None) -> ServerMetadata | DiscoveryFailed | None:
        """Fetch metadata for whoever administers this server (J15), or may add one. For others nothing is fetched."""
        if object_id is None:
            return wanted_metadata(request, _chosen_brand(request)) if self.has_add_permission(request) else None
        server = self.get_object(request, unquote(object_id))
        if server is None or not self.has_change_permission(request, server):
            return None
        return wanted_metadata(request, server.brand)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Hand the form, whose class is made for this request, what was fetched."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.metadata = getattr(request, "server_metadata", None)
        form.discovers = DISCOVER in request.POST
        form.free_callback_id = "" if change else request.session.get(_NEW_CALLBACK_ID, "")
        form.unsaved = UnsavedSecrets(request.user.pk, request.session.session_key or "")
        return form

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Keep a secret that was typed into a form that comes back (H10). A viewer has no such form, and no buttons."""
        row, form = context.get("original"), context["adminform"].form
        context["administers"] = row is not None and administers(request, row)
        context["health"] = ServerHealth.objects.failing().filter(authorization_server=row).first() if row else None
        if row is None:  # the redirect URI of the add form is this session's, until a server is saved with it
            form.instance.callback_id = request.session.setdefault(_NEW_CALLBACK_ID, form.instance.callback_id)
        if isinstance(form, AuthorizationServerForm):
            form.show_secret()
        return super().render_change_form(request, context, *args, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Unfold our keys for a server that reads them."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or not obj.signing_key_jwk:
            return fieldsets
        return [(title, {**options, "classes": ()} if title == OUR_KEYS else options) for title, options in fieldsets]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """A server never moves to another brand: its secret and its tokens are bound to this one."""
        return (*self.readonly_fields, "brand", "key") if obj else self.readonly_fields

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Encrypt the typed secret for its row before the row is written."""
        if change and form.leaves_a_typed_secret_behind:  # type: ignore[attr-defined]
            self.message_user(request, _SECRET_LEFT_BEHIND, messages.WARNING)
        form.apply_secret()  # type: ignore[attr-defined]
        if not change:
            obj.callback_id = request.session.pop(_NEW_CALLBACK_ID, obj.callback_id)
        save_audited(obj, request.user)
        if not change:
            address = copyable(obj.redirect_uri, "the redirect URI")
            said = format_html("Register this redirect URI at your server: {}", address)
            self.message_user(request, said, messages.INFO)

    @admin.action(description="Check the set-up of the selected server")
    def check_set_up(self, request: HttpRequest, queryset: QuerySet[AuthorizationServer]) -> HttpResponse | None:
        """Open the doctor's page."""
        server = self.only_selected(request, queryset)
        return redirect("admin:brands_authorizationserver_doctor", server.pk) if server else None

    def get_urls(self) -> list[Any]:
        """Add the doctor's page, before the pattern that takes everything for a key."""
        view = require_http_methods(["GET", "HEAD", "POST"])(self.admin_site.admin_view(partial(doctor_page, self)))
        page = path("<int:pk>/doctor/", view, name="brands_authorizationserver_doctor")
        return [page, *super().get_urls()]

    @admin.action(description="Rotate the signing key of the selected server (a day of overlap)")
    def rotate_key(self, request: HttpRequest, queryset: QuerySet[AuthorizationServer]) -> None:
        """Publish a new key, which signs a day later."""
        self._rotate(request, queryset, at_once=False)

    @admin.action(description="Use a new signing key of the selected server at once")
    def rotate_key_at_once(self, request: HttpRequest, queryset: QuerySet[AuthorizationServer]) -> None:
        """Sign with the new key now: for a key that may have leaked, or a brand that has read the new one."""
        self._rotate(request, queryset, at_once=True)

    def _rotate(self, request: HttpRequest, queryset: QuerySet[AuthorizationServer], *, at_once: bool) -> None:
        if (server := self.only_selected(request, queryset)) is None:
            return
        if not signed_in_recently(request):
            self.message_user(request, recent_sign_in_needed().message, messages.ERROR)
            return
        try:
            rotated = rotate_signing_key(server, now=timezone.now(), user=request.user, at_once=at_once)
        except NoSigningKey:
            self.message_user(request, "This server has no signing key: choose private_key_jwt.", messages.WARNING)
        except RotationUnderWay as rotation:
            self.message_user(request, f"Nothing was changed: {rotation}.", messages.WARNING)
        else:
            self.log_change(request, rotated, "Signing key replaced.")
            self.message_user(request, self.signing_keys(rotated), messages.SUCCESS)


class UsableKeyFilter(ActiveFilter):
    """The same for keys, which are revoked or expire."""

    def active(self) -> Q:
        return Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=timezone.now()))


@admin.register(BotKey)
class BotKeyAdmin(BrandScopedAdmin):
    """Keys are made here, shown once, and revoked here."""

    form = BotKeyForm
    list_display = ("label", "brand", "scope_list", "last_used_at", "expires_at", "revoked_at", "public_id")
    list_filter = (UsableKeyFilter, ("brand", OwnFieldListFilter))
    allowed_lookups = ("brand__id__exact",)
    list_select_related = ("brand",)
    actions = ("revoke_keys",)

    @admin.display(description="scopes")
    def scope_list(self, bot_key: BotKey) -> str:
        """Show the scopes as words."""
        return ", ".join(bot_key.scopes)

    @admin.display(description="same-person checks")
    def check_list(self, bot_key: BotKey) -> str:
        """Show the checks that the key may use as words."""
        return ", ".join(bot_key.same_person_checks) or "all that the authorization server accepts"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """A key's powers never change; make another key. Its limits are the operator's (G12)."""
        # `scopes` and the checks too, though they are not shown: the form declares them and would ask for them.
        declared = ("scopes", "same_person_checks")
        known = ("brand", "public_id", "scope_list", "check_list", "created_at", *_USE_OF_A_KEY)
        limits = () if request.user.is_superuser else LIMITS_OF_A_KEY
        return (*declared, *known, *limits) if obj else ()

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Show what can be typed for a new key, and what can be known of an old one."""
        limits = LIMITS_OF_A_KEY if request.user.is_superuser else ()
        added = ("brand", "label", "scopes", "same_person_checks", "expires_at", *limits)
        made = (*LIMITS_OF_A_KEY, "created_at", *_USE_OF_A_KEY)
        return ("brand", "public_id", "scope_list", "check_list", "label", "expires_at", *made) if obj else added

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Make the key and show it in the one message that will ever hold it (G1)."""
        if change:
            if not request.user.is_superuser:
                _take_stored_limits(obj)
            save_audited(obj, request.user)
            return
        cleaned = form.cleaned_data
        values = (cleaned["brand"], cleaned["label"], cleaned["scopes"], cleaned["expires_at"])
        limits = {name: cleaned[name] for name in LIMITS_OF_A_KEY if name in cleaned}
        checks = cleaned["same_person_checks"]
        row, key = create_bot_key(*values, same_person_checks=checks, user=request.user, **limits)
        obj.__dict__.update(row.__dict__)
        value = copyable(key.reveal(), "the key")
        shown = format_html("Copy the key now, it is never shown again: {}", value)
        self.message_user(request, shown, messages.SUCCESS)

    @admin.action(description="Revoke the selected keys")
    def revoke_keys(self, request: HttpRequest, queryset: QuerySet[BotKey]) -> None:
        """Revoke from the next request on, and note in each key's history who did."""
        revoked = [bot_key for bot_key in queryset if revoke(bot_key, request.user)]
        for bot_key in revoked:
            self.log_change(request, bot_key, "Revoked.")
        said = ngettext("%d key revoked.", "%d keys revoked.", len(revoked)) % len(revoked)
        self.message_user(request, said, messages.SUCCESS)


def _take_stored_limits(bot_key: BotKey) -> None:
    """Lock the row and take its limits: a save would undo what the operator has set since the row was read (G12)."""
    stored = BotKey.objects.select_for_update(no_key=True).values(*LIMITS_OF_A_KEY).get(pk=bot_key.pk)
    for name, value in stored.items():
        setattr(bot_key, name, value)
