"""What the first requests would load, for all processes at once: memory is shared, and no request waits for it."""

from pathlib import Path
from typing import Final

from django.conf import settings
from django.template.loader import get_template
from django.urls import reverse

from oauth_client.transport import adapter_for

_PAGES: Final = ("base.html", "consumer/*.html", "errors/*.html")


def load_what_requests_need() -> None:
    """Load URLs, the templates of consumers' pages, and the certificates that brands' servers are checked against.

    Call it before processes are forked. Raises `ImproperlyConfigured` if `OUTBOUND_CA_FILE` holds no certificates.
    """
    reverse("admin:index")
    folder = Path(settings.BASE_DIR, "templates")
    for pattern in _PAGES:
        for page in folder.glob(pattern):
            get_template(str(page.relative_to(folder)))
    adapter_for("https:")
