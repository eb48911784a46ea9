"""Send mail to admins. A mail server that is down stops nothing: the caller's change, and its audit row, stay."""

import logging
from collections.abc import Iterable
from smtplib import SMTPException, SMTPRecipientsRefused, SMTPResponseException

from django.core.mail import EmailMessage, get_connection

logger = logging.getLogger("consumer_delegation.mail")


def send(subject: str, lines: Iterable[str], addresses: Iterable[str]) -> bool:
    """Send one mail to each address; return False if one could not be sent. Call it after the commit.

    All go over one connection. If it breaks, the rest is not tried: each try could take as long as a time-out. The
    error is only logged.
    """
    mails = [EmailMessage(" ".join(subject.split()), "\n".join(lines), to=[address]) for address in addresses]
    if not mails:
        return True
    sent = True
    try:
        with get_connection() as connection:
            for mail in mails:
                try:
                    connection.send_messages([mail])
                except (SMTPRecipientsRefused, SMTPResponseException):
                    logger.exception("a mail was refused")
                    sent = False
    except (SMTPException, OSError):
        logger.exception("a mail could not be sent")
        return False
    return sent
