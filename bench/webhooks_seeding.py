"""Fill an empty database for `bench.webhooks`: `python -m bench.webhooks_seeding ORDER`.

The busy endpoint gets a backlog that is due now. For the seconds to come its neighbours get an event now and then.
"""

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import django

django.setup()

from django.core.management import call_command  # noqa: E402  # after django.setup
from django.utils import timezone  # noqa: E402

from brands.models import Brand, WebhookEndpoint, WebhookEvent  # noqa: E402
from brands.webhooks import create_webhook_endpoint  # noqa: E402
from conversations.models import WebhookDelivery  # noqa: E402
from infrastructure.crypto import Secret  # noqa: E402


def _endpoint(name: str, port: int) -> WebhookEndpoint:
    brand = Brand.objects.create(name=name.title(), slug=name)
    endpoint = WebhookEndpoint(brand=brand, url=f"https://127.0.0.1:{port}/hooks")
    create_webhook_endpoint(endpoint)
    return endpoint


def _deliveries(endpoint: WebhookEndpoint, moments: list[datetime]) -> None:
    rows = []
    for at in moments:
        row = WebhookDelivery(
            event_uuid=uuid4(), event=WebhookEvent.WEBHOOK_TEST, endpoint=endpoint, created_at=at, next_attempt_at=at
        )
        row.give_up_at = at + timedelta(days=1)
        row.set_payload(Secret(json.dumps({"type": row.event, "timestamp": at.isoformat(), "data": {"x": "y" * 600}})))
        rows.append(row)
    WebhookDelivery.objects.bulk_create(rows, batch_size=1000)


def main() -> None:
    """Create tables, brands, endpoints and deliveries."""
    order = json.loads(Path(sys.argv[1]).read_text())
    call_command("migrate", verbosity=0, interactive=False)
    ports = order["ports"]
    _deliveries(_endpoint("busy", ports["busy"]), [timezone.now()] * order["backlog"])
    now = timezone.now()  # to store the backlog may have taken long
    for name, every in order["neighbours"].items():
        later = [now + timedelta(seconds=number) for number in range(0, int(order["seconds"]), every)]
        _deliveries(_endpoint(name, ports[name]), later)


if __name__ == "__main__":
    main()
