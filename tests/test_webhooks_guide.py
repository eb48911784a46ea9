"""docs/webhooks.md: its receiver works as it stands, and it names every event."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import requests
from requests.adapters import HTTPAdapter
from standardwebhooks import Webhook
from urllib3.util.retry import Retry

from brands.models import WebhookEvent
from brands.webhooks import new_secret
from tests.cast import Bot
from tests.demo.machines import free_ports
from tests.webhook_receiver import Receiver

GUIDE: Final = Path(__file__).parent.parent / "docs" / "webhooks.md"


@pytest.mark.django_db
def test_the_receiver_of_the_guide_takes_an_event_once_and_nobody_elses(
    acme_bot: Bot, acme_server: object, acme_hooks: Receiver
) -> None:
    names: dict[str, Any] = {}
    exec(programs()[0], names)  # noqa: S102  # it is ours
    acme_bot.challenge()
    acme_hooks.deliver()
    (message,) = acme_hooks.messages
    seen: set[str] = set()
    for _ in range(2):
        assert names["receive"](message.headers, message.body.encode(), acme_hooks.secret, seen) == 204
    for signature in ("abc", "v1,a,b", "v1,é"):
        malformed = message.headers | {"webhook-signature": signature}
        assert names["receive"](malformed, message.body.encode(), acme_hooks.secret, seen) == 401
    forged = message.body.replace("issued", "completed").encode()
    assert names["receive"](message.headers, forged, acme_hooks.secret, seen) == 401
    assert (names["to_do"].get(timeout=30), names["to_do"].empty()) == (message.payload, True)


def test_the_receiver_for_the_demo_prints_what_is_signed(tmp_path: Path) -> None:
    """Its two parts in one file, as a reader runs it; this server writes the headers' names as it likes."""
    (port,), secret, event = free_ports(1), new_secret().reveal(), {"type": "webhook.test"}
    script = tmp_path / "receiver.py"
    script.write_text("".join(programs()).replace("8099", str(port)))
    now, body = datetime.now(tz=UTC), json.dumps(event)
    headers = {
        "Webhook-Id": "1", "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": Webhook(secret).sign("1", now, body),
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, script], env={"SECRET": secret}, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            answers = [_post(port, body, headers) for body in (body, body, "{}")]
            assert program.stdout
            assert program.stdout.readline() == f"{event}\n"
        finally:
            program.terminate()
    assert answers == [204, 204, 401]


def programs() -> list[str]:
    """Return the receiver with the product's own library, and the server around it; tests/sdks tries the others."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if "from standardwebhooks" in block or "HTTPServer" in block]


def _post(port: int, body: str, headers: dict[str, str]) -> int:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(connect=30, backoff_factor=0.1, backoff_max=2)))
        return session.post(f"http://127.0.0.1:{port}/", data=body, headers=headers, timeout=60).status_code


def test_the_guide_names_every_event() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    missing = [event for event in WebhookEvent.values if f"`{event}`" not in text]
    assert [event for event in missing if f"`.{event.partition('.')[2]}`" not in text] == []
