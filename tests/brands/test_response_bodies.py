"""A body in a content coding, over real TLS: it is whole and decoded, or it is refused (P6, N7)."""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from oauth_client import transport
from tests.brands.outbound import HEAD
from tests.hostile_token_endpoint import HostileTokenEndpoint, http_answer

BODY: Final = b"".join(b'{"order": "A-%d"}\n' % number for number in range(200))
LARGEST: Final = 65_536


def _raw(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


def _incompressible(length: int) -> bytes:
    return hashlib.shake_256(b"").digest(length)


def _then_close(sent: bytes) -> Iterator[bytes]:
    """Send this, and close the connection."""
    yield sent
    raise ConnectionAbortedError


Coder = Callable[[bytes], bytes]
CODERS: Final[dict[str, tuple[str, Coder]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", _raw),
    "gzip in gzip": ("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
    "deflate in gzip": ("deflate,gzip", lambda body: gzip.compress(zlib.compress(body))),
    "gzip in raw deflate": ("gzip , Deflate", lambda body: _raw(gzip.compress(body))),
}
INSIDE: Final[dict[str, tuple[Coder, Coder]]] = {
    "gzip in gzip": (gzip.compress, gzip.compress),
    "deflate in gzip": (zlib.compress, gzip.compress),
    "gzip in raw deflate": (gzip.compress, _raw),
}
all_codings = pytest.mark.parametrize(("coding", "coder"), CODERS.values(), ids=CODERS)


def read(endpoint: HostileTokenEndpoint, body: bytes, coding: str) -> bytes:
    """Return the body that a caller gets of this answer."""
    endpoint.play(http_answer(body, Content_Encoding=coding))
    return bytes(transport.get(endpoint.url).content)


def refusal(endpoint: HostileTokenEndpoint, body: bytes, coding: str) -> str:
    """Return why the answer is refused. The server has had the request."""
    with pytest.raises(transport.EndpointUnreachable) as refused:
        read(endpoint, body, coding)
    assert refused.value.was_sent
    return str(refused.value)


@all_codings
def test_a_whole_body_is_decoded(coding: str, coder: Coder, endpoint: HostileTokenEndpoint) -> None:
    """N7."""
    assert read(endpoint, coder(BODY), coding) == BODY
    assert read(endpoint, coder(b""), coding) == b""


@all_codings
def test_a_body_that_ends_early_is_refused(coding: str, coder: Coder, endpoint: HostileTokenEndpoint) -> None:
    """P6. The bug: its first part was passed on as if it were the whole."""
    coded = coder(BODY)
    for kept in (1, 12, len(coded) // 2, len(coded) - 5, len(coded) - 1):
        assert refusal(endpoint, coded[:kept], coding) == "the server's compressed response ended early"
    assert endpoint.connections == 0  # since the last answer: the one before was read to its end


@pytest.mark.parametrize("name", INSIDE)
def test_an_inner_coding_that_ends_early_is_refused(name: str, endpoint: HostileTokenEndpoint) -> None:
    """P6. The bug: only the last of several codings was asked whether it had ended."""
    coding, _ = CODERS[name]
    inner, outer = INSIDE[name]
    assert refusal(endpoint, outer(inner(BODY)[:-1]), coding) == "the server's compressed response ended early"


@all_codings
def test_a_body_that_is_not_in_its_coding_is_refused(coding: str, coder: Coder, endpoint: HostileTokenEndpoint) -> None:
    """P6. The bug: of such a `deflate` body nothing was left, and that was passed on."""
    del coder
    assert refusal(endpoint, b"\xff" * 40, coding) == "the server's compressed response cannot be read"


@pytest.mark.parametrize("name", ["gzip", "zlib"])
def test_a_body_with_a_wrong_checksum_is_refused(name: str, endpoint: HostileTokenEndpoint) -> None:
    """P6."""
    coding, coder = CODERS[name]
    coded = bytearray(coder(BODY))
    coded[-6 if name == "gzip" else -1] ^= 1
    assert refusal(endpoint, bytes(coded), coding) == "the server's compressed response cannot be read"


@pytest.mark.parametrize("name", ["zlib", "raw deflate"])
def test_what_follows_the_end_of_deflate_is_refused(name: str, endpoint: HostileTokenEndpoint) -> None:
    """P6."""
    coding, coder = CODERS[name]
    assert refusal(endpoint, coder(BODY) + b" ", coding) == "the server's compressed response goes on after its end"


def test_gzip_may_be_in_several_parts(endpoint: HostileTokenEndpoint) -> None:
    """RFC 1952 section 2.2: as concatenated files are."""
    parts = [gzip.compress(BODY[:50]), gzip.compress(b""), gzip.compress(BODY[50:])]
    assert read(endpoint, b"".join(parts), "gzip") == BODY
    assert refusal(endpoint, b"".join(parts)[:-1], "gzip") == "the server's compressed response ended early"
    assert refusal(endpoint, parts[0] + b"x" * 40, "gzip") == "the server's compressed response cannot be read"
    assert read(endpoint, gzip.compress(b"") * 100, "gzip") == b""
    assert "goes on after its end" in refusal(endpoint, gzip.compress(b"") * 101, "gzip")


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "br, gzip"])
def test_a_coding_that_we_cannot_undo_is_refused(coding: str, endpoint: HostileTokenEndpoint) -> None:
    """P6. The bug: a bot got the coded bytes as the body, and nothing said that they were coded."""
    assert "cannot undo" in refusal(endpoint, gzip.compress(b"{}"), coding)


@pytest.mark.parametrize("name", ["utf-8", "UTF-8", "none", "binary"])
def test_a_name_that_is_no_coding_changes_nothing(name: str, endpoint: HostileTokenEndpoint) -> None:
    """Servers name a character set there. IANA's registry says what a coding is."""
    assert read(endpoint, BODY, name) == BODY
    assert read(endpoint, gzip.compress(BODY), f"gzip;q=1, {name}") == BODY


@pytest.mark.parametrize("coding", ["", "identity", "Identity", " , identity"])
def test_no_coding_leaves_the_body_as_it_is(coding: str, endpoint: HostileTokenEndpoint) -> None:
    assert read(endpoint, BODY, coding) == BODY


def test_no_more_than_five_codings_are_undone(endpoint: HostileTokenEndpoint) -> None:
    """N7."""
    body = b"{}"
    for _ in range(5):
        body = gzip.compress(body)
    assert read(endpoint, body, "gzip,gzip,gzip, gzip,gzip") == b"{}"
    assert "too many content codings" in refusal(endpoint, gzip.compress(body), ", ".join(["gzip"] * 6))


@pytest.mark.parametrize("status", [200, 204, 304])
def test_a_body_that_is_not_there_is_in_no_coding(status: int, endpoint: HostileTokenEndpoint) -> None:
    """RFC 9110 section 8.4: 304 names the coding of what it does not send."""
    endpoint.play(http_answer(b"", status=status, Content_Encoding="gzip"))
    assert transport.get(endpoint.url).content == b""


def test_a_body_without_a_length_that_has_not_begun_ended_early(endpoint: HostileTokenEndpoint) -> None:
    """P6: only the connection says where it ends."""
    endpoint.script = lambda: _then_close(HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n")
    with pytest.raises(transport.EndpointUnreachable, match="ended early"):
        transport.get(endpoint.url)


@pytest.mark.parametrize("coder", [gzip.compress, lambda body: body], ids=["coded", "as it is"])
def test_a_body_shorter_than_its_length_is_refused(coder: Coder, endpoint: HostileTokenEndpoint) -> None:
    """P10: the connection is closed in the middle of it."""
    coding = b"gzip" if coder is gzip.compress else b"identity"
    head = HEAD + b"Content-Encoding: %s\r\nContent-Length: 50000\r\n\r\n" % coding
    endpoint.script = lambda: _then_close(head + coder(BODY))
    with pytest.raises(transport.EndpointUnreachable):
        transport.get(endpoint.url)


@all_codings
def test_the_largest_body_is_decoded_and_a_larger_one_refused(
    coding: str, coder: Coder, endpoint: HostileTokenEndpoint
) -> None:
    """N7: counted after decompression, also where nothing could be made smaller."""
    for body in (b" " * LARGEST, _incompressible(LARGEST)):
        assert read(endpoint, coder(body), coding) == body
        with pytest.raises(transport.ResponseTooLarge):
            read(endpoint, coder(body + b"x"), coding)


def test_a_body_in_between_is_bounded_too(endpoint: HostileTokenEndpoint) -> None:
    """N7: a small answer that holds 2 MB of empty gzip."""
    with pytest.raises(transport.ResponseTooLarge):
        read(endpoint, gzip.compress(gzip.compress(b"") * 100_000), "gzip, gzip")


def test_a_coded_body_is_read_over_chunks(endpoint: HostileTokenEndpoint) -> None:
    endpoint.play(_in_chunks(gzip.compress(BODY)))
    assert transport.get(endpoint.url).content == BODY


def test_chunks_that_are_whole_may_hold_a_body_that_is_not(endpoint: HostileTokenEndpoint) -> None:
    """P6."""
    endpoint.play(_in_chunks(gzip.compress(BODY)[:-1]))
    with pytest.raises(transport.EndpointUnreachable, match="ended early"):
        transport.get(endpoint.url)


def _in_chunks(coded: bytes) -> bytes:
    head = HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in coded) + b"0\r\n\r\n"
