"""Who prepares statements, and how a pooler is named: asked of fresh processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import ROOT, Installation
from tests.served import installation_at_a_free_port


def said(installation: Installation, program: str) -> str:
    environment = installation.environment | {"DJANGO_SETTINGS_MODULE": "delegation_site.settings"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_what_serves_prepares_and_what_runs_once_does_not(tmp_path: Path) -> None:
    """Behind a pooler that nobody has named, a command has no second time."""
    installation = installation_at_a_free_port(tmp_path)
    ask = "from infrastructure import prepared; print(prepared._process.prepares)"
    assert said(installation, f"import delegation_site.wsgi; {ask}") == "True"
    assert said(installation, f"import django; django.setup(); {ask}") == "False"


@pytest.mark.parametrize(("word", "meant"), [("true", "True"), ("1", "True"), ("false", "False"), ("0", "False")])
def test_a_pooler_is_named_in_the_address_of_the_database(tmp_path: Path, word: str, meant: str) -> None:
    """The bug: every text is true, and so was `false`."""
    installation = installation_at_a_free_port(tmp_path)
    installation.settings["DATABASE_URL"] = f"postgres://somebody@localhost/x?DISABLE_SERVER_SIDE_CURSORS={word}"
    ask = "from django.conf import settings; print(settings.DATABASES['default']['DISABLE_SERVER_SIDE_CURSORS'])"
    assert said(installation, ask) == meant
