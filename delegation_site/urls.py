"""Every address of the site; those of pages and of the bot API are below `conversations`."""

from allauth.account import views as account
from django.contrib import admin
from django.urls import include, path, re_path

from accounts import sign_in
from brands import views as brands
from delegation_site import health
from web import errors
from web.limits import limited

# The admin's sign-in: those of allauth's addresses that we use. There is no password reset by e-mail: nothing to
# enumerate, and no mailbox to take over. `manage.py changepassword` does it. Signing up is closed; allauth's own pages
# ask for the address, so it is there and says so.
_account = [
    path("login/", account.login, name="account_login"),
    path("logout/", account.logout, name="account_logout"),
    path("signup/", account.signup, name="account_signup"),
    path("inactive/", account.account_inactive, name="account_inactive"),
    path("reauthenticate/", account.reauthenticate, name="account_reauthenticate"),
    path("second-factor/", include("allauth.mfa.urls")),
]

urlpatterns = [
    path("api/v1/", include("conversations.api.urls")),
    # Below the redirect URI: whoever may register the one may read the other. Its own alphabet alone, as there.
    re_path(
        r"^callback/(?P<callback_id>[A-Za-z0-9_-]{1,32})/jwks\.json\Z", limited(brands.client_keys), name="client_keys"
    ),
    path("brands/<uuid:brand_uuid>/logo-<slug:logo_hash>.png", limited(brands.logo), name="brand_logo"),
    path("", include("conversations.urls")),
    path("admin/login/", sign_in.admin_login),
    path("admin/password_change/", sign_in.change_own_password),
    path("admin/account/", include(_account)),
    path("admin/", admin.site.urls),
    path("health/live", health.live),
    path("health/ready", health.ready),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.server_error
