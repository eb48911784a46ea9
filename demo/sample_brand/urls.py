from allauth.account.views import login, logout, reauthenticate
from django.urls import include, path

from demo.sample_brand import api, pages

# Sign-up, password reset and the rest of allauth are left out: Acme's two customers are made at set-up.
urlpatterns = [
    path("", pages.home, name="home"),
    path("disconnect", pages.disconnect, name="disconnect"),
    path("api/orders", api.orders, name="orders"),
    path("accounts/login/", login, name="account_login"),
    path("accounts/logout/", logout, name="account_logout"),
    path("accounts/reauthenticate/", reauthenticate, name="account_reauthenticate"),
    path("", include("allauth.idp.urls")),
]
