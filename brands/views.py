"""What a brand's authorization server fetches from us."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from brands.models import AuthorizationServer


@require_safe
def client_keys(request: HttpRequest, callback_id: str) -> HttpResponse:
    """`GET /callback/{callback_id}/jwks.json`: the public half of a server's signing key (RFC 7517, C7).

    Also for a server that is switched off: tokens that it issued before are still revoked there.
    """
    servers = AuthorizationServer.objects.filter(signing_key_jwk__isnull=False)
    server = get_object_or_404(servers, callback_id=callback_id)
    return JsonResponse({"keys": [server.signing_key_jwk]})
