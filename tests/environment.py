"""The environment in which the suite runs the product. It is fixed, so a developer's .env file has no effect.

Imported before Django's settings. Processes that a test starts get it through `os.environ`.
"""

import os
from typing import Final

TEST_ENVIRONMENT: Final = {
    "SECRET_KEY": "only-for-tests-1dE7vZk0mXQ4w9sLrT2yUaGhB6nJcPfo8iKxRzVtMqYb",
    # Two keys, as during a rotation: everything has to work with both.
    "ENCRYPTION_KEYS": (
        "test-new:9l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A=,test-old:Zr0C2f0XQmYb7tq1sJ6uPpVdKxw4hN8aLo5iE3gTzUk="
    ),
    "PUBLIC_BASE_URL": "https://delegation.test",
    "ALLOWED_HOSTS": "delegation.test,localhost,127.0.0.1",
    "ALLOW_LOCAL_ENDPOINTS": "1",
    "DEBUG": "0",
    "REQUIRE_ADMIN_MFA": "0",
    "OUTBOUND_CA_FILE": "",
    "TRUSTED_PROXY_COUNT": "0",
    "REDIS_URL": "",
    "EMAIL_URL": "memorymail://",
    "DEFAULT_FROM_EMAIL": "delegation@delegation.test",
}


def enter() -> None:
    """Set the suite's environment in this process."""
    os.environ.update(TEST_ENVIRONMENT)
