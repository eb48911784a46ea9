"""The cryptography: what is bound to its row stays there, what is derived is derived for one purpose."""

import base64
import pickle
from uuid import UUID

import pytest

from conversations.flow.completion import normalised_code
from infrastructure.crypto import (
    AssociatedData,
    DecryptionError,
    InvalidKeyRing,
    KeyRing,
    Secret,
    key_id_of,
    random_token,
    s256_code_challenge,
)

OLD, NEW = bytes(range(32)), bytes(range(100, 132))
ROW, OTHER_ROW = UUID(int=1), UUID(int=2)
BRAND, OTHER_BRAND = UUID(int=3), UUID(int=4)
CHAT, OTHER_CHAT = UUID(int=5), UUID(int=6)
PLACE = AssociatedData("conversations_accesstoken", "ciphertext", ROW, BRAND, CHAT)
TOKEN = Secret("ya29.planted-token")


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([("new", NEW), ("old", OLD)])


def setting(*keys: tuple[str, bytes]) -> str:
    return ",".join(f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in keys)


def test_a_value_comes_back_at_its_place(ring: KeyRing) -> None:
    assert ring.decrypt(ring.encrypt(TOKEN, PLACE), PLACE) == TOKEN


def test_the_same_value_is_never_encrypted_to_the_same_bytes(ring: KeyRing) -> None:
    assert ring.encrypt(TOKEN, PLACE) != ring.encrypt(TOKEN, PLACE)


@pytest.mark.parametrize(
    "elsewhere",
    [
        AssociatedData("conversations_accesstoken", "ciphertext", OTHER_ROW, BRAND, CHAT),
        AssociatedData("conversations_accesstoken", "ciphertext", ROW, OTHER_BRAND, CHAT),
        AssociatedData("conversations_accesstoken", "ciphertext", ROW, BRAND, OTHER_CHAT),
        AssociatedData("conversations_accesstoken", "ciphertext", ROW, BRAND, None),
        AssociatedData("conversations_accesstoken", "context", ROW, BRAND, CHAT),
        AssociatedData("conversations_challenge", "ciphertext", ROW, BRAND, CHAT),
        # Without length prefixes these two would be the same bytes as PLACE.
        AssociatedData("conversations_accesstokenc", "iphertext", ROW, BRAND, CHAT),
        AssociatedData("conversations_accesstoke", "nciphertext", ROW, BRAND, CHAT),
    ],
)
def test_a_value_moved_to_another_place_cannot_be_read(ring: KeyRing, elsewhere: AssociatedData) -> None:
    """K1: by somebody with SQL, to another row, column, brand or conversation."""
    with pytest.raises(DecryptionError):
        ring.decrypt(ring.encrypt(TOKEN, PLACE), elsewhere)


def test_every_flipped_bit_is_noticed(ring: KeyRing) -> None:
    """K1, K2."""
    sealed = ring.encrypt(TOKEN, PLACE)
    for position in range(len(sealed)):
        broken = bytearray(sealed)
        broken[position] ^= 1
        with pytest.raises(DecryptionError):
            ring.decrypt(bytes(broken), PLACE)


@pytest.mark.parametrize(
    "stored", [b"", b"\x01", b"ya29.planted-token", b"\x01\xff\xff", b"\x01\x00\x03new", b"\x02" * 60]
)
def test_what_is_no_ciphertext_is_never_returned(ring: KeyRing, stored: bytes) -> None:
    """K2: a plain text in the column is an error, not a value."""
    with pytest.raises(DecryptionError):
        ring.decrypt(stored, PLACE)


def test_a_failed_decryption_says_nothing(ring: KeyRing) -> None:
    """K2: no content, no cause, no context."""
    with pytest.raises(DecryptionError) as caught:
        ring.decrypt(b"ya29.planted-token", PLACE)
    assert str(caught.value) == "a stored value could not be read"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_old_key_still_reads_and_the_newest_writes() -> None:
    """K4."""
    sealed = KeyRing([("old", OLD)]).encrypt(TOKEN, PLACE)
    ring = KeyRing([("new", NEW), ("old", OLD)])
    assert ring.decrypt(sealed, PLACE) == TOKEN
    assert key_id_of(sealed) == "old"
    assert key_id_of(ring.encrypt(TOKEN, PLACE)) == "new"
    with pytest.raises(DecryptionError):
        KeyRing([("new", NEW)]).decrypt(sealed, PLACE)


def test_a_key_under_another_keys_id_reads_nothing() -> None:
    sealed = KeyRing([("k1", OLD)]).encrypt(TOKEN, PLACE)
    with pytest.raises(DecryptionError):
        KeyRing([("k1", NEW)]).decrypt(sealed, PLACE)


def test_digests_are_recognised_across_a_rotation() -> None:
    """K4: bot keys and links made before a rotation still work after it."""
    digest = KeyRing([("old", OLD)]).digest("state", "abc")
    ring = KeyRing([("new", NEW), ("old", OLD)])
    assert ring.recognises(digest, "state", "abc")
    assert digest in ring.digests("state", "abc")
    assert key_id_of(digest) == "old"


@pytest.mark.parametrize(
    ("purpose", "parts"),
    [("nonce", ("abc",)), ("state", ("abd",)), ("state", ("ab", "c")), ("state", ("abc", "")), ("state", ())],
)
def test_a_digest_is_of_one_purpose_and_exactly_its_parts(ring: KeyRing, purpose: str, parts: tuple[str, ...]) -> None:
    """K4: separate keys per purpose; parts cannot run into one another."""
    assert not ring.recognises(ring.digest("state", "abc"), purpose, *parts)


def test_nothing_is_recognised_where_no_digest_is_stored(ring: KeyRing) -> None:
    assert not ring.recognises(None, "state", "")
    assert not ring.recognises(b"", "state", "")


def test_a_completion_code_has_six_digits_and_belongs_to_one_challenge_and_cookie(ring: KeyRing) -> None:
    """A2."""
    codes = ring.completion_codes(ROW, "cookie")
    assert [len(code) for code in codes] == [6, 6]
    assert all(code.isdigit() for code in codes)
    assert codes == ring.completion_codes(ROW, "cookie")
    assert set(codes).isdisjoint(ring.completion_codes(OTHER_ROW, "cookie"))
    assert set(codes).isdisjoint(ring.completion_codes(ROW, "another cookie"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "there is no key"),
        (" , ", "there is no key"),
        ("k1", "the key k1 has 0 bytes; it must have 32 random bytes"),
        ("k1:not base64", "the key k1 is not valid base64"),
        (setting(("k1", OLD[:31])), "the key k1 has 31 bytes; it must have 32 random bytes"),
        (setting(("k1", b"\0" * 32)), "the key k1 is not random"),
        (setting(("k1", b"change-me-change-me-change-me-ch")), "the key k1 is not random"),
        (setting(("k1", OLD), ("k1", NEW)), "the same id occurs twice"),
        (setting(("k1", OLD), ("k2", OLD)), "the same key occurs twice"),
        (setting(("K 1", OLD)), "each key is written id:base64; an id is lower-case letters, digits and hyphens"),
    ],
)
def test_a_weak_key_ring_is_refused_in_words(value: str, message: str) -> None:
    """K3: empty, short, default, doubled; and the message never holds the key."""
    with pytest.raises(InvalidKeyRing) as caught:
        KeyRing.from_setting(value)
    assert str(caught.value) == message


def test_a_secret_shows_itself_nowhere() -> None:
    """K5."""
    assert f"{TOKEN} {TOKEN!r} {[TOKEN]}" == "Secret(...) Secret(...) [Secret(...)]"
    with pytest.raises(TypeError, match="not serialized"):
        pickle.dumps(TOKEN)
    with pytest.raises(TypeError):
        hash(TOKEN)
    assert "planted" not in repr(KeyRing([("k", OLD)])) + repr(vars(KeyRing([("k", OLD)])))


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("493027", "493027"),
        (" 493 027 ", "493027"),
        ("493-027", "493027"),
        ("4 9 3 · 0 2 7", "493027"),
        ("493.027", "493027"),
        ("٤٩٣٠٢٧", "493027"),
        ("493\u00a0027", "493027"),
        ("49302", None),
        ("4930271", None),
        ("49302a", None),
        ("my code is 493027", None),
        ("", None),
        ("½93027", None),
        ("-1493027", None),
    ],
)
def test_a_code_is_read_as_people_type_it(typed: str, code: str | None) -> None:
    assert normalised_code(typed) == code


def test_the_code_challenge_is_that_of_rfc_7636_appendix_b() -> None:
    """B2."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert s256_code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_random_tokens_are_of_the_url_safe_alphabet_and_long_enough() -> None:
    """B1: some servers send a state back unencoded, so it needs no encoding."""
    token = random_token()
    assert len(token) == 43
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
