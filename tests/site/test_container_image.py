"""What buildah lets into the image, the product that starts from it, and the probe of its containers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import ROOT, Installation
from tests.machine import missing
from tests.served import KEY, installation_at_a_free_port, serving
from tests.site.test_containers import BUILD, FOLDER
from tests.test_house import project_files

SECRET_KEY = "of-a-copied-product-8fJ2xQm4WZr7sLtKpYdNbEcHfUgAoRiT5qMhVyXwDk"
PLANTED = (
    ".env", ".git/config", "db.sqlite3", "db.sqlite3-wal", "k1.key", "deploy/container/.env",
    "deploy/container/postgresql-password", "deploy/container/tls/delegation.example.key", "accounts/.env",
    "brands/k1.key", "conversations/server.pem", "infrastructure/db.sqlite3-wal", "web/__pycache__/views.pyc",
)  # fmt: skip


def probe(installation: Installation, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run the probe as in a web container, with nothing of the product to import."""
    command = [sys.executable, "-I", str(FOLDER / "health.py")]
    return subprocess.run(command, env=installation.environment | settings, capture_output=True, text=True, check=False)


def test_the_probe_says_whether_the_processes_are_ready(tmp_path: Path) -> None:
    installation = installation_at_a_free_port(tmp_path)
    nobody = probe(installation)
    with serving(installation):
        empty = probe(installation)
    installation.migrate()
    with serving(installation):
        ready, stranger = probe(installation), probe(installation, ALLOWED_HOSTS="other.example")

    assert (nobody.returncode, nobody.stdout) == (1, "ConnectionRefusedError\n")
    assert (empty.returncode, empty.stdout[:4], "database_not_migrated" in empty.stdout) == (1, "503 ", True)
    assert (ready.returncode, ready.stdout) == (0, '200 {"status":"ok"}\n')
    assert (stranger.returncode, stranger.stdout[:4]) == (1, "400 ")
    assert ready.stderr + stranger.stderr + empty.stderr + nobody.stderr == ""


def test_the_probe_sends_a_host_that_is_allowed(tmp_path: Path) -> None:
    """A name below a wildcard is one of the hosts, and so is the name itself."""
    installation = installation_at_a_free_port(tmp_path, ALLOWED_HOSTS=".delegation.example,127.0.0.1")
    installation.migrate()
    with serving(installation):
        assert probe(installation).returncode == 0


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A clone with what an operator's folder has besides."""
    clone = tmp_path / "clone"
    for path in project_files():
        place = clone / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for name in PLANTED:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("PLANTED")
    return clone


def built(context: Path, steps: str, folder: Path) -> Path:
    """Build an image from nothing but the context. Returns the folder with its files."""
    buildah = shutil.which("buildah") or missing("buildah is not installed: what gets into the image was not looked at")
    (folder / "Containerfile").write_text(f"FROM scratch\n{steps}\n")
    own = [f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}", "--storage-driver=vfs"]
    options = [
        "--isolation=chroot",
        f"--output=type=local,dest={folder / 'image'}",
        f"--file={folder / 'Containerfile'}",
    ]
    command = [buildah, *own, "build", *options, str(context)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder / "image"


@pytest.mark.full
def test_nothing_of_the_operator_gets_into_the_image(context: Path, tmp_path: Path) -> None:
    """K3, H1. A whole context is copied, so that the ignore file alone keeps out what is planted."""
    image = built(context, "COPY . /", tmp_path)
    files = [path for path in image.rglob("*") if path.is_file()]
    assert len(files) > 300
    assert [str(path) for path in files if path.read_bytes() == b"PLANTED"] == []
    assert {path.name for path in image.iterdir()} & {".git", ".env", "tests", "docs", "demo"} == set()


@pytest.mark.full
def test_the_product_starts_from_what_the_image_copies(context: Path, tmp_path: Path) -> None:
    steps = "\n".join(line for line in BUILD.splitlines() if line.startswith("COPY"))
    image = built(context, f"WORKDIR /opt\n{steps}", tmp_path)
    bare = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    settings = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEYS": KEY, "PUBLIC_BASE_URL": "https://delegation.example"}
    for arguments in (["check", "--deploy", "--fail-level", "ERROR"], ["migrate", "--no-input", "-v0"]):
        result = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=image / "opt", env=bare | settings, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    assert (image / "opt" / "db.sqlite3").exists()
