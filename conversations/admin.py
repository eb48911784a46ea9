"""Django admin for what happened: states and times, never a token, a subject or a code (J9)."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import ngettext

from accounts.account_changes import AccountEvent
from brands.audited_changes import BrandEvent
from brands.scoped_admin import OwnFieldListFilter, ReadOnlyAdmin, administers_a_brand
from conversations.flow.events import ConversationEvent
from conversations.flow.termination import revoke_token
from conversations.models import AccessToken, AuditEvent, Challenge, ChallengeStatus, Conversation, TokenReadCount
from conversations.webhook_admin import WebhookDeliveryAdmin, WebhookEndpointAdmin
from oauth_client import MEANINGS, ErrorCode, Meaning

# Django looks for admins in this module alone.
__all__ = ["WebhookDeliveryAdmin", "WebhookEndpointAdmin"]


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    """A chat."""

    list_display = ("external_id", "brand", "created_at", "closed_at")
    fields = ("external_id", "uuid", "brand", "created_at", "closed_at")
    list_filter = (("brand", OwnFieldListFilter),)
    allowed_lookups = ("brand__id__exact",)
    list_select_related = ("brand",)
    search_fields = ("=external_id",)


@admin.register(Challenge)
class ChallengeAdmin(ReadOnlyAdmin):
    """A challenge and where it stands."""

    list_display = ("conversation", "issued_at", "current_status", "authorization_server", "last_error")
    fields = (
        "uuid", "conversation", "authorization_server", "current_status", "error", "last_error", "last_error_detail",
        "cause", "remedy", "same_person_check", "scope", "completion_attempts", "issued_at", "started_at",
        "confirmation_needed_at", "completed_at", "ended_at", "expires_at",
    )  # fmt: skip
    list_filter = ("status", ("authorization_server", OwnFieldListFilter))
    allowed_lookups = ("status__exact", "authorization_server__id__exact")
    list_select_related = ("conversation", "authorization_server__brand")
    search_fields = ("=conversation__external_id",)

    @admin.display(description="status", ordering="status")
    def current_status(self, challenge: Challenge) -> str:
        """Show the status that is true now."""
        return challenge.status_at(timezone.now()).value

    @admin.display(description="what it means")
    def cause(self, challenge: Challenge) -> str:
        """Show the table's words about how the challenge, or else its last authorization request, failed."""
        row = _meaning(challenge)
        return row.cause if row else "-"

    @admin.display(description="what mends it")
    def remedy(self, challenge: Challenge) -> str:
        """Show what to change, and where."""
        row = _meaning(challenge)
        return row.remedy.replace("*", "").replace("`", "") if row else "-"


def _meaning(challenge: Challenge) -> Meaning | None:
    denied = ErrorCode.ACCESS_DENIED if challenge.status == ChallengeStatus.DENIED else ""
    return MEANINGS.get(challenge.error or denied or challenge.last_error)


@admin.register(AccessToken)
class AccessTokenAdmin(ReadOnlyAdmin):
    """An access token's life, without the token."""

    list_display = ("conversation", "issued_at", "state", "authorization_server", "expires_at")
    fields = (
        "uuid", "conversation", "authorization_server", "challenge", "state", "token_type", "scope", "scope_widened",
        "assurance", "issued_at", "expires_at", "lifetime_assumed", "response_members_left_out", "confirmed_at",
        "ended_at", "end_reason",
    )  # fmt: skip
    list_filter = ("end_reason", ("authorization_server", OwnFieldListFilter))
    allowed_lookups = ("end_reason__exact", "authorization_server__id__exact")
    list_select_related = ("conversation", "authorization_server__brand", "challenge")
    search_fields = ("=conversation__external_id",)
    actions = ("revoke_tokens",)

    @admin.display(description="state")
    def state(self, access_token: AccessToken) -> str:
        """Show in one word whether the token can be read now."""
        ended = access_token.end_reason_at(timezone.now())
        return ended or ("live" if access_token.confirmed_at else "pending")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """A brand's admins may end its tokens."""
        return administers_a_brand(request)

    @admin.action(description="End the selected tokens now", permissions=["revoke"])
    def revoke_tokens(self, request: HttpRequest, queryset: QuerySet[AccessToken]) -> None:
        """End the tokens: the bot's next read answers `rechallenge_required` with the reason `revoked`."""
        now, actor = timezone.now(), f"admin:{request.user.pk}"
        ended = sum(revoke_token(access_token, actor=actor, now=now) for access_token in queryset)
        said = ngettext("%d token ended.", "%d tokens ended.", ended) % ended
        self.message_user(request, said, messages.SUCCESS)


@admin.register(TokenReadCount)
class TokenReadCountAdmin(ReadOnlyAdmin):
    """How often tokens were read, and for what."""

    list_display = ("hour", "bot_key", "purpose", "times")
    list_filter = (("bot_key", OwnFieldListFilter),)
    allowed_lookups = ("bot_key__id__exact",)
    list_select_related = ("bot_key",)


class KindFilter(admin.SimpleListFilter):
    """Offers every kind that there can be: reading the log to find out which there are takes seconds."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # Django's
        return [(kind.value, kind.value) for kinds in (ConversationEvent, BrandEvent, AccountEvent) for kind in kinds]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """The log that nobody changes."""

    list_display = ("at", "kind", "outcome", "actor", "conversation_uuid")
    list_filter = (KindFilter,)
    allowed_lookups = ("kind",)
