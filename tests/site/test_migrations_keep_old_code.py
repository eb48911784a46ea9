"""During an upgrade, processes of the version before work on the new tables: no migration takes away what they use.

django-migration-linter judges the SQL that PostgreSQL would get. It sees nothing of what a function of Python sends, so
each migration with one is named below. The first migrations are the base: no version is older.
"""

import sys
from pathlib import Path
from typing import Final

import pytest
from django.apps import apps
from django.conf import settings as configured
from django.db import connection
from django.db.migrations import RunPython
from django.db.migrations.loader import MigrationLoader
from django_migration_linter import MigrationLinter
from pytest_django import Settings

# `CREATE INDEX CONCURRENTLY` refuses to be written down inside the transaction of a test.
pytestmark = pytest.mark.django_db(transaction=True)

BASE: Final = "0001_initial"
# Migrations that drop what an earlier release used, each with the release that stopped using it.
REMOVALS: Final[dict[str, str]] = {}
# Why functions of Python in a migration leave the version before at work.
REVIEWED: Final = {
    ("infrastructure", "0003_audit_log_by_month"): "the log keeps its name and columns; its writers wait for seconds",
}
MATTERS_OF_TASTE: Final = ("RUNPYTHON_ARGS_NAMING_CONVENTION", "RUNPYTHON_MODEL_VARIABLE_NAME")
MIGRATION: Final = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models.functions import Now

class Migration(migrations.Migration):
    atomic = {atomic}
    dependencies = {dependencies}
    operations = [{operations}]
"""
ORDERS: Final = """
migrations.CreateModel("Order", [
    ("id", models.BigAutoField(primary_key=True)),
    ("number", models.CharField(max_length=9)),
    ("note", models.TextField(null=True)),
]),
"""
# What each does, and what the linter calls it.
REFUSED: Final = {
    "drops a column": ('migrations.RemoveField("Order", "note")', "DROPPING columns (table: acme_orders_order"),
    "renames a column": ('migrations.RenameField("Order", "note", "remark")', "RENAMING columns"),
    "demands a value of inserts that do not know the column": (
        'migrations.AddField("Order", "city", models.CharField(max_length=9, default="Bern"))',
        "NOT NULL constraint on columns",
    ),
    "forbids what is written without a value": (
        'migrations.AlterField("Order", "note", models.TextField())', "NOT NULL constraint on columns",
    ),
    "drops a table": ('migrations.DeleteModel("Order")', "DROPPING table"),
    "renames a table": ('migrations.RenameModel("Order", "Purchase")', "RENAMING tables"),
    "changes a type": ('migrations.AlterField("Order", "number", models.IntegerField())', "ALTERING columns"),
    "makes a value unique": (
        'migrations.AlterField("Order", "number", models.CharField(max_length=9, unique=True))', "ADDING unique",
    ),
    "locks writers out while it makes an index": (
        'migrations.AddIndex("Order", models.Index(fields=["number"], name="by_number"))', "CREATE INDEX locks table",
    ),
    "drops a column in SQL": (
        'migrations.RunSQL("ALTER TABLE acme_orders_order DROP COLUMN note", "")', "DROPPING columns",
    ),
}  # fmt: skip
ACCEPTED: Final = {
    "adds a column that may be empty": 'migrations.AddField("Order", "city", models.TextField(null=True))',
    "adds a column that the database fills": (
        'migrations.AddField("Order", "placed_at", models.DateTimeField(db_default=Now()))'
    ),
    "makes an index beside writers": (
        'AddIndexConcurrently("Order", models.Index(fields=["number"], name="by_number"))'
    ),
    "adds a table": 'migrations.CreateModel("City", [("id", models.BigAutoField(primary_key=True))])',
}


def linted(*labels: str) -> MigrationLinter:
    """Judge all migrations of these apps except for the base. What it says is printed."""
    linter = MigrationLinter(
        ignore_name=[BASE, *REMOVALS],
        include_apps=labels,
        all_warnings_as_errors=True,
        exclude_migration_tests=MATTERS_OF_TASTE,
        quiet=["ignore"],
    )
    linter.lint_all_migrations()
    return linter


def own_labels() -> list[str]:
    root = Path(configured.BASE_DIR)
    return [config.label for config in apps.get_app_configs() if Path(config.path).parent == root]


@pytest.fixture
def acme_orders(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app with one table. Returns its folder of migrations."""
    migrations = tmp_path / "acme_orders" / "migrations"
    migrations.mkdir(parents=True)
    for package in (migrations.parent, migrations):
        (package / "__init__.py").touch()
    (migrations / f"{BASE}.py").write_text(MIGRATION.format(atomic=True, dependencies=[], operations=ORDERS))
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_orders"]:
        monkeypatch.delitem(sys.modules, name)
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "acme_orders"]
    return migrations


def write_second(migrations: Path, operation: str) -> None:
    atomic = "Concurrently" not in operation
    text = MIGRATION.format(atomic=atomic, dependencies=[("acme_orders", BASE)], operations=operation)
    (migrations / "0002_next.py").write_text(text)


def test_no_migration_takes_away_what_the_version_before_uses(capsys: pytest.CaptureFixture[str]) -> None:
    linter = linted(*own_labels())
    assert not linter.has_errors, capsys.readouterr().out
    assert linter.nb_valid >= 3


def test_functions_of_python_in_migrations_are_named_with_a_reason() -> None:
    loader = MigrationLoader(connection)
    found = {
        (label, name)
        for (label, name), migration in loader.disk_migrations.items()
        if label in own_labels() and name != BASE
        for operation in migration.operations
        if isinstance(operation, RunPython)
    }
    assert found == set(REVIEWED)


@pytest.mark.parametrize(("operation", "said"), REFUSED.values(), ids=REFUSED)
def test_a_migration_is_refused_if_it(
    acme_orders: Path, capsys: pytest.CaptureFixture[str], operation: str, said: str
) -> None:
    write_second(acme_orders, operation)
    linter = linted("acme_orders")
    assert (linter.nb_valid, linter.nb_erroneous) == (0, 1)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("operation", ACCEPTED.values(), ids=ACCEPTED)
def test_a_migration_is_accepted_if_it(acme_orders: Path, capsys: pytest.CaptureFixture[str], operation: str) -> None:
    write_second(acme_orders, operation)
    linter = linted("acme_orders")
    assert (linter.nb_valid, linter.nb_erroneous) == (1, 0), capsys.readouterr().out
