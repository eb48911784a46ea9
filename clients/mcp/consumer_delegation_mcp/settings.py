"""The settings, from the environment. Programs that start MCP servers hand them on in this way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from uuid import uuid4

from consumer_delegation import AsyncDelegation
from consumer_delegation.ids import accepted

PREFIX = "CONSUMER_DELEGATION_"


class NotConfigured(Exception):
    """A setting is missing or wrong. The message says which one, and never its value."""


@dataclass(frozen=True)
class Settings:
    """`conversation_id` is None if the process makes one, which it closes when it ends."""

    base_url: str
    bot_key: str = field(repr=False)
    purpose: str = ""
    locale: str = ""
    same_person_check: str = "completion_code"
    conversation_id: str | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings. Raises `NotConfigured`."""

        def value(name: str, default: str = "") -> str:
            return environment.get(f"{PREFIX}{name}", "").strip() or default

        if not value("URL"):
            raise NotConfigured(f"{PREFIX}URL is missing: the address of the API, which ends in /api/v1.")
        settings = cls(
            base_url=value("URL"),
            bot_key=_bot_key(value("BOT_KEY"), value("BOT_KEY_FILE")),
            purpose=value("PURPOSE"),
            locale=value("LOCALE"),
            same_person_check=value("SAME_PERSON_CHECK", "completion_code"),
            conversation_id=value("CONVERSATION_ID") or None,
        )
        try:
            accepted(settings.conversation_id or new_conversation_id())
            AsyncDelegation(settings.base_url, settings.bot_key)
        except ValueError as error:
            raise NotConfigured(str(error)) from None
        return settings


def new_conversation_id() -> str:
    """Make the id of a process's conversation. A random one: a process id comes back."""
    return f"mcp:{uuid4()}"


def _bot_key(key: str, file: str) -> str:
    if bool(key) == bool(file):
        raise NotConfigured(f"Set {PREFIX}BOT_KEY_FILE, the path of a file with the bot key, or {PREFIX}BOT_KEY.")
    if key:
        return key
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise NotConfigured(f"The file that {PREFIX}BOT_KEY_FILE names cannot be read.") from None
