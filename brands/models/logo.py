"""A brand's logo, apart from its brand: bots' calls read the brand each time, and only a page needs the picture."""

from django.db import models

from brands.models.brand import Brand


class Logo(models.Model):
    """A PNG of a few kilobytes, as `brands.logo` has drawn it."""

    brand = models.OneToOneField(Brand, on_delete=models.CASCADE, related_name="logo")
    png = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.brand} logo"
