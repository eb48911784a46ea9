"""The addresses that a brand's authorization server fetches from us."""

from django.urls import path

from brands import views

urlpatterns = [
    # Below the redirect URI: whoever may register the one may read the other.
    path("callback/<str:callback_id>/jwks.json", views.client_keys, name="client_keys"),
]
