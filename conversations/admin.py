"""Django admin of conversations and what happened in them: states and times, never a token, subject or code (J9)."""

import re
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

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
from conversations.models import (
    AccessToken,
    ApiCallCount,
    AuditEvent,
    Challenge,
    ChallengeStatus,
    Conversation,
    TokenReadCount,
)
from conversations.object_history import NamedEventsAdmin
from conversations.timeline_page import TimelineAdmin
from conversations.webhook_admin import WebhookDeliveryAdmin, WebhookEndpointAdmin
from oauth_client import MEANINGS, ErrorCode, Meaning

# Django looks for admins in this module alone.
__all__ = ["WebhookDeliveryAdmin", "WebhookEndpointAdmin"]


_REFERENCE: Final = re.compile(r"([0-9a-f]{4}) ?([0-9a-f]{4})")


class WithinFilter(admin.SimpleListFilter):
    """Keeps what is newer than an hour, a day, a week or 30 days. Subclasses name the column in `moment`.

    A bound that the list's own order by id already follows: `date_hierarchy` would read the whole table for its years.
    """

    title = "time"
    parameter_name = "within"
    moment: str
    _spans: Final = {
        "hour": ("The last hour", timedelta(hours=1)),
        "day": ("The last 24 hours", timedelta(days=1)),
        "week": ("The last 7 days", timedelta(days=7)),
        "month": ("The last 30 days", timedelta(days=30)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the spans."""
        return [(name, words) for name, (words, _) in self._spans.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the chosen span; a name that is none keeps all."""
        if (value := self.value()) not in self._spans:
            return queryset
        return queryset.filter(**{f"{self.moment}__gte": timezone.now() - self._spans[value][1]})


class CreatedWithin(WithinFilter):
    """By `created_at`."""

    moment = "created_at"


class IssuedWithin(WithinFilter):
    """By `issued_at`."""

    moment = "issued_at"


class RecordedWithin(WithinFilter):
    """By `at`."""

    moment = "at"


@admin.register(Conversation)
class ConversationAdmin(TimelineAdmin):
    list_display = ("external_id", "session", "brand", "created_at", "closed_at")
    fields = ("external_id", "session", "uuid", "brand", "created_at", "closed_at")
    list_filter = (CreatedWithin, ("brand", OwnFieldListFilter))
    allowed_lookups = ("within", "brand__id__exact")
    list_select_related = ("brand",)
    searched_by_prefix = "external_id"


@admin.register(Challenge)
class ChallengeAdmin(ReadOnlyAdmin):
    list_display = ("conversation", "current_status", "last_error", "issued_at", "authorization_server")
    fields = (
        "uuid", "conversation", "authorization_server", "current_status", "error", "last_error", "last_error_detail",
        "cause", "remedy", "same_person_check", "scope", "acr_values", "max_age", "completion_attempts",
        "issued_at", "started_at", "confirmation_needed_at", "completed_at", "ended_at", "expires_at",
    )  # fmt: skip
    list_filter = (IssuedWithin, "status", ("authorization_server", OwnFieldListFilter))
    allowed_lookups = ("within", "status__exact", "authorization_server__id__exact")
    list_select_related = ("conversation", "authorization_server__brand")
    searched_by_prefix = "conversation__external_id"
    search_help_text = "The beginning of a conversation's id, a whole UUID, or the reference on a consumer's page."

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find a challenge by its reference, too: the first eight digits of its UUID, with a space or without."""
        if reference := _REFERENCE.fullmatch(search_term.strip().lower()):
            first, last = (UUID(hex="".join(reference.groups()) + digit * 24) for digit in "0f")
            if (found := queryset.filter(uuid__gte=first, uuid__lte=last)).exists():
                return found, False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description="status", ordering="status")
    def current_status(self, challenge: Challenge) -> str:
        """Return the status at this moment; the stored one may have expired since."""
        return challenge.status_at(timezone.now()).value

    @admin.display(description="what it means")
    def cause(self, challenge: Challenge) -> str:
        """Why the challenge or its last authorization request failed, in the words of the table of codes."""
        row = _meaning(challenge)
        return row.plain_cause if row else "-"

    @admin.display(description="how to fix it")
    def remedy(self, challenge: Challenge) -> str:
        row = _meaning(challenge)
        return row.plain_remedy if row else "-"


def _meaning(challenge: Challenge) -> Meaning | None:
    denied = ErrorCode.ACCESS_DENIED if challenge.status == ChallengeStatus.DENIED else ""
    return MEANINGS.get(challenge.error or denied or challenge.last_error)


@admin.register(AccessToken)
class AccessTokenAdmin(ReadOnlyAdmin):
    """The times and states of an access token, without the token."""

    list_display = ("conversation", "state", "issued_at", "expires_at", "authorization_server")
    fields = (
        "uuid", "conversation", "authorization_server", "challenge", "state", "token_type", "scope", "scope_widened",
        "assurance", "matched_claims", "acr", "amr", "auth_time", "demanded_acr_values", "demanded_max_age",
        "issued_at", "expires_at", "lifetime_assumed", "response_members_left_out",
        "confirmed_at", "ended_at", "end_reason",
    )  # fmt: skip
    list_filter = (IssuedWithin, "end_reason", ("authorization_server", OwnFieldListFilter))
    allowed_lookups = ("within", "end_reason__exact", "authorization_server__id__exact")
    list_select_related = ("conversation", "authorization_server__brand", "challenge")
    searched_by_prefix = "conversation__external_id"
    actions = ("revoke_tokens",)

    @admin.display(description="state")
    def state(self, access_token: AccessToken) -> str:
        """Return the end reason, or whether the token is live or pending."""
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
    """How often each key read tokens, by hour and purpose."""

    list_display = ("hour", "bot_key", "purpose", "times")
    list_filter = (("bot_key", OwnFieldListFilter),)
    allowed_lookups = ("bot_key__id__exact",)
    list_select_related = ("bot_key",)


@admin.register(ApiCallCount)
class ApiCallCountAdmin(ReadOnlyAdmin):
    """How often each key called an operation, by hour, outcome and purpose, and how long it took."""

    list_display = ("hour", "bot_key", "operation", "outcome", "purpose", "times", "mean")
    list_filter = (("bot_key", OwnFieldListFilter),)
    allowed_lookups = ("bot_key__id__exact",)
    list_select_related = ("bot_key",)

    @admin.display(description="milliseconds each")
    def mean(self, count: ApiCallCount) -> int:
        return round(count.milliseconds / count.times)


class KindFilter(admin.SimpleListFilter):
    """Offers every kind that exists in the code: finding those in the log would read the whole table."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # Django's
        return [(kind.value, kind.value) for kinds in (ConversationEvent, BrandEvent, AccountEvent) for kind in kinds]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(NamedEventsAdmin):
    fields = (
        "at", "kind", "outcome", "who", "actor", "conversation_link", "session", "changed_fields", "changed_values",
        "uuid", "brand_uuid", "conversation_uuid", "challenge_uuid", "access_token_uuid", "object_uuid", "request_id",
    )  # fmt: skip
    list_filter = (RecordedWithin, KindFilter)
    allowed_lookups = ("within", "kind")
