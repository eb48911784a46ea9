"""Unwrap the key ring when a process starts, if `ENCRYPTION_KEYS_FROM` names what it is wrapped by (K8).

`ENCRYPTION_KEYS` then has no key that could be used: who reads the environment, a backup of it or a screen learns
nothing. The settings unwrap it once, before gunicorn forks, so no request ever waits for a provider.

Each provider is a module with two functions, imported only if it is configured:

- `unwrap(place, wrapped)` takes what stands for each key in `ENCRYPTION_KEYS`, by id, and returns the keys by id;
- `wrap(place, key_id, key)` wraps one key and returns what stands for it, empty for a file.

Both bind a key to its id: wrapped for one id, it cannot be unwrapped under another. Both raise `ProviderFailed`.
"""

import base64
import re
from importlib import import_module
from typing import Any, Final

from infrastructure.crypto import InvalidKeyRing, keys_of_setting
from infrastructure.key_providers.failures import NOT_INSTALLED, NOT_OF_THIS_FORM, ProviderFailed

_MODULES: Final = {"file": "files", "aws-kms": "aws_kms", "pkcs11": "hsm"}
_PLACES: Final = {
    "file": re.compile(r"/.+"),
    "aws-kms": re.compile(r"[A-Za-z0-9:/_-]{1,2048}"),
    "pkcs11": re.compile(r"[^?]+\?.+"),
}
_PACKAGES: Final = {"aws-kms": "requirements-kms.txt", "pkcs11": "requirements-pkcs11.txt"}
_FORM_OF_AN_ENTRY: Final = "a wrapped key is written id:base64, and one in a file id alone"
_EXAMPLES: Final = (
    "Such as file:/run/credentials/delegation-web@8000.service, aws-kms:alias/delegation or "
    "pkcs11:token=delegation;object=ring?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/delegation.pin"
)


def unwrapped_ring(setting: str, source: str) -> str:
    """Return the ring as `id:base64,id:base64`, each key unwrapped by `source`; an empty setting is an empty ring.

    Raises `ProviderFailed`, and `InvalidKeyRing` for a setting of another form. No message contains a key.
    """
    entries = keys_of_setting(setting, form=_FORM_OF_AN_ENTRY, what="wrapped key")
    wrapped = dict(entries)
    if len(wrapped) != len(entries):
        raise InvalidKeyRing("the same id occurs twice")
    if not wrapped:
        return ""
    provider, place = _provider(source)
    keys = provider.unwrap(place, wrapped)
    return ",".join(f"{key_id}:{base64.b64encode(keys[key_id]).decode()}" for key_id in wrapped)


def wrapped_entry(source: str, key_id: str, key: bytes) -> str:
    """Wrap a key. Returns its entry for `ENCRYPTION_KEYS`. Raises `ProviderFailed`."""
    provider, place = _provider(source)
    wrapped = provider.wrap(place, key_id, key)
    return f"{key_id}:{base64.b64encode(wrapped).decode()}" if wrapped else key_id


def _provider(source: str) -> tuple[Any, str]:
    """Import the provider that a source names. Returns it with its place. Raises `ProviderFailed`."""
    scheme, _, place = source.partition(":")
    if scheme not in _MODULES or not _PLACES[scheme].fullmatch(place):
        message = "ENCRYPTION_KEYS_FROM does not name a folder, AWS KMS or a PKCS#11 token."
        raise ProviderFailed(NOT_OF_THIS_FORM, message, _EXAMPLES)
    try:
        return import_module(f"{__name__}.{_MODULES[scheme]}"), place
    except ImportError as error:
        message = f"ENCRYPTION_KEYS_FROM needs a package that cannot be imported: {error.name}."
        hint = f"Install it: pip install -c constraints.txt -r {_PACKAGES.get(scheme, 'requirements.txt')}"
        raise ProviderFailed(NOT_INSTALLED, message, hint) from None
