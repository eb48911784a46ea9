"""All cryptography of the product: row-bound encryption, keyed digests, random values and completion codes.

Values that we must present again are stored as AES-256-GCM ciphertext. The associated data names the row, so that a
ciphertext copied by SQL to another row, column, brand or conversation cannot be decrypted there (K1). Values that we
only recognise are stored as keyed digests, so that a writer to the database cannot forge one.

Keys come from `ENCRYPTION_KEYS`, newest first. If they were wrapped, the settings have unwrapped them
(`key_providers`). HKDF-SHA256 (RFC 5869) derives one key for each purpose.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

KEY_BYTES: Final = 32
COMPLETION_CODE_DIGITS: Final = 6
KEY_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_FORM_OF_A_KEY: Final = "each key is written id:base64; an id is lower-case letters, digits and hyphens"

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


class InvalidKeyRing(ValueError):
    """`ENCRYPTION_KEYS` is invalid. The message names the key's id, never its bytes."""


class DecryptionError(Exception):
    """A ciphertext cannot be decrypted. The message contains no reason, row or stored value (K2)."""

    def __init__(self) -> None:
        super().__init__("a stored value could not be read")


class Secret:
    """A value that must not be shown. `repr` and `str` are redacted, and pickling is refused (K5)."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Expose the secret. Every call needs a review."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]  # a set or dictionary would keep the secret alive

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialized")


@dataclass(frozen=True, slots=True)
class AssociatedData:
    """The location of a ciphertext, authenticated with it (AES-GCM's associated data).

    `row` is the row's UUID, generated before the insert. `conversation` is set if the row belongs to one. `owner` is
    text about whatever else a row belongs to, such as an admin's session.
    """

    table: str
    column: str
    row: UUID
    brand: UUID
    conversation: UUID | None = None
    owner: str = ""

    def to_bytes(self) -> bytes:
        """Encode the parts, each with its length, so that no two locations give the same bytes."""
        conversation = self.conversation.bytes if self.conversation else b""
        return _of_column(self.table, self.column) + _length_prefixed(
            self.row.bytes,
            self.brand.bytes,
            conversation,
            *([self.owner.encode()] if self.owner else []),
        )


class KeyRing:
    """The keys of `ENCRYPTION_KEYS`. The first one encrypts; all of them decrypt."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        _refuse_weak_ring(keys)
        self._keys = {key_id: _PurposeKeys(key) for key_id, key in keys}
        self.newest_id = keys[0][0]
        self.ids = frozenset(self._keys)

    @classmethod
    def from_setting(cls, setting: str) -> "KeyRing":
        """Parse `id:base64,id:base64`, newest first. Raises `InvalidKeyRing`."""
        return cls(keys_of_setting(setting))

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    def encrypt(self, secret: Secret, bound_to: AssociatedData) -> bytes:
        """Return version, key id, nonce and ciphertext with its tag in one byte string."""
        header = _VERSION + _length_prefixed(self.newest_id.encode())
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._keys[self.newest_id].cipher.encrypt(
            nonce, secret.reveal().encode(), header + bound_to.to_bytes()
        )
        return header + nonce + sealed

    def decrypt(self, ciphertext: bytes | memoryview, bound_to: AssociatedData) -> Secret:
        """Decrypt what was encrypted for the same location. Raises `DecryptionError` for everything else."""
        try:
            return self._decrypt(bytes(ciphertext), bound_to)
        except (InvalidTag, KeyError, IndexError, ValueError, TypeError):
            raise DecryptionError from None

    def _decrypt(self, ciphertext: bytes, bound_to: AssociatedData) -> Secret:
        key_id, header_end = _read_header(ciphertext)
        nonce_end = header_end + _NONCE_BYTES
        header, nonce, sealed = ciphertext[:header_end], ciphertext[header_end:nonce_end], ciphertext[nonce_end:]
        return Secret(self._keys[key_id].cipher.decrypt(nonce, sealed, header + bound_to.to_bytes()).decode())

    def digest(self, purpose: str, *parts: str | bytes) -> bytes:
        """Return the newest key's id and the HMAC-SHA256 of `parts` with that key."""
        return self._digest(self.newest_id, purpose, parts)

    def digests(self, purpose: str, *parts: str | bytes) -> list[bytes]:
        """The digest with every key, newest first: the values to look for in an indexed column."""
        return [self._digest(key_id, purpose, parts) for key_id in self._keys]

    def recognises(self, digest: bytes | memoryview | None, purpose: str, *parts: str | bytes) -> bool:
        """Compare `digest` with that of `parts` for every key, in constant time for each key."""
        if digest is None:
            return False
        found = [hmac.compare_digest(bytes(digest), candidate) for candidate in self.digests(purpose, *parts)]
        return any(found)

    def completion_codes(self, challenge: UUID, cookie: str) -> list[str]:
        """Return the completion code of a challenge and a browser's cookie for every key, newest first (A2).

        The code is derived and never stored. The result page can show it again to the cookie's holder, and nobody
        else can compute it.
        """
        return [_truncate(self._digest(key_id, "completion-code", (challenge.bytes, cookie))) for key_id in self._keys]

    def derived_tokens(self, purpose: str, row: UUID, cookie: str) -> list[str]:
        """Derive a token from a row and an authorization request's cookie, for every key, newest first.

        It is never stored.
        """
        parts = (row.bytes, cookie)
        return [_base64url(self._digest(key_id, purpose, parts)[-32:]) for key_id in self._keys]

    def _digest(self, key_id: str, purpose: str, parts: Sequence[str | bytes]) -> bytes:
        # JSON may contain lone surrogates, which UTF-8 refuses. A hostile claim must not raise an exception.
        encoded = [part.encode(errors="surrogatepass") if isinstance(part, str) else part for part in parts]
        mac = hmac.digest(self._keys[key_id].for_purpose(purpose), _length_prefixed(*encoded), "sha256")
        return _length_prefixed(key_id.encode()) + mac


def key_ring() -> KeyRing:
    """Parse the `ENCRYPTION_KEYS` setting. Raises `InvalidKeyRing`."""
    return _parsed_ring(settings.ENCRYPTION_KEYS)


def keys_of_setting(setting: str, *, form: str = _FORM_OF_A_KEY, what: str = "key") -> list[tuple[str, bytes]]:
    """Parse `id:base64,id:base64` into ids and keys, which may be too weak for a ring.

    Raises `InvalidKeyRing`, which says by `form` how an entry is written, and by `what` it is.
    """
    return [_parse_key(part.strip(), form, what) for part in setting.split(",") if part.strip()]


def key_id_of(value: bytes) -> str:
    """Return the key id of a ciphertext or digest. Raises `DecryptionError` if the value has none."""
    try:
        return _read_header(value)[0] if value[:1] == _VERSION else _read_length_prefixed(value, 0)[0].decode()
    except (IndexError, ValueError):
        raise DecryptionError from None


def random_token(size: int = 32) -> str:
    """Generate `size` random bytes as base64url. 32 bytes give 43 characters, the minimum of a PKCE verifier."""
    return secrets.token_urlsafe(size)


def random_hex(size: int) -> str:
    return secrets.token_hex(size)


def s256_code_challenge(code_verifier: str) -> str:
    """Compute the S256 code challenge (RFC 7636 section 4.2)."""
    return sha256_base64url(code_verifier)


def sha256_base64url(text: str) -> str:
    """Hash a text with SHA-256, in base64url without padding, as several RFCs write a hash."""
    return _base64url(hashlib.sha256(text.encode()).digest())


def new_signing_key() -> tuple[Secret, dict[str, str]]:
    """Generate a P-256 key pair. Return private and public JWK (RFC 7517); `kid` is the thumbprint (RFC 7638)."""
    key = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    numbers = (key.public_numbers.x, key.public_numbers.y, key.private_value)
    x, y, d = (_base64url(number.to_bytes(32, "big")) for number in numbers)
    members = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
    kid = sha256_base64url(members)
    public = json.loads(members) | {"kid": kid, "alg": "ES256", "use": "sig"}
    return Secret(json.dumps(public | {"d": d})), public


def checksum(text: str) -> str:
    """Eight characters that reveal a mistyped or truncated value. This is no protection against forgery."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@lru_cache(maxsize=4)
def _parsed_ring(setting: str) -> KeyRing:
    return KeyRing.from_setting(setting)


class _PurposeKeys:
    """The keys derived from one master key. The cipher is cached: creating it costs more than using it."""

    def __init__(self, master: bytes) -> None:
        self.cipher = AESGCM(_derive(master, "encryption"))
        self.for_purpose = lru_cache(maxsize=32)(lambda purpose: _derive(master, f"digest:{purpose}"))


def _derive(master: bytes, purpose: str) -> bytes:
    info = b"consumer-delegation:" + purpose.encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(master)


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _length_prefixed(*parts: bytes) -> bytes:
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


@lru_cache(maxsize=64)
def _of_column(table: str, column: str) -> bytes:
    return _length_prefixed(b"consumer-delegation", table.encode(), column.encode())


def _read_length_prefixed(value: bytes, start: int) -> tuple[bytes, int]:
    end = start + 4 + int.from_bytes(value[start : start + 4], "big")
    if end > len(value):
        raise ValueError
    return value[start + 4 : end], end


def _read_header(ciphertext: bytes) -> tuple[str, int]:
    if ciphertext[:1] != _VERSION:
        raise ValueError
    key_id, end = _read_length_prefixed(ciphertext, 1)
    return key_id.decode(), end


def _truncate(digest: bytes) -> str:
    number = int.from_bytes(digest[-8:], "big") % 10**COMPLETION_CODE_DIGITS
    return f"{number:0{COMPLETION_CODE_DIGITS}d}"


def _parse_key(part: str, form: str, what: str) -> tuple[str, bytes]:
    key_id, _, encoded = part.partition(":")
    if not KEY_ID.fullmatch(key_id):
        raise InvalidKeyRing(form)
    try:
        return key_id, base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidKeyRing(f"the {what} {key_id} is not valid base64") from None


def _refuse_weak_ring(keys: Sequence[tuple[str, bytes]]) -> None:
    if not keys:
        raise InvalidKeyRing("there is no key")
    for key_id, key in keys:
        if len(key) != KEY_BYTES:
            raise InvalidKeyRing(f"the key {key_id} has {len(key)} bytes; it must have {KEY_BYTES} random bytes")
        # 32 random bytes almost never contain fewer than 16 distinct ones; typed and default keys do.
        if len(set(key)) < KEY_BYTES // 2:
            raise InvalidKeyRing(f"the key {key_id} is not random")
    for what, values in (("id", [key_id for key_id, _ in keys]), ("key", [key for _, key in keys])):
        if len(set(values)) != len(values):
            raise InvalidKeyRing(f"the same {what} occurs twice")
