"""Django app of the site. It registers the system checks."""

from importlib import import_module

from django.apps import AppConfig
from django.core.checks import Tags, register

from delegation_site import checks


class DelegationSiteConfig(AppConfig):
    name = "delegation_site"

    def ready(self) -> None:
        """Register the checks. `gunicorn.py` runs them before it serves."""
        for check in checks.OF_SETTINGS:
            register(check, Tags.security)
        register(checks.check_second_factor, Tags.security)
        register(checks.check_sqlite, Tags.security)
        register(checks.check_proxy_count, Tags.security)
        register(checks.check_metrics_address, Tags.security)
        register(checks.check_private_networks, Tags.database)
        import_module(f"{self.name}.health")  # not at the top: it imports models, which are loaded only now
