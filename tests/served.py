"""The product served by gunicorn with our configuration, on its own port, with chats that have begun."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from tests.installation import ROOT, Installation

KEY: Final = "key-1:3hSxq0CkB7dT9rYwVbN2mZ5fJ8gLpQeRtUiOaXcKvMs="
COMMAND: Final = [sys.executable, "-m", "gunicorn", "-c", "delegation_site/gunicorn.py"]

# Created with the product's flow: the bot's key, and for each chat its challenge and code, and whether it was posted.
_PREPARE: Final = """
import json, sys
from datetime import timedelta
from django.utils import timezone
from brands.models import Brand
from oauth_client import Account, TokenResponse
from conversations.flow.authorization_requests import begin_authorization_request
from conversations.flow.challenges import WantedChallenge, issue_challenge
from conversations.flow.completion import complete
from conversations.flow.outcomes import store_result
from infrastructure.crypto import Secret, key_ring
from tests.cast import make_bot, make_server

server = make_server(Brand.objects.create(name="Acme", slug="acme"))
bot, now, made = make_bot(server.brand), timezone.now(), {}
for number, stage in enumerate(json.loads(sys.argv[1])):
    chat = f"web:{number}"
    challenge, _ = issue_challenge(server.brand, chat, WantedChallenge(server=server), actor="bot:x", now=now)
    code = ""
    if stage != "issued":
        begun = begin_authorization_request(challenge, now)
        token = TokenResponse(Secret(f"token-{number}"), server.scope, False, now + timedelta(hours=1), False, None)
        store_result(begun.authorization_request, begun.cookie.reveal(), token, Account(), now)
        code = key_ring().completion_codes(challenge.uuid, begun.cookie.reveal())[0]
    if stage == "completed":
        complete(challenge.conversation, server, code, actor="bot:x", now=now)
    made[chat] = {"challenge_id": str(challenge.uuid), "code": code}
sys.stdout.write("\\n" + json.dumps({"key": bot.key, "chats": made}))
"""


def installation_at_a_free_port(folder: Path, **settings: str) -> Installation:
    """An installation that one process serves on loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    common = {"BIND": address, "PUBLIC_BASE_URL": f"http://{address}", "WORKERS": "1"}
    return Installation(folder, KEY, common | {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)} | settings)


def prepared(installation: Installation, stages: list[str]) -> Any:
    """Create a chat for each of `issued`, `confirmation_needed`, `completed`. Returns the bot's key and the chats."""
    installation.migrate()
    result = installation.run("-c", "import django; django.setup()\n" + _PREPARE, json.dumps(stages))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@contextmanager
def serving(installation: Installation, command: list[str] = COMMAND) -> Iterator[list[str]]:
    """Serve, by gunicorn or another command. Afterwards the list contains the output."""
    printed: list[str] = []
    # A file, not a pipe: nobody reads the pipe meanwhile, and a server that cannot write its log hangs.
    with TemporaryFile("w+", encoding="utf8") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=installation.environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(installation.settings["BIND"], server)
            yield printed
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)  # longer than gunicorn's graceful_timeout
            log.seek(0)
            printed.append(log.read())


def wait_for(address: str, server: "subprocess.Popen[Any]") -> None:
    host, port = address.split(":")
    # A start of 3 seconds has taken 30 where others kept both processors busy.
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as attempt:
            if attempt.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens at {address}")
