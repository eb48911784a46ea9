"""Acme's home page, with a button that revokes all access of the signed-in customer."""

from allauth.idp.oidc.models import Token
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from demo.sample_brand.orders import ORDERS


def home(request: HttpRequest) -> HttpResponse:
    context: dict[str, object] = {}
    if request.user.is_authenticated:
        access = Token.objects.valid().filter(user=request.user, type=Token.Type.ACCESS_TOKEN)
        context = {"orders": ORDERS.get(request.user.get_username(), []), "permissions": access.count()}
    return render(request, "brand/home.html", context)


@login_required
@require_POST
def disconnect(request: HttpRequest) -> HttpResponse:
    """Revoke the customer's tokens. The bot gets a 401 before the token's expiry, and has to ask for a new sign-in."""
    Token.objects.filter(user=request.user).delete()
    return redirect("home")
