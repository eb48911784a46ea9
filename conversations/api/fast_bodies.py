"""What the fast paths of `before_django` share: the JSON body of a request, and the answer."""

import re
from io import BytesIO
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

# As clients write it. For another one Django's parser decides.
_CONTENT_TYPES: Final = {
    *("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"),
    *("application/json; charset=UTF-8", "application/json;charset=UTF-8"),
}
_LENGTH: Final = re.compile("[1-9][0-9]{0,5}")

Body = TypeVar("Body")


class Reply(NamedTuple):
    """An answer: its body, its status, and the headers that not every answer to a bot has.

    A 304 has the body that it would have as 200, for its length.
    """

    body: bytes
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()


def is_post_of_json(environ: dict[str, Any], most_bytes: int) -> bool:
    """Whether this is a POST without a query whose body `read_json` can read, of at most so many bytes."""
    length = environ.get("CONTENT_LENGTH", "")
    return (
        environ.get("REQUEST_METHOD") == "POST"
        and environ.get("CONTENT_TYPE") in _CONTENT_TYPES
        and not environ.get("QUERY_STRING")
        and not environ.get("HTTP_TRANSFER_ENCODING")
        and _LENGTH.fullmatch(length) is not None
        and int(length) <= most_bytes
    )


def read_json(environ: dict[str, Any], decoder: msgspec.json.Decoder[Body]) -> Body | None:
    """Read and decode the body; None if the full way has to say what is wrong with it. It gets the same bytes.

    Call it after the bot key was recognised: a stranger's body may be slow, and would hold the thread. Raises what the
    server raises if the client has gone away.
    """
    raw = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    environ["wsgi.input"] = BytesIO(raw)
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
