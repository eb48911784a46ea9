"""Django app for the shared services below every other app. It owns the audit log and the rate counters."""

from django.apps import AppConfig


class InfrastructureConfig(AppConfig):
    """The admin index shows this app as "Audit", because the audit log is its only table there."""

    name = "infrastructure"
    verbose_name = "Audit"
