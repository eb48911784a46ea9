"""The addresses of the consumer's pages."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from conversations import views


def link_or_begin(request: HttpRequest, link_token: str) -> HttpResponse:
    """Send the button's POST to `begin` and everything else to the inert page."""
    view = views.begin if request.method == "POST" else views.link
    return view(request, link_token)


urlpatterns = [
    path("c/", views.no_link, name="no_link"),
    path("c/<str:link_token>", link_or_begin, name="link"),
    path("c/<str:link_token>/cancel", views.cancel, name="cancel"),
    path("c/<str:link_token>/undo", views.undo_sign_in, name="undo"),
    path("c/<str:link_token>/done", views.done, name="done"),
    path("c/<str:link_token>/other-browser", views.other_browser, name="other_browser"),
    path("callback/<str:callback_id>", views.callback, name="callback"),
]
