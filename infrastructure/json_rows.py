"""Rows that a query returns as one JSON array each.

The driver spends more time on twenty columns than msgspec on their array.
"""

from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec
from django.db import models
from django.db.models.functions import Cast

Row = TypeVar("Row", bound=msgspec.Struct)


def as_text(column: Any) -> Cast:
    """Select a column, or a JSON array of columns, as text."""
    return Cast(column, models.TextField())


class RowDecoder(Generic[Row]):
    """Decodes the JSON array of a row into a `Struct` with `array_like=True` whose fields are in the same order."""

    def __init__(self, shape: type[Row]) -> None:
        # SQLite has 0 and 1 instead of booleans, and moments that name no time zone.
        self._decoder: Final = msgspec.json.Decoder(shape, strict=False)
        fields = msgspec.structs.fields(shape)
        self._moments: Final = [field.name for field in fields if datetime in {field.type, *get_args(field.type)}]

    def decode(self, text: str) -> Row:
        """Raises `msgspec.DecodeError` for another shape."""
        row = self._decoder.decode(text)
        naive = {
            name: at.replace(tzinfo=UTC)
            for name in self._moments
            if (at := getattr(row, name)) is not None and at.tzinfo is None
        }
        return msgspec.structs.replace(row, **naive) if naive else row
