"""What a brand's consumers see first, for the brand's admin: the link's page with typed, unsaved values."""

from datetime import datetime
from http import HTTPStatus
from typing import Final

from csp.constants import SELF
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_http_methods

from brands.branding import normalised_support_contact, validate_support_contact
from brands.models import AuthorizationServer, Brand
from brands.scoped_admin import own_row_or_404
from conversations.models import Challenge, Conversation
from conversations.pages import link_page
from web.pages import language_of_locale, render_page

# Of the form of a link's token, and of no challenge: the buttons lead to the page of an unknown link.
_NO_LINK: Final = "preview-of-the-page-no-link"
_SAMPLE_HOST: Final = "https://login.example/authorize"
_LONGEST_NAME: Final = 80


_SIGNED_OUT: Final = (
    "You are signed out. What is typed beside this is not saved: copy what you need, then sign in again."
)


@xframe_options_sameorigin
def preview_in_frame(request: HttpRequest, pk: int) -> HttpResponse:
    """Serve the preview to those who are signed in. In the frame, say so if the session has ended.

    Our sign-in page cannot be framed (B17).
    """
    if request.method != "POST" or admin.site.has_permission(request):
        response: HttpResponse = admin.site.admin_view(brand_preview)(request, pk=pk)
        return response
    response = HttpResponse(_SIGNED_OUT, status=HTTPStatus.FORBIDDEN, content_type="text/plain; charset=utf-8")
    response._csp_replace = {"frame-ancestors": [SELF]}  # type: ignore[attr-defined]  # what csp_replace() sets
    return response


@require_http_methods(["GET", "HEAD", "POST"])
def brand_preview(request: HttpRequest, pk: int) -> HttpResponse:
    """`/admin/brands/brand/{pk}/preview/`: the saved brand, or on POST its unsaved form.

    The brand's page shows it in a frame beside the form, where scripts and forms are off. It is the one page of ours
    that can be framed, and by us alone: nothing on it leads anywhere, so nobody can be made to press it (B17).
    """
    brand: Brand = own_row_or_404(Brand, request, pk, to_change=False)
    server = brand.authorization_servers.order_by("-is_active", "pk").first()
    if request.method == "POST":
        _take_typed_values(brand, request)
    challenge = _sample_challenge(brand, server, timezone.now())
    page = link_page(challenge, _NO_LINK, timezone.now())
    locale = request.GET.get("language", "")
    response = render_page(
        request,
        f"consumer/{page.template}",
        page.context,
        locale=locale if language_of_locale(locale) else "",
        theme=page.theme,
    )
    response._csp_replace["frame-ancestors"] = [SELF]  # type: ignore[attr-defined]  # what render_page has set
    return response


def _take_typed_values(brand: Brand, request: HttpRequest) -> None:
    brand.name = request.POST.get("name", "").strip()[:_LONGEST_NAME] or brand.name
    brand.accent_colour = request.POST.get("accent_colour", brand.accent_colour)
    typed = normalised_support_contact(
        request.POST.get("support_contact", brand.support_contact)
    )  # as the form saves it
    try:
        validate_support_contact(typed)
    except ValidationError:  # a link of another scheme could run a script; the form says what is wrong when saving
        typed = ""
    brand.support_contact = typed


def _sample_challenge(brand: Brand, server: AuthorizationServer | None, now: datetime) -> Challenge:
    """An unsaved challenge, as a bot would create one at the brand's first server."""
    if server is None:
        server = AuthorizationServer(brand=brand, authorization_endpoint=_SAMPLE_HOST)
    conversation = Conversation(brand=brand, external_id="preview")
    return Challenge(
        conversation=conversation,
        authorization_server=server,
        scope=server.scope,
        same_person_check=server.default_same_person_check,
        issued_at=now,
        expires_at=now,
    )
