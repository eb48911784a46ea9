"""A small HTTP/1.1 client on asyncio for prepared requests, and an open-loop load generator.

In an open loop, each request is sent at its scheduled time, whether or not earlier ones were answered. Its duration is
counted from the scheduled time. A closed loop would send nothing while the server hangs, and so would not notice it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

LINE_LIMIT: Final = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """A response; `status` is None without one. `milliseconds` are counted from the scheduled time."""

    status: int | None
    body: bytes = field(default=b"", repr=False)
    milliseconds: float = 0.0
    retry_after: bool = False


class Connection:
    """One persistent connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes, *, timeout: float) -> Answer:  # the caller's own words
        """Send a request and read the response. Without a response, return an `Answer` without status."""
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
    """A pool of connections to one server. It opens as many as are needed at once."""

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
    """Send `rate` requests a second, each at its scheduled time. Return the answers."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(number: int, request: bytes) -> Answer:
        appointed = began + number / rate
        await asyncio.sleep(appointed - loop.time())
        answer = await send(request)
        took = (loop.time() - appointed) * 1e3
        return Answer(answer.status, answer.body, took, answer.retry_after)

    return list(await asyncio.gather(*(one(number, request) for number, request in enumerate(requests))))
