"""A rotation of wrapped keys, as docs/operator.md has it, for whatever provider wraps them."""

import pytest

from infrastructure.key_providers import unwrapped_ring
from infrastructure.key_providers.failures import ProviderFailed
from tests.installation import Installation

# A webhook endpoint with its secret, and how to read it.
FILL = """
from brands.models import Brand, WebhookEndpoint
from brands.webhooks import create_webhook_endpoint
brand = Brand.objects.create(name="Acme", slug="acme")
endpoint = WebhookEndpoint(brand=brand, url="https://bot.acme.example/hooks", events=["challenge.withdrawn"])
create_webhook_endpoint(endpoint)
"""
READ = """
from django.utils import timezone
from brands.models import WebhookEndpoint
print([one.reveal() for one in WebhookEndpoint.objects.get().reveal_signing_secrets(timezone.now())])
"""
HELD = "webhookendpoint.secret_ciphertext is held by:"


def rotate(installation: Installation) -> list[str]:
    """Store a secret under a wrapped key, and move to a second one. Returns both entries of the ring.

    Fails if a step does, or if a value cannot be read after it.
    """
    source = installation.settings.pop("ENCRYPTION_KEYS_FROM")
    installation.migrate()
    installation.settings["ENCRYPTION_KEYS_FROM"], installation.encryption_keys = source, ""
    first = installation.encryption_keys = installation.manage("wrap_key", "k1")
    installation.python(FILL)
    before = installation.python(READ)
    assert "whsec_" in before
    second = installation.manage("wrap_key", "k2")
    installation.encryption_keys = f"{second},{first}"
    assert f"{HELD} k2 1" in installation.manage("reencrypt").splitlines()
    installation.encryption_keys = second
    assert installation.python(READ) == before
    return [first, second]


def refused(ring: str, source: str) -> str:
    """Return the id and the sentence for a ring that a source must not unwrap."""
    with pytest.raises(ProviderFailed) as raised:
        unwrapped_ring(ring, source)
    return f"{raised.value.number} {raised.value.message}"


def refusal(installation: Installation) -> str:
    """Return what a start says that must be refused: with an id, in one line and a hint, without a traceback."""
    result = installation.run("manage.py", "check")
    assert (result.returncode, result.stdout) == (4, "")
    assert "Traceback" not in result.stderr
    return result.stderr


def swapped(entry: str, key_id: str) -> str:
    """An entry of the ring under another id."""
    return f"{key_id}:{entry.partition(':')[2]}"
