"""A webhook receiver as a process: `python -m tests.webhook_crash_receiver PORT FILE`.

Writes each message's id and event to the file, and only then answers: killed in between, it has taken an event that we
do not know of, and gets it again.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main() -> None:
    """Serve until the process ends."""
    port, file = int(sys.argv[1]), os.open(Path(sys.argv[2]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    class Handler(BaseHTTPRequestHandler):
        """Takes everything."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Write down, then answer."""
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            line = " ".join((self.headers["webhook-id"], payload["type"], str(payload["sequence"])))
            os.write(file, f"{line}\n".encode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    ThreadingHTTPServer.allow_reuse_address = True
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
