"""The settings, from the environment. Programs that start MCP servers hand them on in this way."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

from consumer_delegation import AsyncDelegation
from consumer_delegation.ids import accepted

PREFIX = "CONSUMER_DELEGATION_"
SHORTEST_STATE_KEY = 32


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


@dataclass(frozen=True)
class HttpSettings:
    """Where to listen, and whose access tokens to accept. `issuer` is "" without authorization, on loopback only."""

    host: str
    port: int
    issuer: str = ""
    resource: str = ""
    jwks_url: str = ""
    required_scope: str = ""
    state_keys: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self | None:
        """Read the settings; None if the server is to speak on standard input and output. Raises `NotConfigured`."""

        def value(name: str) -> str:
            return environment.get(f"{PREFIX}{name}", "").strip()

        if not value("LISTEN"):
            return None
        host, _, port = value("LISTEN").rpartition(":")
        if not host or not port.isascii() or not port.isdecimal():
            raise NotConfigured(f"{PREFIX}LISTEN is an address and a port, such as 127.0.0.1:8040.")
        settings = cls(
            host=host.strip("[]"),
            port=int(port),
            issuer=value("ISSUER"),
            resource=value("RESOURCE"),
            jwks_url=value("JWKS_URL"),
            required_scope=value("REQUIRED_SCOPE"),
            state_keys=_state_keys(value("STATE_KEYS_FILE")),
        )
        settings.refuse_open_door()
        return settings

    def refuse_open_door(self) -> None:
        """Raise `NotConfigured` if others could reach the server without authorization, or with half of it."""
        named = [self.issuer, self.resource, self.jwks_url]
        if not any(named) and is_loopback(self.host):
            return
        if not all(named):
            raise NotConfigured(
                f"Set {PREFIX}ISSUER, {PREFIX}RESOURCE and {PREFIX}JWKS_URL. Without authorization this server listens"
                " on a loopback address only: everybody who reached it would act for the person who has signed in."
            )
        for url in named:
            parts = urlsplit(url)
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
                raise NotConfigured(f"{PREFIX}ISSUER, {PREFIX}RESOURCE and {PREFIX}JWKS_URL begin with https://.")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name may lead anywhere, so no name but localhost is one."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _state_keys(file: str) -> tuple[str, ...]:
    if not file:
        return ()
    try:
        keys = tuple(Path(file).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        raise NotConfigured(f"The file that {PREFIX}STATE_KEYS_FILE names cannot be read.") from None
    if not keys or any(len(key) < SHORTEST_STATE_KEY for key in keys) or len(set(keys)) < len(keys):
        raise NotConfigured(f"{PREFIX}STATE_KEYS_FILE has one key a line, each of 32 random characters or more.")
    return keys


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
