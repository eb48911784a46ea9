"""All cryptography of the product: row-bound encryption, keyed digests, random values, completion codes.

A leaf: it imports nothing of ours. A value is kept in one of two ways here. *To be presented again*: AES-256-GCM
ciphertext whose associated data names the row it belongs to, so that a ciphertext moved by SQL to another row, column,
brand or conversation cannot be read there (K1). *Handed out, only to be recognised*: a keyed digest, so that whoever
can write to the database still cannot make a value that we would recognise.

Keys come from `ENCRYPTION_KEYS`, newest first. From each, HKDF-SHA256 (RFC 5869) derives one key per purpose.
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

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


class InvalidKeyRing(ValueError):
    """`ENCRYPTION_KEYS` cannot be used. The message names the key's id, never its bytes."""


class DecryptionError(Exception):
    """A ciphertext could not be read. It says nothing else: not why, not which row, not what was stored (K2)."""

    def __init__(self) -> None:
        super().__init__("a stored value could not be read")


class Secret:
    """A value that must not be shown: its `repr` and `str` are redacted and it refuses to be pickled (K5)."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself. Every call is a place to review."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]  # a set or dictionary of secrets would outlive its use

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialized")


@dataclass(frozen=True, slots=True)
class AssociatedData:
    """Where a ciphertext lives; it becomes the associated data.

    `row` is the row's UUID, made before the insert. `conversation` is given for everything that belongs to one
    conversation.
    """

    table: str
    column: str
    row: UUID
    brand: UUID
    conversation: UUID | None = None

    def to_bytes(self) -> bytes:
        """Length-prefix each part, so that no two places read the same."""
        conversation = self.conversation.bytes if self.conversation else b""
        return _length_prefixed(
            b"consumer-delegation",
            self.table.encode(),
            self.column.encode(),
            self.row.bytes,
            self.brand.bytes,
            conversation,
        )


class KeyRing:
    """The keys of `ENCRYPTION_KEYS`: the first one writes, all of them read."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        _refuse_weak_ring(keys)
        self._keys = {key_id: _PurposeKeys(key) for key_id, key in keys}
        self.newest_id = keys[0][0]
        self.ids = frozenset(self._keys)

    @classmethod
    def from_setting(cls, setting: str) -> "KeyRing":
        """Read `id:base64,id:base64`, newest first. Raises `InvalidKeyRing`."""
        return cls([_parse_key(part.strip()) for part in setting.split(",") if part.strip()])

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    def encrypt(self, secret: Secret, bound_to: AssociatedData) -> bytes:
        """Return version, key id, nonce, ciphertext with tag, as one byte string bound to `place`."""
        header = _VERSION + _length_prefixed(self.newest_id.encode())
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._keys[self.newest_id].cipher.encrypt(
            nonce, secret.reveal().encode(), header + bound_to.to_bytes()
        )
        return header + nonce + sealed

    def decrypt(self, ciphertext: bytes | memoryview, bound_to: AssociatedData) -> Secret:
        """Return what `encrypt` was given for the same place. Raises `DecryptionError` for everything else."""
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
        """Return the keyed digest of `parts` under the newest key: key id and HMAC-SHA256."""
        return self._digest(self.newest_id, purpose, parts)

    def digests(self, purpose: str, *parts: str | bytes) -> list[bytes]:
        """Return the digest under every key of the ring, newest first: what to look for in an indexed column."""
        return [self._digest(key_id, purpose, parts) for key_id in self._keys]

    def recognises(self, digest: bytes | memoryview | None, purpose: str, *parts: str | bytes) -> bool:
        """Tell, in constant time for each key, whether `digest` was made of `parts` with any key of the ring."""
        if digest is None:
            return False
        found = [hmac.compare_digest(bytes(digest), candidate) for candidate in self.digests(purpose, *parts)]
        return any(found)

    def completion_codes(self, challenge: UUID, cookie: str) -> list[str]:
        """Return the completion code of a challenge and an attempt's cookie under every key, newest first (A2).

        The code is derived, never stored, so that the result page can show it again to the cookie's holder and
        nobody else can compute it.
        """
        return [_truncate(self._digest(key_id, "completion-code", (challenge.bytes, cookie))) for key_id in self._keys]

    def derived_tokens(self, purpose: str, row: UUID, cookie: str) -> list[str]:
        """Return the token of a row and an attempt's cookie under every key, newest first: derived as the code is."""
        parts = (row.bytes, cookie)
        return [_base64url(self._digest(key_id, purpose, parts)[-32:]) for key_id in self._keys]

    def _digest(self, key_id: str, purpose: str, parts: Sequence[str | bytes]) -> bytes:
        # JSON can hold half of a surrogate pair, which no encoding takes; a hostile claim must be no fault of ours.
        encoded = [part.encode(errors="surrogatepass") if isinstance(part, str) else part for part in parts]
        mac = hmac.digest(self._keys[key_id].for_purpose(purpose), _length_prefixed(*encoded), "sha256")
        return _length_prefixed(key_id.encode()) + mac


def key_ring() -> KeyRing:
    """Return the ring of the `ENCRYPTION_KEYS` setting. Raises `InvalidKeyRing`."""
    return _parsed_ring(settings.ENCRYPTION_KEYS)


def key_id_of(value: bytes) -> str:
    """Return the id of the key under which a ciphertext or digest was made. Raises `DecryptionError`."""
    try:
        return _read_header(value)[0] if value[:1] == _VERSION else _read_length_prefixed(value, 0)[0].decode()
    except (IndexError, ValueError):
        raise DecryptionError from None


def random_token(size: int = 32) -> str:
    """Return `size` random bytes as base64url without padding: 32 bytes are 43 characters, a PKCE verifier's least."""
    return secrets.token_urlsafe(size)


def random_hex(size: int) -> str:
    """Return `size` random bytes as lower-case hexadecimal digits."""
    return secrets.token_hex(size)


def s256_code_challenge(code_verifier: str) -> str:
    """Return the S256 code challenge of a verifier (RFC 7636 section 4.2)."""
    return _base64url(hashlib.sha256(code_verifier.encode()).digest())


def new_signing_key() -> tuple[Secret, dict[str, str]]:
    """Return a new P-256 key as private JWK and as public one (RFC 7517); `kid` is its thumbprint (RFC 7638)."""
    key = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    numbers = (key.public_numbers.x, key.public_numbers.y, key.private_value)
    x, y, d = (_base64url(number.to_bytes(32, "big")) for number in numbers)
    members = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
    kid = _base64url(hashlib.sha256(members.encode()).digest())
    public = json.loads(members) | {"kid": kid, "alg": "ES256", "use": "sig"}
    return Secret(json.dumps(public | {"d": d})), public


def checksum(text: str) -> str:
    """Return eight characters that tell a mistyped or cut value from a wrong one. Not a protection."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@lru_cache(maxsize=4)
def _parsed_ring(setting: str) -> KeyRing:
    return KeyRing.from_setting(setting)


class _PurposeKeys:
    """What is derived from one master key. The cipher object is kept: building it costs more than using it."""

    def __init__(self, master: bytes) -> None:
        self.cipher = AESGCM(_derive(master, "encryption"))
        self.for_purpose = lru_cache(maxsize=32)(lambda purpose: _derive(master, f"digest:{purpose}"))


def _derive(master: bytes, purpose: str) -> bytes:
    info = b"consumer-delegation:" + purpose.encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(master)


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _length_prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


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


def _parse_key(part: str) -> tuple[str, bytes]:
    key_id, _, encoded = part.partition(":")
    if not _KEY_ID.fullmatch(key_id):
        raise InvalidKeyRing("each key is written id:base64; an id is lower-case letters, digits and hyphens")
    try:
        return key_id, base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidKeyRing(f"the key {key_id} is not valid base64") from None


def _refuse_weak_ring(keys: Sequence[tuple[str, bytes]]) -> None:
    if not keys:
        raise InvalidKeyRing("there is no key")
    for key_id, key in keys:
        if len(key) != KEY_BYTES:
            raise InvalidKeyRing(f"the key {key_id} has {len(key)} bytes; it must have {KEY_BYTES} random bytes")
        # 32 random bytes practically never hold fewer than 16 different ones; typed and default keys do.
        if len(set(key)) < KEY_BYTES // 2:
            raise InvalidKeyRing(f"the key {key_id} is not random")
    for what, values in (("id", [key_id for key_id, _ in keys]), ("key", [key for _, key in keys])):
        if len(set(values)) != len(values):
            raise InvalidKeyRing(f"the same {what} stands twice")
