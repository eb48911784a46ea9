"""docs/webhooks.md: its receiver works as it stands, and it names every event."""

import re
from pathlib import Path
from typing import Any, Final

import pytest

from brands.models import WebhookEvent
from tests.cast import Bot
from tests.webhook_receiver import Receiver

GUIDE: Final = Path(__file__).parent.parent / "docs" / "webhooks.md"


@pytest.mark.django_db
def test_the_receiver_of_the_guide_takes_an_event_once_and_nobody_elses(
    acme_bot: Bot, acme_server: object, acme_hooks: Receiver
) -> None:
    queued: list[Any] = []
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    names: dict[str, Any] = {"queue_for_later": queued.append}
    exec(code[1], names)  # noqa: S102  # it is ours
    acme_bot.challenge()
    acme_hooks.told()
    (message,) = acme_hooks.messages
    seen: set[str] = set()
    for _ in range(2):
        assert names["receive"](message.headers, message.body.encode(), acme_hooks.secret, seen) == 204
    forged = message.body.replace("issued", "completed").encode()
    assert names["receive"](message.headers, forged, acme_hooks.secret, seen) == 401
    assert queued == [message.payload]


def test_the_guide_names_every_event() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    missing = [event for event in WebhookEvent.values if f"`{event}`" not in text]
    assert [event for event in missing if f"`.{event.partition('.')[2]}`" not in text] == []
