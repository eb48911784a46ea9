"""A small HTTP/1.1 client on asyncio for prepared requests, and an open loop on top of it.

In an open loop requests are sent at fixed times, whether or not earlier ones were answered, and a duration counts from
that time. A closed loop would send nothing while the server hangs, and would not measure the delay.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

LINE_LIMIT: Final = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """A response. `status` is None if there was none. `milliseconds` count from when the request was due."""

    status: int | None
    body: bytes = field(default=b"", repr=False)
    milliseconds: float = 0.0
    retry_after: bool = False


class Connection:
    """A connection, reused until the server closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes, *, timeout: float) -> Answer:  # the caller's own text
        """Send a request and read the response. An error gives an `Answer` without a status."""
        try:
            async with asyncio.timeout(timeout):
                return await self._send(request)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            self.close()
            return Answer(None)

    async def _send(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=LINE_LIMIT)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await _read_body(reader, head)
        if b"\r\nconnection: close" in head:
            self.close()
        return Answer(int(head[9:12]), body, retry_after=b"\r\nretry-after:" in head)

    def close(self) -> None:
        """Close the connection. The next request opens a new one."""
        if self._streams is not None:
            with suppress(OSError):
                self._streams[1].close()
        self._streams = None


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Read a body by its length or its chunks (RFC 9112 section 6)."""
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if found:
        return await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    if b"\r\ntransfer-encoding: chunked" not in head:
        return b""
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


class Pool:
    """As many connections to one server as are needed at the same time. Free ones are reused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[Connection] = []

    async def send(self, request: bytes, *, timeout: float = 60.0) -> Answer:  # as above
        connection = self._free.pop() if self._free else Connection(self._port)
        answer = await connection.send(request, timeout=timeout)
        self._free.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._free:
            connection.close()


async def open_loop(send: Callable[[bytes], Awaitable[Answer]], requests: Sequence[bytes], rate: float) -> list[Answer]:
    """Send `rate` requests a second, each at its due time. Durations count from the due time."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(number: int, request: bytes) -> Answer:
        appointed = began + number / rate
        await asyncio.sleep(appointed - loop.time())
        answer = await send(request)
        took = (loop.time() - appointed) * 1e3
        return Answer(answer.status, answer.body, took, answer.retry_after)

    return list(await asyncio.gather(*(one(number, request) for number, request in enumerate(requests))))
