"""A brand's token endpoint and API over TLS on loopback: `python -m bench.peers.brand PORT CERTIFICATE_FILE KEY_FILE`.

`POST /token` answers at once with a token of 1,500 characters, and `GET /orders` with ten orders. Below `/hanging` both
answer after 10 seconds.
"""

import asyncio
import json
import ssl
import sys
from typing import Final

from bench.cast import access_token

HANGS_SECONDS: Final = 10.0
_ANSWER: Final = json.dumps({"access_token": access_token(0), "token_type": "Bearer", "expires_in": 3600}).encode()
_ORDERS: Final = json.dumps({"orders": [{"id": f"A-{number}", "state": "sent"} for number in range(10)]}).encode()


def _response(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


_OF_POST, _OF_GET = _response(_ANSWER), _response(_ORDERS)


async def serve(port: int, context: ssl.SSLContext) -> None:
    server = await asyncio.start_server(_converse, "127.0.0.1", port, ssl=context, backlog=512)
    async with server:
        await server.serve_forever()


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests until the client closes the connection."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            if head.split(b" ", 2)[1].startswith(b"/hanging/"):
                await asyncio.sleep(HANGS_SECONDS)
            writer.write(_OF_GET if head.startswith(b"GET ") else _OF_POST)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has closed the connection
    finally:
        writer.close()


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    asyncio.run(serve(int(sys.argv[1]), context))


if __name__ == "__main__":
    main()
