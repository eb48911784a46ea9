"""A webhook receiver as a process: `python -m tests.webhook_crash_receiver PORT FILE`.

It writes each message's id and event to the file before it answers. If it is killed in between, it has an event whose
delivery we cannot confirm, and gets it again.
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
        """Accepts every message."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Write to the file, then answer."""
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            line = " ".join((self.headers["webhook-id"], payload["type"], str(payload["sequence"])))
            os.write(file, f"{line}\n".encode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    ThreadingHTTPServer.allow_reuse_address = True
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
