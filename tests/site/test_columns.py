"""Encrypted columns: no ciphertext of any model escapes a key rotation."""

from django.apps import apps
from django.db import models

from infrastructure.columns import EncryptedField, encrypted_columns

OURS = {"infrastructure", "accounts", "brands", "conversations"}


def test_every_column_that_is_called_a_ciphertext_is_an_encrypted_column() -> None:
    """K4: a column of plain bytes would keep its old key for ever, and nobody would notice."""
    binary = [
        field
        for model in apps.get_models()
        if model._meta.app_label in OURS
        for field in model._meta.concrete_fields
        if isinstance(field, models.BinaryField) and field.name.endswith("ciphertext")
    ]
    assert len(binary) == 14
    assert binary == encrypted_columns()


def test_every_encrypted_column_names_the_place_of_its_row() -> None:
    """K1: without a place of its own a value could be moved to another row."""
    without = [
        str(column) for column in encrypted_columns() if not callable(getattr(column.model, "associated_data", None))
    ]
    assert without == []


def test_a_migration_keeps_a_column_of_bytes() -> None:
    _, path, _, options = EncryptedField(null=True, related=("brand",)).deconstruct()
    assert (path, options) == ("django.db.models.BinaryField", {"null": True})
