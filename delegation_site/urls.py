"""Every address of the site."""

from django.contrib import admin
from django.urls import include, path

from accounts import sign_in
from delegation_site import health
from web import errors

urlpatterns = [
    path("api/v1/", include("conversations.api.urls")),
    path("", include("brands.urls")),
    path("", include("conversations.urls")),
    path("admin/login/", sign_in.admin_login),
    path("admin/password_change/", sign_in.change_own_password),
    path("admin/account/", include("accounts.urls")),
    path("admin/", admin.site.urls),
    path("health/live", health.live),
    path("health/ready", health.ready),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.server_error
