"""The addresses of the consumer's pages, and of the contract that the developers of bots read."""

from django.urls import path, re_path

from conversations import views
from conversations.api import documents
from delegation_site.page_limits import limited, limited_by_address

urlpatterns = [
    path("api/v1/openapi.json", documents.openapi_json, name="openapi_json"),
    path("api/docs", documents.docs, name="api_docs"),
    path("c/", limited(views.no_link), name="no_link"),
    path("c/<str:link_token>", limited(views.link_or_begin), name="link"),
    path("c/<str:link_token>/cancel", limited(views.cancel), name="cancel"),
    path("c/<str:link_token>/undo", limited_by_address(views.undo_sign_in), name="undo"),
    path("c/<str:link_token>/done", limited(views.done), name="done"),
    path("r/<str:receipt_token>", limited(views.receipt), name="receipt"),
    path("r/<str:receipt_token>/end", limited_by_address(views.end_by_receipt), name="end_by_receipt"),
    path("c/<str:link_token>/other-browser", limited(views.other_browser), name="other_browser"),
    path("c/<str:link_token>/not-completed", limited(views.not_completed), name="not_completed"),
    # Its own alphabet alone: PostgreSQL cannot look for a NUL character.
    re_path(r"^callback/(?P<callback_id>[A-Za-z0-9_-]{1,32})\Z", limited(views.callback), name="callback"),
]
