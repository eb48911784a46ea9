"""Where a response ends: what we say ourselves, whatever the libraries below us accept (P10)."""

from types import SimpleNamespace
from typing import Final

import pytest

from oauth_client.framing import refuse_unclear_end
from oauth_client.transport import EndpointUnreachable

LENGTH, CODING = "Content-Length", "Transfer-Encoding"
CLEAR: Final = [
    {},
    {LENGTH: "0"},
    {LENGTH: " 9999999999999999999 "},
    {LENGTH: "2, 2"},
    {LENGTH: "2,2 , 2"},
    {CODING: "chunked"},
    {CODING: " Chunked "},
    {CODING: "chunked", LENGTH: "2"},
]
UNCLEAR: Final = [
    {LENGTH: ""},
    {LENGTH: "0x2"},
    {LENGTH: "2.0"},
    {LENGTH: "9" * 20},
    {LENGTH: "2, 3"},
    {LENGTH: "2,"},
    {LENGTH: "2 2"},
    {CODING: "gzip"},
    {CODING: "identity"},
    {CODING: "gzip, chunked"},
    {CODING: "chunked, chunked"},
    {CODING: "xchunked"},
    {CODING: "chunked", LENGTH: "x"},
]


@pytest.mark.parametrize("headers", CLEAR)
def test_a_response_with_a_clear_end_is_read(headers: dict[str, str]) -> None:
    for status in (200, 204, 500, 999):
        refuse_unclear_end(SimpleNamespace(status=status, headers=headers))


@pytest.mark.parametrize("headers", UNCLEAR)
def test_a_response_without_a_clear_end_is_refused(headers: dict[str, str]) -> None:
    """P10: what is left of it would be read as the answer to another conversation."""
    with pytest.raises(EndpointUnreachable, match="the end of the server's response is not clear"):
        refuse_unclear_end(SimpleNamespace(status=200, headers=headers))


@pytest.mark.parametrize("status", [100, 101, 103, 199])
def test_an_interim_response_is_refused(status: int) -> None:
    """P10."""
    with pytest.raises(EndpointUnreachable, match="the server sent no final response"):
        refuse_unclear_end(SimpleNamespace(status=status, headers={}))
