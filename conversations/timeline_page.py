"""The conversation's admin page with its timeline, and two pages that end something there: confirmation and receipt."""

from typing import Any, Final

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from brands.audited_changes import actor_of
from brands.scoped_admin import ReadOnlyAdmin, administers, is_key, own_row_or_404
from conversations.flow.termination import EndingReceipt, close_and_count, end_access_tokens
from conversations.models import OPEN_STATUSES, Conversation
from conversations.timeline import timeline_of

_CHANGE: Final = "admin:conversations_conversation_change"


class TimelineAdmin(ReadOnlyAdmin):
    """Shows the timeline below a conversation's fields."""

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **more: Any) -> Any:
        """Add the timeline; `obj` was found among the admin's own brands (J1)."""
        if (conversation := more.get("obj")) is not None:
            context["timeline"] = timeline_of(conversation, timezone.now())
            context["administers"] = administers(request, conversation)
        return super().render_change_form(request, context, *args, **more)


@require_http_methods(["GET", "HEAD", "POST"])
def end_tokens(request: HttpRequest, pk: int) -> HttpResponse:
    """`.../conversation/{pk}/end-tokens/`: GET asks which ones, POST ends them and says what was done."""
    conversation = _own_conversation(request, pk)
    if request.method == "POST":
        chosen = [int(value) for value in request.POST.getlist("token") if is_key(value)]
        receipt = end_access_tokens(conversation, chosen, actor=actor_of(request.user), now=timezone.now())
        if receipt.access_tokens_ended:
            messages.success(request, _said(receipt))
        else:
            messages.warning(request, "No token was ended: none was chosen, or each had ended before.")
        return redirect(_CHANGE, conversation.pk)
    tokens = conversation.access_tokens.filter(ended_at=None, expires_at__gt=timezone.now())
    tokens = tokens.select_related("authorization_server").defer("ciphertext", "subject_ciphertext")
    return _confirmation(request, conversation, "End access tokens", {"tokens": tokens[:50]})


@require_http_methods(["GET", "HEAD", "POST"])
def close(request: HttpRequest, pk: int) -> HttpResponse:
    """`.../conversation/{pk}/close/`: GET asks, POST closes for good, erases and says what was done."""
    conversation = _own_conversation(request, pk)
    if request.method == "POST":
        receipt = close_and_count(conversation, actor=actor_of(request.user), now=timezone.now())
        if receipt:
            messages.success(request, f"The conversation is closed and erased. {_said(receipt)}")
        else:
            messages.warning(request, "Nothing was done: the conversation was closed before.")
        return redirect(_CHANGE, conversation.pk)
    now = timezone.now()
    counts = {  # what has expired is over, also before the sweep
        "token_count": conversation.access_tokens.filter(ended_at=None, expires_at__gt=now).count(),
        "link_count": conversation.challenges.filter(status__in=OPEN_STATUSES, expires_at__gt=now).count(),
    }
    return _confirmation(request, conversation, "Close and erase the conversation", counts)


def _own_conversation(request: HttpRequest, pk: int) -> Conversation:
    """Return the conversation. Raises `Http404` for another brand's (J1), and `PermissionDenied` for a viewer (J15)."""
    conversation: Conversation = own_row_or_404(Conversation, request, pk, to_change=True)
    return conversation


def _confirmation(request: HttpRequest, conversation: Conversation, title: str, more: dict[str, Any]) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        "title": title,
        "conversation": conversation,
        "opts": Conversation._meta,
        "is_closing": "token_count" in more,
        **more,
    }
    return render(request, "admin/end_conversation.html", context)


def _said(receipt: EndingReceipt) -> str:
    tokens, revocations, links = receipt.access_tokens_ended, receipt.revocations_scheduled, receipt.links_ended
    return " ".join(
        (
            ngettext("%d access token ended.", "%d access tokens ended.", tokens) % tokens,
            ngettext("%d revocation is sent to the server.", "%d revocations are sent to the server.", revocations)
            % revocations,
            ngettext("%d link no longer works.", "%d links no longer work.", links) % links,
        )
    )
