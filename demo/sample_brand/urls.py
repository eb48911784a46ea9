from allauth.account.views import logout
from django.urls import include, path

from demo.sample_brand import api, authorization, pages, sign_in

# Without sign-up, password reset and allauth's other pages: the set-up creates Acme's two customers.
urlpatterns = [
    path("", pages.home, name="home"),
    path("disconnect", pages.disconnect, name="disconnect"),
    path("api/orders", api.orders, name="orders"),
    path("accounts/login/", sign_in.login, name="account_login"),
    path("accounts/logout/", logout, name="account_logout"),
    path("accounts/reauthenticate/", sign_in.reauthenticate, name="account_reauthenticate"),
    # Before allauth's own views of the same paths.
    path("identity/o/authorize", authorization.authorization),
    path("identity/o/api/token", authorization.token),
    path("", include("allauth.idp.urls")),
]
