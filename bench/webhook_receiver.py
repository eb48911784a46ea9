"""A webhook endpoint over TLS: `python -m bench.webhook_receiver PORT STATUS MILLISECONDS FILE CERTIFICATE KEY`.

It answers with that status after so many milliseconds. Ten times a second it writes to the file how many events it has
received, repeated ones counted once, over how many connections, and of the newest ones the moment and the seconds from
then to their first arrival.
"""

import asyncio
import json
import ssl
import sys
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Final

_EVERY_SECONDS: Final = 0.1


class _Receiver:
    def __init__(self, status: int, milliseconds: int) -> None:
        self._ids: set[bytes] = set()
        self._connections = 0
        self._waits: deque[tuple[float, float]] = deque(maxlen=200)
        self._answer = f"HTTP/1.1 {status} Of The Benchmark\r\nContent-Length: 0\r\n\r\n".encode()
        self._seconds = milliseconds / 1000

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
                body = await reader.readexactly(int(fields[b"content-length"]))
                self._note(fields[b"webhook-id"], body)
                await asyncio.sleep(self._seconds)
                writer.write(self._answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        finally:
            writer.close()

    def _note(self, webhook_id: bytes, body: bytes) -> None:
        if webhook_id in self._ids:
            return
        self._ids.add(webhook_id)
        moment = datetime.fromisoformat(json.loads(body)["timestamp"]).timestamp()
        self._waits.append((moment, time.time() - moment))

    def figures(self) -> str:
        """Return the figures as JSON."""
        return json.dumps({"events": len(self._ids), "connections": self._connections, "waits": list(self._waits)})


async def _serve(port: int, receiver: _Receiver, file: Path, context: ssl.SSLContext) -> None:
    written = file.with_suffix(".new")
    async with await asyncio.start_server(receiver.connected, "127.0.0.1", port, ssl=context):
        while True:
            written.write_text(receiver.figures())
            written.replace(file)
            await asyncio.sleep(_EVERY_SECONDS)


def main() -> None:
    port, status, milliseconds, file, certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asyncio.run(_serve(int(port), _Receiver(int(status), int(milliseconds)), Path(file), context))


if __name__ == "__main__":
    main()
