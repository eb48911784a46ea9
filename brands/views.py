"""Our public signing keys, for authorization servers, and brands' logos, for consumer pages."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_safe

from brands.models import AuthorizationServer, Logo


@require_safe
def client_keys(request: HttpRequest, callback_id: str) -> HttpResponse:
    """`GET /callback/{callback_id}/jwks.json`: our public keys for this authorization server (RFC 7517, C7).

    They are also served if the server is switched off, because tokens that it issued before are still revoked there.
    """
    servers = AuthorizationServer.objects.filter(signing_key_jwk__isnull=False)
    server = get_object_or_404(servers, callback_id=callback_id)
    return JsonResponse({"keys": server.published_signing_keys(timezone.now())})


@require_safe
def logo(request: HttpRequest, brand_uuid: UUID, logo_hash: str) -> HttpResponse:
    """`GET /brands/{brand_uuid}/logo-{logo_hash}.png`: cached for ever, because another picture has another URL."""
    found = get_object_or_404(Logo, brand__uuid=brand_uuid, brand__logo_hash=logo_hash, brand__is_active=True)
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return HttpResponse(bytes(found.png), content_type="image/png", headers=headers)
