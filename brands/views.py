"""What a brand's authorization server fetches from us, and the brand's logo for its consumers."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_safe

from brands.models import AuthorizationServer, Logo


@require_safe
def client_keys(request: HttpRequest, callback_id: str) -> HttpResponse:
    """`GET /callback/{callback_id}/jwks.json`: the public half of a server's signing keys (RFC 7517, C7).

    Also for a server that is switched off: tokens that it issued before are still revoked there.
    """
    servers = AuthorizationServer.objects.filter(signing_key_jwk__isnull=False)
    server = get_object_or_404(servers, callback_id=callback_id)
    return JsonResponse({"keys": server.published_signing_keys(timezone.now())})


@require_safe
def logo(request: HttpRequest, brand_uuid: UUID, logo_hash: str) -> HttpResponse:
    """`GET /brands/{brand_uuid}/logo-{logo_hash}.png`: for good, since another picture has another address."""
    found = get_object_or_404(Logo, brand__uuid=brand_uuid, brand__logo_hash=logo_hash, brand__is_active=True)
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return HttpResponse(bytes(found.png), content_type="image/png", headers=headers)
