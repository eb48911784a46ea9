from allauth.account.views import logout
from django.urls import include, path

from demo.sample_brand import api, authorization, pages, sign_in

# Only a part of allauth's URLs: without sign-up and password reset, because set-up creates Acme's two customers.
urlpatterns = [
    path("", pages.home, name="home"),
    path("disconnect", pages.disconnect, name="disconnect"),
    path("api/orders", api.orders, name="orders"),
    path("accounts/login/", sign_in.login, name="account_login"),
    path("accounts/logout/", logout, name="account_logout"),
    path("accounts/reauthenticate/", sign_in.reauthenticate, name="account_reauthenticate"),
    # These replace allauth's views at the same URLs.
    path("identity/o/authorize", authorization.authorization),
    path("identity/o/api/token", authorization.token),
    path("", include("allauth.idp.urls")),
]
