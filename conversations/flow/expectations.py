"""What the bot expects of the account that signs in: a subject (A12), or the channel's verified claims (A14).

Of each expected value only a digest is stored, bound to the conversation. The account's own claims are not stored.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from uuid import UUID

import idna

from brands.models import ExpectedClaimsPolicy, SamePersonCheck
from conversations.flow.errors import ExpectedClaimInvalid
from conversations.models import Challenge
from infrastructure.crypto import Secret, key_ring
from oauth_client import AuthorizationServerError, ErrorCode, IDTokenClaims

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_EXPECTED_SUBJECT: Final = "expected-subject"
_EXPECTED_CLAIM: Final = "expected-claim"
# Anyone can put these claims into a profile. They count only if the server verified them (OpenID Connect Core 5.7).
_VERIFIED_BY: Final = {"email": "email_verified", "phone_number": "phone_number_verified"}
# Without a plus there are digits only, as channels write their ids. Separators would suggest a national number.
_INTERNATIONAL: Final = re.compile(r"[1-9][0-9]{4,14}|\+[0-9](?:[0-9 ().-]|\u00a0){4,38}")
# Mexico dropped a 1 after the country code in 2019; Brazil has put a 9 before its mobile numbers, which begin with 6 to
# 9, since 2010. Channels keep the old form in the ids of old accounts (WhatsApp), where it is nobody else's number.
_OLD_FORMS: Final = (
    (re.compile(r"521([0-9]{10})"), r"52\1"),
    (re.compile(r"55([1-9][0-9])([6-9][0-9]{7})"), r"55\g<1>9\2"),
)
_EMAIL: Final = re.compile(r"([^\s@]{1,64})@([^\s@]{1,189})")


def expected_subject_digest(conversation: UUID, expected: Secret | None) -> bytes | None:
    """Compute the digest of the customer that the bot expects; None if the bot named none."""
    if expected is None:
        return None
    return key_ring().digest(_EXPECTED_SUBJECT, conversation.bytes, expected.reveal())


def expects_same_subject(challenge: Challenge, expected: Secret | None) -> bool:
    """Whether the challenge was issued with this expected subject; for None, whether it was issued without any."""
    if expected is None or challenge.expected_subject_digest is None:
        return expected is None and challenge.expected_subject_digest is None
    return _is_expected(challenge, expected.reveal())


def matches_expected_subject(challenge: Challenge, claims: IDTokenClaims | None) -> bool:
    """Whether the verified ID token names the customer that the bot expects (A12).

    True if the check is not `expected_subject`. Raises `AuthorizationServerError` with `claim_unusable` if the claim is
    missing or not verified: it would say nothing about who signed in.
    """
    if challenge.same_person_check != SamePersonCheck.EXPECTED_SUBJECT:
        return True
    return _is_expected(challenge, _claim_text(challenge.authorization_server.subject_claim, claims))


def normalised_claims(given: Mapping[str, str]) -> dict[str, Secret]:
    """Return the claims that the bot expects, in the form that is compared. Raises `ExpectedClaimInvalid`."""
    found = {}
    for name, text in given.items():
        value = _NORMALISE[name](text)
        if value is None:
            raise ExpectedClaimInvalid(name)
        found[name] = Secret(value)
    return found


def expected_claim_digests(conversation: UUID, expected: Mapping[str, Secret]) -> dict[str, bytes]:
    """Compute the challenge's columns for what `normalised_claims` returned."""
    return {
        _column(name): key_ring().digest(_EXPECTED_CLAIM, conversation.bytes, name, value.reveal())
        for name, value in expected.items()
    }


def expects_claims(challenge: Challenge, expected: Mapping[str, Secret]) -> bool:
    """Whether the challenge was issued with these expected claims. It may have been issued with more."""
    return all(_is_expected_claim(challenge, name, value.reveal()) for name, value in expected.items())


def expects_same_claims(challenge: Challenge, expected: Mapping[str, Secret]) -> bool:
    """Whether the challenge was issued with exactly these expected claims; for none, whether with none."""
    return set(_expected_names(challenge)) == set(expected) and expects_claims(challenge, expected)


def accepts_claims(challenge: Challenge, claims: IDTokenClaims | None) -> bool:
    """Whether no verified claim differs from an expected one, if the server refuses a difference (A14).

    Raises `AuthorizationServerError` with `claim_unusable` if nothing differs and a claim could not be compared.
    """
    if challenge.authorization_server.expected_claims_policy != ExpectedClaimsPolicy.REFUSE:
        return True
    unusable = None
    for name in _expected_names(challenge):
        try:
            if not _matches(challenge, name, claims):
                return False
        except AuthorizationServerError as error:
            unusable = unusable or error
    if unusable:
        raise unusable
    return True


def matched_claims(challenge: Challenge, claims: IDTokenClaims | None) -> list[str]:
    """List the expected claims that the verified ID token confirms. One that cannot be compared is not listed."""
    found = []
    for name in _expected_names(challenge):
        try:
            if _matches(challenge, name, claims):
                found.append(name)
        except AuthorizationServerError:
            continue
    return found


def _matches(challenge: Challenge, name: str, claims: IDTokenClaims | None) -> bool:
    value = _NORMALISE[name](_claim_text(name, claims))
    if value is None:
        raise _claim_unusable(f"{name} in the ID token {_UNREADABLE[name]}")
    return _is_expected_claim(challenge, name, value)


def _expected_names(challenge: Challenge) -> list[str]:
    return [name for name in _NORMALISE if getattr(challenge, _column(name)) is not None]


def _is_expected_claim(challenge: Challenge, name: str, value: str) -> bool:
    digest = getattr(challenge, _column(name))
    return key_ring().recognises(digest, _EXPECTED_CLAIM, challenge.conversation.uuid.bytes, name, value)


def _column(name: str) -> str:
    return f"expected_{name}_digest"


def _claim_text(name: str, claims: IDTokenClaims | None) -> str:
    """Return the claim as text. Bots write a whole number in decimal digits. Other types are refused."""
    if claims is None:
        raise _claim_unusable("no ID token was requested: the scope lacks openid")
    value = claims.claims.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise _claim_unusable(f"the ID token has no {name} that is a text or a whole number")
    # Cognito and Apple write the boolean as the text "true". Other values, such as 1 or "True", do not count.
    verified = claims.claims.get(_VERIFIED_BY.get(name, ""))
    if name in _VERIFIED_BY and verified is not True and verified != "true":
        raise _claim_unusable(f"{_VERIFIED_BY[name]} is not true in the ID token, so {name} proves nothing")
    return value


def _claim_unusable(detail: str) -> AuthorizationServerError:
    return AuthorizationServerError(ErrorCode.CLAIM_UNUSABLE, detail)


def _is_expected(challenge: Challenge, value: str) -> bool:
    digest, conversation = challenge.expected_subject_digest, challenge.conversation
    return key_ring().recognises(digest, _EXPECTED_SUBJECT, conversation.uuid.bytes, value)


def _international_number(text: str) -> str | None:
    """Return the number as E.164; None if it needs a region, has an extension, or cannot be a number.

    A number need not be assigned: the library's lists of assigned ranges are older than the newest numbers.
    """
    if not _INTERNATIONAL.fullmatch(text):
        return None
    # 2.7 MB and 40 ms, which only a process needs that compares a number.
    import phonenumbers  # noqa: PLC0415

    try:
        number: PhoneNumber = phonenumbers.parse(f"+{_renumbered(text).removeprefix('+')}")
    except phonenumbers.NumberParseException:
        return None
    # A number that can only be dialled locally is "possible", too.
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _renumbered(text: str) -> str:
    """Return the digits as they are today if the number is written as before its country changed its numbers."""
    digits = "".join(character for character in text if character.isdigit())
    for old, new in _OLD_FORMS:
        if old.fullmatch(digits):
            return old.sub(new, digits)
    return text


def _email_address(text: str) -> str | None:
    """Return the address with its domain as DNS has it (RFC 5891); None if it is not an address.

    The part before the @ stays exactly as it is: only the server that gets the mail knows what it means
    (RFC 5321 section 2.4).
    """
    match = _EMAIL.fullmatch(text)
    if match is None or not text.isprintable():
        return None
    local, domain = match.groups()
    if domain.isascii():
        return f"{local}@{domain.lower()}"
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode()}"
    except UnicodeError:
        return None


_NORMALISE: Final[dict[str, Callable[[str], str | None]]] = {
    "phone_number": _international_number,
    "email": _email_address,
}
_UNREADABLE: Final = {"phone_number": "is not an international number", "email": "is not an e-mail address"}
