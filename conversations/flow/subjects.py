"""Who signed in, and whether it is who it has to be. Nothing of it can be read, or compared, across conversations."""

import json

from brands.models import SamePersonCheck
from brands.oauth import AuthorizationServerError, ErrorCode, IDTokenClaims
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
    """Tell whether the verified ID token names the customer that the bot expects (A12); true for the other checks.

    A claim that is missing or not verified tells nothing about who signed in: raises `AuthorizationServerError` with
    `claim_unusable`.
    """
    if challenge.same_person_check != SamePersonCheck.EXPECTED_SUBJECT:
        return True
    return _is_expected(challenge, _usable(challenge.authorization_server.subject_claim, claims))


def _usable(name: str, claims: IDTokenClaims | None) -> str:
    """Return the claim as a text. A whole number is its decimal digits, as the bot writes it; nothing else is read."""
    if claims is None:
        raise _unusable("no ID token was asked for: the scope has no openid")
    said, value = claims.claims, claims.claims.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise _unusable(f"the ID token has no {name} that is a text or a whole number")
    # Cognito and Apple write the boolean as the text "true". Nothing else, a 1 or a "True", means yes.
    if name in _VERIFIED_BY and said.get(_VERIFIED_BY[name]) is not True and said.get(_VERIFIED_BY[name]) != "true":
        raise _unusable(f"{_VERIFIED_BY[name]} is not true in the ID token, so {name} may be anybody's")
    return value


def _unusable(detail: str) -> AuthorizationServerError:
    return AuthorizationServerError(ErrorCode.CLAIM_UNUSABLE, detail)


def _is_expected(challenge: Challenge, value: str) -> bool:
    digest, conversation = challenge.expected_subject_digest, challenge.conversation
    return key_ring().recognises(digest, _EXPECTED_SUBJECT, conversation.uuid.bytes, value)
