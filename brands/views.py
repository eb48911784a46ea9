"""Our public signing keys, brands' logos for consumer pages, and the export of a brand for its admins."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_safe

from brands.configuration_export import export_configuration
from brands.models import AuthorizationServer, Brand, Logo
from brands.scoped_admin import own_row_or_404


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


@require_safe
def brand_export(request: HttpRequest, pk: int) -> HttpResponse:
    """`/admin/brands/brand/{pk}/export/`: the brand's configuration as a file, without secrets (J1, H7).

    It holds the addresses of webhooks, as their admin pages do: without them the file could not be applied.
    """
    brand: Brand = own_row_or_404(Brand, request, pk, to_change=False)
    headers = {"Content-Disposition": f'attachment; filename="{brand.slug}.toml"', "Cache-Control": "no-store"}
    return HttpResponse(export_configuration(brand), content_type="application/toml; charset=utf-8", headers=headers)
