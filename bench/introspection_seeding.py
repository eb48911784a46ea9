"""Seed django-oauth-toolkit: `python -m bench.introspection_seeding ROWS`."""

import sys
from datetime import timedelta
from typing import Final

from bench.introspection import INTROSPECTION  # first: it configures Django for this process

# isort: split

from django.core.management import call_command
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_application_model

from bench.cast import opaque_token

_CHUNK: Final = 5_000


def main() -> None:
    """Create the tables, an application, the resource server's token and `ROWS` tokens."""
    call_command("migrate", verbosity=0)
    client = get_application_model().objects.create(
        client_id="bench", client_type="confidential", authorization_grant_type="authorization-code"
    )
    model = get_access_token_model()
    values = {"application": client, "expires": timezone.now() + timedelta(hours=12)}
    model.objects.create(token=opaque_token(0), scope=INTROSPECTION, **values)
    rows = int(sys.argv[1])
    for first in range(1, rows + 1, _CHUNK):
        numbers = range(first, min(first + _CHUNK, rows + 1))
        model.objects.bulk_create(
            model(token=opaque_token(number), scope="orders.read", **values) for number in numbers
        )


if __name__ == "__main__":
    main()
