"""Every address of the site."""

from django.contrib import admin
from django.urls import include, path

from delegation_site import errors, health, sign_in

urlpatterns = [
    path("api/v1/", include("conversations.api.urls")),
    path("", include("brands.urls")),
    path("", include("conversations.urls")),
    path("admin/login/", sign_in.admin_login),
    path("admin/password_change/", sign_in.change_own_password),
    path("admin/account/", include("delegation_site.sign_in_urls")),
    path("admin/", admin.site.urls),
    path("health/live", health.live),
    path("health/ready", health.ready),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.server_error
