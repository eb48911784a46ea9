"""Cells of the admin's lists, each with the heading of its column."""

from collections.abc import Iterable
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

register = template.Library()


@register.filter
def with_labels(cells: Iterable[SafeString], headers: list[dict[str, Any]]) -> list[SafeString]:
    """Write the heading of its column into the attribute `data-label` of each cell, which Django has rendered."""
    return [_labelled(cell, header) for cell, header in zip(cells, headers, strict=True)]


def _labelled(cell: SafeString, header: dict[str, Any]) -> SafeString:
    if "action-checkbox" in header["class_attrib"]:  # its heading is the box that selects all
        return cell
    label = format_html(' data-label="{}"', capfirst(header["text"]))
    return mark_safe(f"{cell[:3]}{label}{cell[3:]}")  # noqa: S308  # `<td` or `<th`, our label, and the rest of the cell
