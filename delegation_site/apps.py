"""The site itself: registers the system checks that keep a dangerous installation from starting."""

from importlib import import_module

from django.apps import AppConfig
from django.core.checks import Tags, register

from delegation_site import checks


class DelegationSiteConfig(AppConfig):
    """Registers the checks of the settings, and those of the database, which need models."""

    name = "delegation_site"

    def ready(self) -> None:
        """Register the checks; `gunicorn.py` runs them before it serves."""
        for check in checks.OF_SETTINGS:
            register(check, Tags.security)
        import_module(f"{self.name}.health")  # not at the top: models cannot be imported before this moment
