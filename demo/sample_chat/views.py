"""The chat page. Each tab has its own conversation, at a URL that cannot be guessed."""

import os
from pathlib import Path

from django.http import FileResponse, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from demo.bot_api import BotApi
from demo.sample_chat.bot import SUGGESTIONS, Bot
from demo.sample_chat.conversation import Conversation, Conversations

STATIC = Path(__file__).parent / "static"
LONGEST_MESSAGE = 500

conversations = Conversations()
bot = Bot(BotApi(os.environ["SAMPLE_CHAT_PRODUCT_URL"], os.environ["SAMPLE_CHAT_BOT_KEY"]))


@require_GET
@never_cache
def start(request: HttpRequest) -> HttpResponse:
    """Begin a chat. With `?code`, its consumer types six digits, although the page has JavaScript."""
    conversation = conversations.begin(prefers_code="code" in request.GET)
    bot.greet(conversation)
    return redirect("chat", conversation.key)


@require_http_methods(["GET", "POST"])
@never_cache
def chat(request: HttpRequest, key: str) -> HttpResponse:
    conversation = conversations.find(key)
    if conversation is None:
        return redirect("start")
    if request.method == "POST":
        with conversation.lock:
            conversation.has_script = "X-Chat-Script" in request.headers
            bot.hear(conversation, request.POST.get("text", "").strip()[:LONGEST_MESSAGE])
        return news(request, key) if request.headers.get("X-Chat-Script") else redirect("chat", key)
    return _answer(request, conversation, "chat.html")


@require_http_methods(["GET", "POST"])
@never_cache
def news(request: HttpRequest, key: str) -> HttpResponse:
    """Send new messages. The page asks every two seconds, and the bot reads the challenge each time."""
    conversation = conversations.find(key)
    if conversation is None:
        return HttpResponse(status=410)
    return _answer(request, conversation, "messages.html")


@require_GET
@never_cache
def back(request: HttpRequest) -> HttpResponse:
    """The page to which the product redirects, with the handle in the fragment, which no server receives."""
    return render(request, "back.html")


@require_POST
def handle(request: HttpRequest, key: str) -> HttpResponse:
    """Receive the handle at the conversation's URL, which only this browser knows."""
    conversation = conversations.find(key)
    if conversation is None:
        return HttpResponse(status=410)
    with conversation.lock:
        bot.take_handle(conversation, request.POST.get("handle", ""))
    return HttpResponse(status=204)


def _answer(request: HttpRequest, conversation: Conversation, template: str) -> HttpResponse:
    with conversation.lock:
        bot.look(conversation)
        already = _number(request.GET.get("after", "0"))
        context = {
            "conversation": conversation,
            "messages": conversation.messages[already:],
            "suggestions": SUGGESTIONS,
        }
        response = render(request, template, context)
    response["X-Chat-Messages"] = str(len(conversation.messages))
    response["X-Chat-Closed"] = "yes" if conversation.is_closed else "no"
    return response


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


@never_cache
def not_sent(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form without the CSRF cookie, and show the message again, so that it is not lost (like chat.js)."""
    text = request.POST.get("text", "").strip()[:LONGEST_MESSAGE]
    return render(request, "not_sent.html", {"text": text, "chat": request.path}, status=403)


def stylesheet(_request: HttpRequest) -> FileResponse:
    return FileResponse((STATIC / "chat.css").open("rb"), content_type="text/css")


def script(_request: HttpRequest, name: str) -> FileResponse:
    return FileResponse((STATIC / f"{name}.js").open("rb"), content_type="text/javascript")
