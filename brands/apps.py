"""The app of brands, their authorization servers and their bots' keys."""

from django.apps import AppConfig


class BrandsConfig(AppConfig):
    """Register the system checks of this app."""

    name = "brands"
