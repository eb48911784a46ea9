"""The receipt: an unguessable address that says what was granted, and takes it back, without an account.

Its token is derived from the access token's row and the attempt's cookie, as the completion handle is: the browser that
signed in can be shown it again, and the row holds its digest alone. It recognises until the conversation is closed.
"""

from conversations.models import AccessToken
from delegation_site.crypto import key_ring

RECEIPT_PURPOSE = "receipt"
_TOKEN_PURPOSE = "receipt-token"


def receipt_digest(access_token: AccessToken, cookie: str) -> bytes:
    """Return what the row keeps of its receipt."""
    ring = key_ring()
    return ring.digest(RECEIPT_PURPOSE, ring.derived_tokens(_TOKEN_PURPOSE, access_token.uuid, cookie)[0])


def shown_receipt(access_token: AccessToken, cookie: str) -> str | None:
    """Return the receipt's token to the holder of the successful attempt's cookie; None for every other cookie."""
    ring = key_ring()
    for token in ring.derived_tokens(_TOKEN_PURPOSE, access_token.uuid, cookie):
        if ring.recognises(access_token.receipt_digest, RECEIPT_PURPOSE, token):
            return token
    return None


def access_token_of_receipt(receipt_token: str) -> AccessToken | None:
    """Return the access token, ended or not, that a receipt tells of; None for an unknown one.

    None, too, before the same-person check was passed: until then nothing has been granted to anybody.
    """
    rows = AccessToken.objects.filter(
        receipt_digest__in=key_ring().digests(RECEIPT_PURPOSE, receipt_token),
        confirmed_at__isnull=False,
        conversation__closed_at=None,
        conversation__brand__is_active=True,
    )
    return rows.select_related("challenge__conversation__brand", "challenge__authorization_server").first()
