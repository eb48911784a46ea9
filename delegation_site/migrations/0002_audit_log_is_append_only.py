from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from infrastructure import audit


def install(apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
    audit.install(schema_editor.connection)


def remove(apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
    audit.remove(schema_editor.connection)


class Migration(migrations.Migration):

    dependencies = [
        ('delegation_site', '0001_initial'),
    ]

    operations = [
        migrations.RunPython(install, remove),
    ]
