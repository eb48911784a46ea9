"""The addresses of what brands' authorization servers and their consumers' browsers fetch from us."""

from django.urls import path, re_path

from brands import views
from web.limits import limited

urlpatterns = [
    # Below the redirect URI: whoever may register the one may read the other. Its own alphabet alone, as there.
    re_path(
        r"^callback/(?P<callback_id>[A-Za-z0-9_-]{1,32})/jwks\.json\Z", limited(views.client_keys), name="client_keys"
    ),
    path("brands/<uuid:brand_uuid>/logo-<slug:logo_hash>.png", limited(views.logo), name="brand_logo"),
]
