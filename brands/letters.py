"""Letters to a brand's admins on what another of them changed (N8), one each: nobody learns the others' addresses."""

import logging
from smtplib import SMTPException
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction

from brands.hosts import host_of
from brands.models import AuthorizationServer, Brand, WebhookEndpoint

logger = logging.getLogger("consumer_delegation.changes")


def tell_of_other_hosts(server: AuthorizationServer, lines: list[str], user: Any) -> None:
    """Tell where an authorization server leads now."""
    brand = _in_one_line(server.brand)
    text = [
        f"{_who(user)} changed where {brand}'s authorization server {server.key} leads:",
        "",
        *lines,
        "",
        "If you did not expect this, switch the server off at once and change that admin's password:",
        f"{settings.PUBLIC_BASE_URL}/admin/brands/authorizationserver/{server.pk}/change/",
    ]
    subject = f"{brand}: the authorization server {server.key} leads to another host"
    _send_to_the_others(server.brand, user, subject, text)


def tell_of_webhooks(endpoint: WebhookEndpoint, user: Any) -> None:
    """Tell that another address is told of conversations from now on. Of it only the host: a path may be a secret."""
    brand, host = _in_one_line(endpoint.brand), host_of(endpoint.url)
    text = [
        f"{_who(user)} has {brand}'s webhooks sent to {host} from now on: {', '.join(endpoint.events)}.",
        "",
        "They name conversations, and hold the bot's purpose and context.",
        "",
        "If you did not expect this, switch the endpoint off at once and change that admin's password:",
        f"{settings.PUBLIC_BASE_URL}/admin/brands/webhookendpoint/{endpoint.pk}/change/",
    ]
    _send_to_the_others(endpoint.brand, user, f"{brand}: webhooks are sent to {host}", text)


def _who(user: Any) -> str:
    return str(user.get_username()) if user else "the operator"


def _in_one_line(brand: Brand) -> str:
    return " ".join(brand.name.split())  # a line break in a subject is refused as header injection


def _send_to_the_others(brand: Brand, user: Any, subject: str, text: list[str]) -> None:
    letters = [EmailMessage(subject, "\n".join(text), to=[address]) for address in _other_admins(brand, user)]
    transaction.on_commit(lambda: _send(letters), robust=True)


def _other_admins(brand: Brand, user: Any) -> list[str]:
    admins = brand.admins.filter(is_active=True).exclude(email="")
    return sorted(set((admins.exclude(pk=user.pk) if user else admins).values_list("email", flat=True)))


def _send(letters: list[EmailMessage]) -> None:
    """Send after the commit. A mail server that is down takes nothing back: the audit row is there in any case."""
    for letter in letters:
        try:
            letter.send()
        except (SMTPException, OSError):
            logger.exception("a change could not be mailed")
