"""`manage.py init`: the first `.env`. K3: keys of full length, apart from each other; H1: no secret is printed."""

import ast
import io
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from delegation_site import first_settings
from infrastructure.crypto import keys_of_setting

ROOT = Path(__file__).parent.parent.parent
ORIGIN = "https://delegation.example"
DATABASE = "postgres://delegation:PLANTED-p%26w@127.0.0.1:5432/delegation?sslmode=require&connect_timeout=5"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///unused")  # put back afterwards


def written(folder: Path) -> dict[str, str]:
    """Return what the settings would read from the file."""
    code = f"import environ, os; environ.Env.read_env({str(folder / '.env')!r}); print(dict(os.environ))"
    printed = subprocess.run([sys.executable, "-c", code], env={}, check=True, capture_output=True, text=True).stdout
    values: dict[str, str] = ast.literal_eval(printed)
    return {name: values[name] for name in values if name != "LC_CTYPE"}


def test_a_first_file_has_good_keys_for_its_owner_alone_and_starts(tmp_path: Path) -> None:
    """K3, H1, N10. The command runs without any setting, and `check` accepts what it wrote."""
    shutil.copy(ROOT / "manage.py", tmp_path)
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    made = subprocess.run(
        [sys.executable, tmp_path / "manage.py", "init", ORIGIN], env=bare, capture_output=True, text=True, check=False
    )
    values = written(tmp_path)
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "ERROR"],
        cwd=ROOT, env=bare | values, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (made.returncode, made.stderr) == (0, "")
    assert "manage.py migrate" in made.stdout
    assert [name for name in ("SECRET_KEY", "ENCRYPTION_KEYS") if values[name] in made.stdout] == []
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert list(values) == ["SECRET_KEY", "ENCRYPTION_KEYS", "PUBLIC_BASE_URL", "TRUSTED_PROXY_COUNT"]
    assert values["TRUSTED_PROXY_COUNT"] == "1"
    assert [(name, len(key)) for name, key in keys_of_setting(values["ENCRYPTION_KEYS"])] == [("k1", 32)]
    assert (checked.returncode, checked.stderr.count("ERRORS")) == (0, 0), checked.stderr


def test_a_first_file_for_this_machine_alone_counts_no_proxy(tmp_path: Path) -> None:
    """G8. Nobody stands in front of http://localhost, so a header must not say who the client is."""
    assert first_settings.main(["http://localhost:8000"], tmp_path) == 0
    assert "TRUSTED_PROXY_COUNT" not in written(tmp_path)


def test_the_database_is_asked_for_and_read_back_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """H1. Its password is no argument, which every process of the machine could read."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{DATABASE}\n"))

    assert first_settings.main([ORIGIN, "--ask-database-url"], tmp_path) == 0

    assert written(tmp_path)["DATABASE_URL"] == DATABASE
    assert "PLANTED" not in "".join(capsys.readouterr())


def test_an_older_file_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """K3. Without its keys nothing could be read any more. A link that leads nowhere is not followed either."""
    (tmp_path / ".env").symlink_to(tmp_path / "elsewhere")
    assert first_settings.main([ORIGIN], tmp_path) == 1
    assert not (tmp_path / "elsewhere").exists()

    (tmp_path / ".env").unlink()
    (tmp_path / ".env").write_text("SECRET_KEY=older\n")
    assert first_settings.main([ORIGIN], tmp_path) == 1
    assert (tmp_path / ".env").read_text() == "SECRET_KEY=older\n"
    assert "exists and is left as it is" in capsys.readouterr().err


@pytest.mark.parametrize("origin", ["http://delegation.example", "delegation.example", f"{ORIGIN}/path", ""])
def test_an_address_that_no_start_would_accept_writes_nothing(origin: str, tmp_path: Path) -> None:
    """N10."""
    assert first_settings.main([origin], tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["mysql://PLANTED@db/x", "postgres://u:PLANTED#1@db/x", 'postgres://u:PLANTED"@db/x', ""]
)
def test_a_database_url_that_cannot_be_used_writes_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """H1. The refusal does not repeat the URL."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{url}\n"))

    assert first_settings.main([ORIGIN, "--ask-database-url"], tmp_path) == 1

    assert list(tmp_path.iterdir()) == []
    assert "PLANTED" not in "".join(capsys.readouterr())
