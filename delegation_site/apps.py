"""The site itself: registers the system checks that keep a dangerous installation from starting."""

from django.apps import AppConfig
from django.core.checks import Tags, register

from delegation_site import checks


class DelegationSiteConfig(AppConfig):
    """Registers `delegation_site.checks`."""

    name = "delegation_site"

    def ready(self) -> None:
        """Register the checks; `gunicorn.py` runs them before it serves."""
        for check in checks.ALL:
            register(check, Tags.security)
        register(checks.check_database, Tags.database)
