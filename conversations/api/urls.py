"""The addresses of the bot API. A conversation id is taken as it comes, to be refused by name and not by a bare 404."""

from django.urls import path, re_path

from conversations.api import token_read, views
from conversations.api.calls import endpoint

CONVERSATION = r"^conversations/(?P<conversation_id>[\s\S]*)"

urlpatterns = [
    path("challenges/<str:challenge_id>", endpoint(GET=views.read_challenge, DELETE=views.withdraw)),
    re_path(CONVERSATION + r"/challenges\Z", endpoint(POST=views.create_challenge)),
    re_path(CONVERSATION + r"/completion\Z", endpoint(POST=views.post_completion)),
    re_path(CONVERSATION + r"/token\Z", endpoint(GET=token_read.read_token, DELETE=views.end_token)),
    re_path(CONVERSATION + r"/authorize\Z", endpoint(POST=views.authorize)),
    re_path(CONVERSATION + r"\Z", endpoint(GET=views.read_conversation, DELETE=views.close)),
]
