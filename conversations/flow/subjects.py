"""Who signed in, and whether it is who it has to be. Nothing of it can be read, or compared, across conversations."""

import json

from brands.models import SamePersonCheck
from brands.oauth import IDTokenClaims
from conversations.models import AccessToken, Challenge, Conversation
from delegation_site.crypto import Secret, key_ring

_EXPECTED_SUBJECT = "expected-subject"
# Claims that anybody may put into a profile mean nothing until the provider has verified them (OpenID Connect 5.7).
_VERIFIED_BY = {"email": "email_verified", "phone_number": "phone_number_verified"}


def subject_of(claims: IDTokenClaims | None) -> Secret | None:
    """Return what identifies an account: `iss` and `sub` together (OpenID Connect Core section 5.7)."""
    return Secret(json.dumps([claims.issuer, claims.subject])) if claims else None


def is_same_subject(challenge: Challenge, claims: IDTokenClaims | None) -> bool:
    """Tell whether a re-challenge came back with the account that this conversation had before (A7).

    No claims mean that the brand's admin took openid out of the scope: then there is nothing to compare. A sign-in that
    its consumer has undone binds nobody: she said that it was not hers. Raises `DecryptionError`.
    """
    subject = subject_of(claims)
    if subject is None:
        return True
    confirmed = challenge.conversation.access_tokens.filter(
        authorization_server_id=challenge.authorization_server_id,
        confirmed_at__isnull=False,
        subject_ciphertext__isnull=False,
    )
    last = confirmed.exclude(end_reason=AccessToken.EndReason.UNDONE).order_by("-confirmed_at", "-id").first()
    return last is None or last.reveal_subject() == subject


def expected_subject_digest(conversation: Conversation, expected: Secret | None) -> bytes | None:
    """Return what to keep of the customer that the bot expects."""
    if expected is None:
        return None
    return key_ring().digest(_EXPECTED_SUBJECT, conversation.uuid.bytes, expected.reveal())


def expects(challenge: Challenge, expected: Secret | None) -> bool:
    """Tell whether the challenge was issued for this very customer, or for nobody in particular."""
    if expected is None or challenge.expected_subject_digest is None:
        return expected is None and challenge.expected_subject_digest is None
    return _is_expected(challenge, expected.reveal())


def is_expected_subject(challenge: Challenge, claims: IDTokenClaims | None) -> bool:
    """Tell whether the verified ID token names the customer that the bot expects (A12); true for the other checks."""
    if challenge.same_person_check != SamePersonCheck.EXPECTED_SUBJECT:
        return True
    claim = challenge.authorization_server.subject_claim
    value = claims.claims.get(claim) if claims else None
    if not isinstance(value, str) or not claims:
        return False
    verified = claims.claims.get(_VERIFIED_BY[claim]) is True if claim in _VERIFIED_BY else True
    return verified and _is_expected(challenge, value)


def _is_expected(challenge: Challenge, value: str) -> bool:
    digest, conversation = challenge.expected_subject_digest, challenge.conversation
    return key_ring().recognises(digest, _EXPECTED_SUBJECT, conversation.uuid.bytes, value)
