"""Read the body of a response, and decode its content coding up to the coding's own end (RFC 9110 section 8.4).

We ask for `identity`, and some servers compress all the same. The body is decoded here, and not by the library, because
we have to know that nothing is missing: half of a compressed list can be a text or a document of its own.
"""

import zlib
from typing import Any, Final

from oauth_client.framing import refuse_unclear_end
from oauth_client.outbound_errors import EndpointUnreachable, ResponseTooLarge

# Of bytes that cannot be made smaller, the compressed form is longer: by its headers, and by five bytes for each block.
_MORE_THAN_PLAIN: Final = 1_024
# Each coding may have made the body of the one before.
_MOST_CODINGS: Final = 5
# IANA's other content codings. A name that is none of them, such as `utf-8`, is a server's mistake: nothing was coded.
_OTHERS: Final = frozenset({"aes128gcm", "br", "compress", "dcb", "dcz", "exi", "pack200-gzip", "x-compress", "zstd"})
# A gzip file may be several in a row (RFC 1952 section 2.2). An empty one has 20 bytes.
_MOST_MEMBERS: Final = 100
_GZIPS: Final = frozenset({"gzip", "x-gzip"})
_DEFLATE: Final = "deflate"
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def read_body(response: Any, most: int) -> bytes:
    """Return the whole body, decoded: at most `most` bytes. `response` is urllib3's, with nothing of its body read.

    Raises `ResponseTooLarge`, or `EndpointUnreachable` for a body of which it is not clear where it ends, that ends
    before its coding does, that goes on after it, or whose coding we cannot undo.
    """
    refuse_unclear_end(response)
    codings = _codings(response.headers.get("Content-Encoding", ""))
    sent = _read(response, most + (_MORE_THAN_PLAIN if codings else 0))
    if not sent and not _ends_with_the_connection(response):
        # Such as an answer to HEAD, and 304, which name the coding of a body that they do not have.
        return sent
    for number, coding in enumerate(reversed(codings), 1):
        sent = _decoded(coding, sent, most if number == len(codings) else most + _MORE_THAN_PLAIN)
    return sent


def _codings(header: str) -> list[str]:
    names = [name.partition(";")[0].strip().lower() for name in header.split(",")]
    if not _OTHERS.isdisjoint(names):
        raise EndpointUnreachable("the server's response has a content coding that we cannot undo")
    codings = [name for name in names if name in _GZIPS or name == _DEFLATE]
    if len(codings) > _MOST_CODINGS:
        raise EndpointUnreachable("the server's response has too many content codings")
    return codings


def _read(response: Any, most: int) -> bytes:
    """Read at most one byte too many. The last read, which is empty, finds a body shorter than its length."""
    sent = bytearray()
    while len(sent) <= most and (part := response.read(most + 1 - len(sent), decode_content=False)):
        sent += part
    if len(sent) > most:
        raise ResponseTooLarge("the answer is too large")
    return bytes(sent)


def _ends_with_the_connection(response: Any) -> bool:
    return not response.chunked and response.length_remaining is None


def _decoded(coding: str, sent: bytes, most: int) -> bytes:
    """Return what was coded. The limit is that of the decoded bytes: 50 KB of gzip can be 50 MB (N7)."""
    if coding in _GZIPS:
        return _inflated(sent, _GZIP, most, _MOST_MEMBERS)
    return _inflated(sent, _ZLIB if _is_zlib(sent) else _RAW, most, 1)


def _is_zlib(sent: bytes) -> bool:
    """Whether the body begins as RFC 1950 says. Some servers send `deflate` without that header (RFC 9110, 8.4.1.2).

    What no compressor writes: a body without the header that looks as if it had one.
    """
    return sent[:1] != b"" and sent[0] & 15 == zlib.DEFLATED and int.from_bytes(sent[:2], "big") % 31 == 0


def _inflated(sent: bytes, window: int, most: int, members: int) -> bytes:
    found = b""
    for _ in range(members):
        stream = zlib.decompressobj(window)
        try:
            found += stream.decompress(sent, most + 1 - len(found))
        except zlib.error:
            raise EndpointUnreachable("the server's compressed response cannot be read") from None
        if len(found) > most:
            raise ResponseTooLarge("the answer is too large")
        if not stream.eof:
            raise EndpointUnreachable("the server's compressed response ended early")
        if not (sent := stream.unused_data):
            return found
    raise EndpointUnreachable("the server's compressed response goes on after its end")
