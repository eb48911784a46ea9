"""Acme's own pages: the home page, and a button that revokes all access."""

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
    """Delete the customer's tokens. A bot then gets a 401 before its token expires, and must ask for a new one."""
    Token.objects.filter(user=request.user).delete()
    return redirect("home")
