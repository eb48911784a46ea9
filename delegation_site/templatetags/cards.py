"""Template filter for the admin's lists: each cell names its column, so that a narrow page can show rows as cards."""

from collections.abc import Iterable
from typing import Any

from django.template import Library
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

register = Library()


@register.filter
def with_labels(cells: Iterable[SafeString], headers: list[dict[str, Any]]) -> list[SafeString]:
    """Return the cells of a row with `data-label`, the words of their column; a box to tick has none."""
    return [_labelled(cell, header) for cell, header in zip(cells, headers, strict=False)]


def _labelled(cell: SafeString, header: dict[str, Any]) -> SafeString:
    if "action-checkbox" in header.get("class_attrib", ""):
        return cell
    label = format_html(' data-label="{}"', capfirst(header["text"]))
    tag = cell[:3]  # "<td" or "<th": Django makes the cell, so nothing stands before it
    return mark_safe(tag + label + cell[3:])  # noqa: S308  # both parts are escaped
