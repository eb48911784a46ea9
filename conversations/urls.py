"""URLs of the bot API, of its documentation and of the consumer's pages."""

from django.urls import path, re_path, register_converter

from conversations import views
from conversations.api import operations, reference, token_read
from conversations.api import views as api
from conversations.api.calls import endpoint
from conversations.links import PREFIXED, LinkToken, ReceiptToken
from web.limits import limited, limited_by_address, limited_look

register_converter(LinkToken, "link_token")
register_converter(ReceiptToken, "receipt_token")

# Any text matches as a conversation id, so that a malformed id gets its own problem document and not a plain 404.
_CONVERSATION = r"^conversations/(?P<conversation_id>[\s\S]*)"

# The names are labels of metrics.
api_urlpatterns = [
    path("operations", endpoint(GET=operations.list_operations), name="operations"),
    path("challenges/<str:challenge_id>", endpoint(GET=api.read_challenge, DELETE=api.withdraw), name="challenge"),
    re_path(_CONVERSATION + r"/challenges\Z", endpoint(POST=api.create_challenge), name="challenges"),
    re_path(_CONVERSATION + r"/completion\Z", endpoint(POST=api.post_completion), name="completion"),
    re_path(_CONVERSATION + r"/token\Z", endpoint(GET=token_read.read_token, DELETE=api.end_token), name="token"),
    re_path(_CONVERSATION + r"/authorize\Z", endpoint(POST=api.authorize), name="authorize"),
    re_path(_CONVERSATION + r"/calls/(?P<operation>[\s\S]*)\Z", endpoint(POST=operations.call_operation), name="call"),
    re_path(_CONVERSATION + r"\Z", endpoint(GET=api.read_conversation, DELETE=api.close), name="conversation"),
]

urlpatterns = [
    path("api/v1/openapi.json", reference.openapi_json, name="openapi_json"),
    path("api/docs", reference.docs, name="api_docs"),
    path("c/", limited(views.no_link), name="no_link"),
    path("c/<link_token:link_token>", views.button, name="link"),
    path("c/<link_token:link_token>/cancel", limited(views.cancel), name="cancel"),
    path("c/<link_token:link_token>/undo", limited_by_address(views.undo_sign_in), name="undo"),
    path("c/<link_token:link_token>/done", limited(views.done), name="done"),
    path("c/<link_token:link_token>/standing", limited_look(views.look), name="standing"),
    path("r/<receipt_token:receipt_token>", limited(views.receipt), name="receipt"),
    path("r/<receipt_token:receipt_token>/end", limited_by_address(views.end_by_receipt), name="end_by_receipt"),
    path("c/<link_token:link_token>/other-browser", limited(views.other_browser), name="other_browser"),
    path("c/<link_token:link_token>/not-completed", limited(views.not_completed), name="not_completed"),
    re_path(r"^/*(?P<kind>[cCrR])/(?P<rest>[\s\S]*)\Z", limited_by_address(views.damaged_link), name="damaged_link"),
    # Only the alphabet of callback ids: PostgreSQL fails on a NUL character in a parameter.
    re_path(r"^callback/(?P<callback_id>[A-Za-z0-9_-]{1,32})\Z", limited(views.callback), name="callback"),
    re_path(
        r"^/*[cC][aA][lL][lL][bB][aA][cC][kK]/+(?P<callback_id>[A-Za-z0-9_-]{1,32})(?![A-Za-z0-9_-])",
        limited(views.damaged_callback),
        name="damaged_callback",
    ),
    re_path(PREFIXED, limited_by_address(views.damaged_link), name="prefixed_link"),
]
