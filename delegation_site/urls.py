"""Root URL configuration."""

from allauth.account import views as account
from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from accounts import second_factor_demand, sign_in
from brands import views as brands
from brands.scoped_admin import no_autocomplete
from conversations import home_page
from conversations import urls as conversations
from conversations.preview import preview_in_frame
from conversations.timeline_page import close, end_tokens
from conversations.trial_page import trial_sign_in
from delegation_site import health
from web import errors, pages
from web.limits import limited

# The allauth URLs that we use. There is no password reset by e-mail: it would allow enumeration, and takeover through a
# mailbox. `manage.py changepassword` replaces it. Sign-up is closed, but allauth's pages need its URL to exist.
_account = [
    path("login/", account.login, name="account_login"),
    path("logout/", account.logout, name="account_logout"),
    path("signup/", account.signup, name="account_signup"),
    path("inactive/", account.account_inactive, name="account_inactive"),
    path("reauthenticate/", account.reauthenticate, name="account_reauthenticate"),
    path("second-factor/totp/activate/", second_factor_demand.activate_totp),
    path("second-factor/webauthn/add/", second_factor_demand.add_webauthn),
    path("second-factor/", include("allauth.mfa.urls")),
]

urlpatterns = [
    path("", pages.front_page, name="front_page"),
    path("api/v1/", include(conversations.api_urlpatterns)),
    # Below the redirect URI, so that a server that may call the redirect URI may also read the keys. Same alphabet.
    re_path(
        r"^callback/(?P<callback_id>[A-Za-z0-9_-]{1,32})/jwks\.json\Z", limited(brands.client_keys), name="client_keys"
    ),
    path("brands/<uuid:brand_uuid>/logo-<slug:logo_hash>.png", limited(brands.logo), name="brand_logo"),
    path("", include(conversations)),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/login/", sign_in.admin_login),
    path("admin/password_change/", sign_in.change_own_password),
    path("admin/account/", include(_account)),
    path("admin/brands/brand/<int:pk>/preview/", preview_in_frame, name="brand_preview"),
    path("admin/brands/brand/<int:pk>/export/", admin.site.admin_view(brands.brand_export), name="brand_export"),
    path(
        "admin/brands/authorizationserver/<int:pk>/sign-in/",
        admin.site.admin_view(trial_sign_in),
        name="trial_sign_in",
    ),
    path("admin/conversations/conversation/<int:pk>/end-tokens/", admin.site.admin_view(end_tokens), name="end_tokens"),
    path("admin/conversations/conversation/<int:pk>/close/", admin.site.admin_view(close), name="close_conversation"),
    path("admin/", home_page.index),  # Django's index, with the brand's report above it
    path("admin/home.csv", home_page.as_csv, name="home_csv"),
    path("admin/autocomplete/", admin.site.admin_view(no_autocomplete)),
    path("admin/", admin.site.urls),
    path("health/live", health.live, name="live"),
    path("health/ready", health.ready, name="ready"),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.server_error
