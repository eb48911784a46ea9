"""What is stored stays readable: values written by an earlier version, byte for byte, and what is derived from a key.

A changed label, byte order or length would pass every test that writes and reads with the same code, and lose every
stored token, bot key and open link on the day of the update.
"""

import base64
import hashlib
import json
from uuid import UUID

import pytest

from conversations.flow.completion import normalised_code
from infrastructure.crypto import (
    AssociatedData,
    DecryptionError,
    InvalidKeyRing,
    KeyRing,
    Secret,
    checksum,
    key_id_of,
    new_signing_key,
    random_hex,
    random_token,
)

KEY = bytes(range(32))
ROW, BRAND, CHAT = UUID(int=1), UUID(int=3), UUID(int=5)
TOKEN_PLACE = AssociatedData("conversations_accesstoken", "ciphertext", ROW, BRAND, CHAT)
CLIENT_SECRET_PLACE = AssociatedData("brands_authorizationserver", "client_secret", ROW, BRAND)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([("old", KEY)])


@pytest.mark.parametrize(
    ("place", "nonce", "sealed", "value"),
    [
        (
            TOKEN_PLACE,
            "7973d770599a13fef8e88bd0",
            "ee0d62b7fcd0a6df077aba133473e539bc13cc9a0aa86a657b9bb21a903600347667",
            "ya29.planted-token",
        ),
        (
            CLIENT_SECRET_PLACE,
            "eb84a046dad00b67e227086f",
            "834624b5b743315c19b60dedb1da388f7ad9f20e502a4758b1fed2f7b38d87061e34de7c0d",
            "planted client secret",
        ),
    ],
)
def test_a_ciphertext_of_an_earlier_version_is_read(
    ring: KeyRing, place: AssociatedData, nonce: str, sealed: str, value: str
) -> None:
    """K1, K4: with and without a conversation in its associated data."""
    stored = b"\x01" + b"\0\0\0\x03old" + bytes.fromhex(nonce + sealed)
    assert ring.decrypt(stored, place) == Secret(value)


@pytest.mark.parametrize(
    ("part", "stored"),
    [
        ("abc", "000000036f6c642552c1664baca626c9d63107f4b129a47505c6f8f5d7c7678b04fe848eaf8703"),
        # Half of a surrogate pair, which JSON can hold: a hostile claim is digested as any other.
        ("\ud800", "000000036f6c649317109928675efa0c77655b218bb3d9b3f72e60c4c7ce7a329379ed041eca9d"),
    ],
)
def test_a_digest_of_an_earlier_version_is_made_again(ring: KeyRing, part: str, stored: str) -> None:
    """K4: bot keys, links and states are looked up by these bytes."""
    assert ring.digest("state", part).hex() == stored
    assert ring.recognises(memoryview(bytes.fromhex(stored)), "state", part)


def test_a_completion_code_shown_before_an_update_is_taken_after_it(ring: KeyRing) -> None:
    """A2: six digits, with the zeros in front."""
    assert ring.completion_codes(ROW, "cookie") == ["117167"]
    assert ring.completion_codes(UUID(int=8), "cookie") == ["048877"]


def test_a_derived_token_is_of_its_purpose_row_and_cookie_under_every_key(ring: KeyRing) -> None:
    assert ring.derived_tokens("handle", ROW, "cookie") == ["gLWRskeABGDw5ZD5dt7Z7JF9eJcHDeG1Mqi2GzHinQA"]
    rotated = KeyRing([("new", bytes(range(100, 132))), ("old", KEY)])
    assert rotated.derived_tokens("handle", ROW, "cookie")[1:] == ring.derived_tokens("handle", ROW, "cookie")
    others = [("link", ROW, "cookie"), ("handle", UUID(int=2), "cookie"), ("handle", ROW, "another cookie")]
    assert ring.derived_tokens("handle", ROW, "cookie")[0] not in [ring.derived_tokens(*other)[0] for other in others]


def test_a_signing_key_is_named_by_the_thumbprint_that_anybody_can_compute() -> None:
    """RFC 7638 section 3: the required members in order, no space. The private half adds `d`, nothing else."""
    private, public = new_signing_key()
    required = f'{{"crv":"P-256","kty":"EC","x":"{public["x"]}","y":"{public["y"]}"}}'
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(required.encode()).digest()).decode().rstrip("=")
    names = {"crv": "P-256", "kty": "EC", "kid": thumbprint, "alg": "ES256", "use": "sig"}
    assert public == names | {"x": public["x"], "y": public["y"]}
    members = json.loads(private.reveal())
    assert len(members.pop("d")) == 43
    assert members == public


def test_a_checksum_is_the_one_that_secret_scanners_know() -> None:
    """G5: bot keys in the world end with it."""
    assert checksum("abc") == "ba7816bf"


def test_random_values_have_the_size_that_was_asked_for() -> None:
    assert len(base64.urlsafe_b64decode(random_token(48))) == 48
    assert len(bytes.fromhex(random_hex(8))) == 8
    assert random_token() != random_token()


@pytest.mark.parametrize("value", [b"", b"\x01", b"\0\0\0\x09old", b"\0\0\0\x03\xff\xff\xff", b"\x01\0\0\0\x09old"])
def test_what_no_key_made_has_no_key_id(value: bytes) -> None:
    with pytest.raises(DecryptionError):
        key_id_of(value)


def test_a_key_with_a_stray_character_is_refused_and_not_repaired() -> None:
    """K3: base64 that is read leniently hides a cut or mixed-up key."""
    encoded = base64.b64encode(KEY).decode()
    with pytest.raises(InvalidKeyRing, match=r"^the key k1 is not valid base64$"):
        KeyRing.from_setting(f"k1:{encoded[:10]}!{encoded[10:]}")


def test_a_key_with_fewer_than_sixteen_different_bytes_is_not_random() -> None:
    """K3."""
    with pytest.raises(InvalidKeyRing, match=r"^the key k1 is not random$"):
        KeyRing([("k1", bytes(index % 15 for index in range(32)))])
    assert KeyRing([("k1", bytes(index % 16 for index in range(32)))]).newest_id == "k1"


def test_the_repr_of_a_ring_names_its_keys_and_nothing_else() -> None:
    """K5."""
    ring = KeyRing([("new", bytes(range(100, 132))), ("old", KEY)])
    assert repr(ring) == "KeyRing(new, old)"
    assert KEY not in [value for keys in vars(ring)["_keys"].values() for value in vars(keys).values()]


def test_a_secret_equals_no_plain_string() -> None:
    """K5: who compares with one has taken a secret out of its wrapping."""
    assert Secret("ya29.planted-token") != "ya29.planted-token"
    assert Secret("ya29.planted-token") != Secret("ya29.another-token")


def test_a_letter_of_our_own_alphabet_is_no_separator_in_a_code() -> None:
    assert normalised_code("X493027X") is None
