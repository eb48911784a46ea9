"""What a brand's admin writes for consumers to read: whom to ask, and what a scope allows."""

import re
from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.utils import translation

from brands.validators import validate_endpoint

MAX_DESCRIPTION_LENGTH: Final = 80
# A scope that asks for nobody's data: it has the brand say who signed in (OpenID Connect Core section 3.1.2.1).
_SAYS_WHO: Final = "openid"

_MAIL: Final = re.compile(r"mailto:[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,253}")
_PHONE: Final = re.compile(r"tel:\+?[0-9-]{3,24}")
_TEXT: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,80}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,4})?")


def validate_support_contact(value: str) -> None:
    """Refuse what is none of: an https address, `mailto:` with one address and nothing else, `tel:` with a number."""
    if not _MAIL.fullmatch(value) and not _PHONE.fullmatch(value):
        validate_endpoint(value)


def validate_scope_descriptions(value: object) -> None:
    """Refuse what is not scopes with words, where the words may differ by language."""
    if not isinstance(value, dict):
        raise _refused()
    for words in value.values():
        by_language = words if isinstance(words, dict) else {"en": words}
        if not by_language or not all(_LANGUAGE.fullmatch(name) for name in by_language):
            raise _refused()
        if not all(isinstance(text, str) and _TEXT.fullmatch(text) for text in by_language.values()):
            raise _refused()


def described(scope: str, descriptions: Mapping[str, Any]) -> list[str]:
    """Return what a scope allows, in words of the reader's language.

    Returns nothing where a single one has no words: half of what somebody allows is not what they allow.
    """
    asked = [name for name in scope.split() if name != _SAYS_WHO]
    words = [_in_language(descriptions.get(name)) for name in asked]
    return words if all(words) else []


def _in_language(words: Any) -> str:
    if not isinstance(words, dict):
        return str(words or "")
    language = translation.get_language() or "en"
    found = (words.get(name) for name in (language, language.split("-")[0], "en", *words))
    return next((str(text) for text in found if text), "")


def _refused() -> ValidationError:
    message = (
        'Write {"orders.read": "see your orders"}, or {"orders.read": {"en": "see your orders", "de": "..."}}; '
        f"at most {MAX_DESCRIPTION_LENGTH} characters each."
    )
    return ValidationError(message, code="invalid_scope_descriptions")
