"""The same-person checks: how we check that the person who signs in is the person in the chat."""

from django.core.exceptions import ValidationError
from django.db import models


class SamePersonCheck(models.TextChoices):
    """How we check that the person who signs in is the person in the chat."""

    COMPLETION_CODE = "completion_code", "Completion code: six digits, typed into the chat"
    CHAT_PAGE = "chat_page", "Chat page: back to the chat's own page, which passes a handle to the bot"
    EXPECTED_SUBJECT = "expected_subject", "Expected subject: the bot names the customer, the ID token must agree"
    NONE = "none", "None: whoever holds the link signs in for this chat, also when it was forwarded to them"


class ExpectedClaimsPolicy(models.TextChoices):
    """What happens if a claim that the bot expects is not confirmed."""

    REFUSE = "refuse", "Refuse: the sign-in fails"
    FLAG = "flag", "Flag: the bot gets the token, and matched_claims says which claims agreed"


def validate_same_person_checks(value: object) -> None:
    """Refuse an empty list, unknown or repeated checks, and `none` beside others: a bot would be free to choose it."""
    if not isinstance(value, list) or not value or not set(map(str, value)) <= set(SamePersonCheck.values):
        raise ValidationError(f"Give a list of: {', '.join(SamePersonCheck.values)}.", "invalid_same_person_checks")
    if len(set(value)) != len(value):
        raise ValidationError("Name each check once.", "invalid_same_person_checks")
    if SamePersonCheck.NONE in value and len(value) > 1:
        raise ValidationError("none cannot be combined with other checks.", "none_beside_others")
