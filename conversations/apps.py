"""The app of conversations, challenges and access tokens."""

from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    """Nothing to register: no signals, no checks."""

    name = "conversations"
