"""A webhook endpoint as a process: `python -m bench.webhook_receiver PORT MILLISECONDS FILE`.

It answers 204 after so many milliseconds. Ten times a second it writes to the file how many events it has received,
over how many connections, and of the newest ones the moment and the seconds from then to their arrival.
"""

import asyncio
import json
import sys
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Final

_EVERY_SECONDS: Final = 0.1


class _Receiver:
    def __init__(self, milliseconds: int) -> None:
        self._events = self._connections = 0
        self._waits: deque[tuple[float, float]] = deque(maxlen=200)
        self._seconds = milliseconds / 1000

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        number = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
                body = await reader.readexactly(int(fields[b"content-length"]))
                await asyncio.sleep(self._seconds)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
                number += 1
                self._note(body, is_first=number == 1)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        finally:
            writer.close()

    def _note(self, body: bytes, *, is_first: bool) -> None:
        moment = datetime.fromisoformat(json.loads(body)["timestamp"]).timestamp()
        self._events += 1
        self._connections += is_first
        self._waits.append((moment, time.time() - moment))

    def figures(self) -> str:
        """Return the figures as JSON."""
        return json.dumps({"events": self._events, "connections": self._connections, "waits": list(self._waits)})


async def _serve(port: int, milliseconds: int, file: Path) -> None:
    receiver = _Receiver(milliseconds)
    written = file.with_suffix(".new")
    async with await asyncio.start_server(receiver.connected, "127.0.0.1", port):
        while True:
            written.write_text(receiver.figures())
            written.replace(file)
            await asyncio.sleep(_EVERY_SECONDS)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
