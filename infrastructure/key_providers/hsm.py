"""Keys wrapped by an AES key inside a PKCS#11 token, which never leaves it (K8).

The place is a URI as in RFC 7512: `token=...;object=...?module-path=...&pin-source=...`. A key is encrypted with
AES-GCM. Its associated data is its id, so that a wrapped key that is given another id is refused.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pkcs11
from pkcs11 import GCMParams, Mechanism, ObjectClass

from infrastructure.key_providers.failures import (
    NOT_OF_THIS_FORM,
    NOT_PERMITTED,
    NOT_REACHED,
    NOT_THIS_KEY,
    ProviderFailed,
)
from infrastructure.key_providers.files import read_private

_NONCE_BYTES: Final = 12
_PIN_ERRORS: Final = (
    pkcs11.PinExpired, pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked,
    pkcs11.UserPinNotInitialized, pkcs11.UserNotLoggedIn,
)  # fmt: skip
_NAMES: Final = {"token", "object", "module-path", "pin-source"}


def unwrap(place: str, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
    """Decrypt each key in one session with the token. Raises `ProviderFailed`."""
    with _wrapping_key(_Place.parse(place)) as (_, wrapping_key):
        return {key_id: _decrypted(wrapping_key, key_id, value) for key_id, value in wrapped.items()}


def wrap(place: str, key_id: str, key: bytes) -> bytes:
    """Encrypt a key. Returns nonce and ciphertext with its tag. Raises `ProviderFailed`."""
    with _wrapping_key(_Place.parse(place)) as (session, wrapping_key):
        nonce = session.generate_random(_NONCE_BYTES * 8)
        sealed = wrapping_key.encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=_bound_to(key_id, nonce))
        return bytes(nonce + sealed)


@dataclass(frozen=True)
class _Place:
    token: str
    label: str
    module_path: str
    pin_file: Path

    @classmethod
    def parse(cls, place: str) -> "_Place":
        """Parse a URI without its scheme. Raises `ProviderFailed`."""
        path, _, query = place.partition("?")
        pairs = [part.partition("=") for part in [*path.split(";"), *query.split("&")]]
        found = {name: unquote(value) for name, _, value in pairs if value}
        if len(pairs) != len(_NAMES) or found.keys() != _NAMES:
            message = "ENCRYPTION_KEYS_FROM names a PKCS#11 token by other parts than we read."
            hint = "Write pkcs11:token=LABEL;object=LABEL?module-path=/PATH/TO.so&pin-source=/PATH/TO/PIN"
            raise ProviderFailed(NOT_OF_THIS_FORM, message, hint)
        pin_file = Path(found["pin-source"].removeprefix("file:"))
        return cls(found["token"], found["object"], found["module-path"], pin_file)


@contextmanager
def _wrapping_key(place: _Place) -> Iterator[tuple[Any, Any]]:
    """Log in, and yield the session and the wrapping key. What fails, also inside, becomes `ProviderFailed`."""
    pin = read_private(place.pin_file).decode(errors="replace")
    try:
        library = pkcs11.lib(place.module_path)
    except pkcs11.PKCS11Error:
        hint = "Name the token's library in module-path, and let the service's user read it and its configuration."
        raise ProviderFailed(NOT_REACHED, f"The PKCS#11 module {place.module_path} cannot be used.", hint) from None
    try:
        with library.get_token(token_label=place.token).open(user_pin=pin) as session:
            yield session, session.get_key(object_class=ObjectClass.SECRET_KEY, label=place.label)
    except pkcs11.PKCS11Error as error:
        raise _in_words(place, error) from None
    finally:
        library.finalize()  # gunicorn forks after this, and what a fork inherits must not be used (PKCS#11 2.40, 5.4)


def _decrypted(wrapping_key: Any, key_id: str, wrapped: bytes) -> bytes:
    nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
    try:
        return bytes(
            wrapping_key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=_bound_to(key_id, nonce))
        )
    except pkcs11.PKCS11Error:
        hint = (
            "ENCRYPTION_KEYS_FROM must name the object that wrapped it, and ENCRYPTION_KEYS "
            "its entry as wrap_key printed it, with its id."
        )
        message = f"The PKCS#11 token cannot unwrap the key {key_id}."
        raise ProviderFailed(NOT_THIS_KEY, message, hint) from None


def _bound_to(key_id: str, nonce: bytes) -> GCMParams:
    return GCMParams(nonce, aad=f"consumer-delegation:encryption-key:{key_id}".encode())


def _in_words(place: _Place, error: pkcs11.PKCS11Error) -> ProviderFailed:
    name = type(error).__name__
    if isinstance(error, _PIN_ERRORS):
        hint = "Put the user's PIN into the file that pin-source names; too many wrong ones lock the token."
        return ProviderFailed(NOT_PERMITTED, f"The PKCS#11 token {place.token} refused the PIN ({name}).", hint)
    if isinstance(error, pkcs11.NoSuchKey | pkcs11.MultipleObjectsReturned):
        hint = "The token must have exactly one secret key (AES) with that label, which may encrypt and decrypt."
        message = f"The PKCS#11 token {place.token} has no single key {place.label} ({name})."
        return ProviderFailed(NOT_THIS_KEY, message, hint)
    hint = "Check that the token is connected and has that label; then start the service again."
    return ProviderFailed(NOT_REACHED, f"The PKCS#11 token {place.token} cannot be used ({name}).", hint)
