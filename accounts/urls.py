"""The addresses of the admin's sign-in, below `/admin/account/`: those of allauth that we use and no others.

There is no password reset by e-mail: nothing to enumerate, and no mailbox to take over. `manage.py changepassword` does
it. Signing up is closed; allauth's own pages ask for the address, so it is there and says so.
"""

from allauth.account import views
from django.urls import include, path

urlpatterns = [
    path("login/", views.login, name="account_login"),
    path("logout/", views.logout, name="account_logout"),
    path("signup/", views.signup, name="account_signup"),
    path("inactive/", views.account_inactive, name="account_inactive"),
    path("reauthenticate/", views.reauthenticate, name="account_reauthenticate"),
    path("second-factor/", include("allauth.mfa.urls")),
]
