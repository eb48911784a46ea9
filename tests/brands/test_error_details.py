"""Text from an authorization server is stored on one line, so that it cannot forge a log line (H8)."""

import pytest

from oauth_client import AuthorizationServerError, ErrorCode
from oauth_client.errors import sanitised


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("  Try\tagain\r\n2026-01-01 INFO  all is well ", "Try again 2026-01-01 INFO all is well"),
        ("left\u202eto right\u2028and on\x00\x1b[31m", "left to right and on [31m"),
        ("no\u00a0break, caf\u00e9", "no break, caf\u00e9"),
        ("x" * 201, "x" * 200),
        (" " * 999 + "yz", "y"),
        ("", ""),
    ],
)
def test_a_detail_is_one_short_line(said: str, kept: str) -> None:
    assert sanitised(said) == kept
    assert AuthorizationServerError(ErrorCode.SERVER_ERROR, said).detail == kept


def test_an_error_reads_as_its_code_with_its_detail_where_there_is_one() -> None:
    said = [str(AuthorizationServerError(ErrorCode.SERVER_ERROR, detail)) for detail in ("HTTP status 500", "")]
    assert said == ["server_error: HTTP status 500", "server_error"]


def test_an_error_without_a_detail_has_none() -> None:
    """What stood there would be read as what the server said."""
    error = AuthorizationServerError(ErrorCode.CONFIGURATION_CHANGED)
    assert (error.error, error.detail, str(error)) == ("configuration_changed", "", "configuration_changed")
