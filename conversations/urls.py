"""The addresses of the consumer's pages, and of the contract that the developers of bots read."""

from django.urls import path, re_path, register_converter

from conversations import views
from conversations.api import reference
from conversations.links import PREFIXED, LinkToken, ReceiptToken
from web.limits import limited, limited_by_address

register_converter(LinkToken, "link_token")
register_converter(ReceiptToken, "receipt_token")

urlpatterns = [
    path("api/v1/openapi.json", reference.openapi_json, name="openapi_json"),
    path("api/docs", reference.docs, name="api_docs"),
    path("c/", limited(views.no_link), name="no_link"),
    path("c/<link_token:link_token>", limited(views.link_or_begin), name="link"),
    path("c/<link_token:link_token>/cancel", limited(views.cancel), name="cancel"),
    path("c/<link_token:link_token>/undo", limited_by_address(views.undo_sign_in), name="undo"),
    path("c/<link_token:link_token>/done", limited(views.done), name="done"),
    path("r/<receipt_token:receipt_token>", limited(views.receipt), name="receipt"),
    path("r/<receipt_token:receipt_token>/end", limited_by_address(views.end_by_receipt), name="end_by_receipt"),
    path("c/<link_token:link_token>/other-browser", limited(views.other_browser), name="other_browser"),
    path("c/<link_token:link_token>/not-completed", limited(views.not_completed), name="not_completed"),
    re_path(r"^/*(?P<kind>[cCrR])/(?P<rest>[\s\S]*)\Z", limited_by_address(views.damaged_link), name="damaged_link"),
    # Its own alphabet alone: PostgreSQL cannot look for a NUL character.
    re_path(r"^callback/(?P<callback_id>[A-Za-z0-9_-]{1,32})\Z", limited(views.callback), name="callback"),
    re_path(
        r"^/*[cC][aA][lL][lL][bB][aA][cC][kK]/+(?P<callback_id>[A-Za-z0-9_-]{1,32})(?![A-Za-z0-9_-])",
        limited(views.damaged_callback),
        name="damaged_callback",
    ),
    re_path(PREFIXED, limited_by_address(views.damaged_link), name="prefixed_link"),
]
