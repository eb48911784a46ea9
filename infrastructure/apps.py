"""What every other app stands on, and the two tables that belong to no app above: the audit log and rate counters."""

from django.apps import AppConfig


class InfrastructureConfig(AppConfig):
    """`Audit` is what the admin's first page calls the one table that it shows."""

    name = "infrastructure"
    verbose_name = "Audit"
