"""Acme's "my orders" API. Bots call it with the consumer's access token (RFC 6750)."""

from http import HTTPStatus

from allauth.idp.oidc.models import Token
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

from demo.sample_brand.orders import ORDERS

REQUIRED_SCOPE = "orders.read"


@require_GET
def orders(request: HttpRequest) -> JsonResponse:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value:
        # RFC 6750 section 3.1: the answer to a request without a token has no error code.
        return refuse(HTTPStatus.UNAUTHORIZED, "")
    token = Token.objects.lookup(Token.Type.ACCESS_TOKEN, value)
    if token is None or token.user is None or not token.user.is_active:
        return refuse(HTTPStatus.UNAUTHORIZED, "invalid_token")
    if REQUIRED_SCOPE not in token.get_scopes():
        return refuse(HTTPStatus.FORBIDDEN, "insufficient_scope")
    return JsonResponse({"customer": token.user.username, "orders": ORDERS.get(token.user.username, [])})


def refuse(status: HTTPStatus, error: str) -> JsonResponse:
    details = f', error="{error}", scope="{REQUIRED_SCOPE}"' if error else ""
    body = {"error": error} if error else {}
    return JsonResponse(body, status=status, headers={"WWW-Authenticate": f'Bearer realm="orders"{details}'})
