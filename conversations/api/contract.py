"""The contract as this installation serves it: `openapi.yaml`, read once, with our own address in it."""

from functools import lru_cache
from typing import Any

import yaml
from django.conf import settings


@lru_cache(maxsize=1)
def contract(public_base_url: str) -> dict[str, Any]:
    """Return the OpenAPI document; whoever reads it changes nothing in it."""
    text = (settings.BASE_DIR / "openapi.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document | {"servers": [{"url": f"{public_base_url}/api/v1"}]}


def resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference within the document points at; anything else as it is."""
    reference = node.get("$ref")
    if reference is None:
        return node
    target: Any = document
    for part in reference.removeprefix("#/").split("/"):
        target = target[part]
    return dict(target)
