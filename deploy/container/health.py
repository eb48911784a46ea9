"""Probe of a web container: exits with 0 if `/health/ready` of this container's processes answers 200.

It reads `BIND`, and `ALLOWED_HOSTS` or else `PUBLIC_BASE_URL`, from the environment. It imports nothing of the product:
loading the settings would unwrap the encryption keys at each probe.
"""

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

# A frozen database keeps the answer back (docs/operator.md, "While the database is away").
SECONDS = 15


def host() -> str:
    """Return a host that the service answers to. Another one gets 400."""
    allowed = os.environ.get("ALLOWED_HOSTS", "").split(",")[0].strip()
    return allowed.removeprefix(".") or urlsplit(os.environ.get("PUBLIC_BASE_URL", "")).hostname or ""


def port() -> int:
    """Return the port that gunicorn listens at, on every address of the container."""
    return int(os.environ.get("BIND", "127.0.0.1:8000").rpartition(":")[2])


def main() -> int:
    """Ask once. Returns the exit status, and prints why it is not 0."""
    connection = HTTPConnection("127.0.0.1", port(), timeout=SECONDS)
    try:
        connection.request("GET", "/health/ready", headers={"Host": host()})
        answer = connection.getresponse()
        said = answer.read(300).decode(errors="replace")
    except (OSError, HTTPException) as error:
        sys.stdout.write(f"{type(error).__name__}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(f"{answer.status} {said}\n")
    return int(answer.status != HTTPStatus.OK)


if __name__ == "__main__":
    sys.exit(main())
