"""The TypeScript client, compiled once."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.machine import missing

ROOT = Path(__file__).parent.parent
NODE_MODULES = ROOT / "tests" / "sdks" / "node_modules"


@pytest.fixture(scope="session")
def built_typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the package, as `npm pack` finds it after `tsc`."""
    if not shutil.which("node") or not (NODE_MODULES / "typescript").is_dir():
        missing("Node or TypeScript is not installed (make sdks): the TypeScript client was not compiled")
    folder = tmp_path_factory.mktemp("typescript") / "client"
    shutil.copytree(ROOT / "clients" / "typescript", folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (folder / "node_modules").symlink_to(NODE_MODULES)
    done = subprocess.run(
        ["node", NODE_MODULES / "typescript" / "bin" / "tsc", "-p", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return folder
