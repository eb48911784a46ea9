"""Every address of the site."""

from django.contrib import admin
from django.urls import include, path

from delegation_site import errors, health

urlpatterns = [
    path("", include("brands.urls")),
    path("", include("conversations.urls")),
    path("api/v1/", include("conversations.api.urls")),
    path("admin/", admin.site.urls),
    path("health/live", health.live),
    path("health/ready", health.ready),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.server_error
