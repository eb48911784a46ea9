"""The wheel and the tarball of the clients: built, installed into an empty environment, and used there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any, Final

import pytest

from tests.demo.stage import Stage
from tests.machine import missing

pytestmark = pytest.mark.full

ROOT: Final = Path(__file__).parent.parent.parent
PIP: Final = ("-m", "pip", "--disable-pip-version-check", "--quiet")


def run(*command: Any, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def installed_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, and install it beside what it needs, as `make sdks` has downloaded it."""
    builder, downloaded = ROOT / ".venv-sdks" / "bin" / "python", ROOT / ".venv-sdks" / "wheels"
    if not downloaded.is_dir():
        missing("the SDKs are not installed (make sdks): the wheel was not built")
    folder = tmp_path_factory.mktemp("wheel")
    run(builder, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT / "clients" / "python")
    (wheel,) = folder.glob("consumer_delegation-*-py3-none-any.whl")
    run(sys.executable, "-m", "venv", folder / "empty")
    python = folder / "empty" / "bin" / "python"
    run(python, *PIP, "install", "--no-index", "--find-links", downloaded, wheel)
    return python


def blocks(language: str) -> list[str]:
    text = (ROOT / "clients" / "python" / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_a_newcomer_follows_the_readme(stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of the first call as it stands there, in an empty environment; Ada signs in when a link appears."""
    downloaded = ROOT / ".venv-sdks" / "wheels"
    if not downloaded.is_dir():
        missing("the SDKs are not installed (make sdks): nobody followed the README")
    shutil.copytree(ROOT / "clients" / "python", tmp_path / "clients" / "python")
    # As `make demo` prints them; packages are those that `make sdks` has downloaded.
    exported = {"BASE": f"{stage.addresses.product}/api/v1", "KEY": stage.bot_key, "ORDERS": stage.orders_url}
    here = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(downloaded), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env = exported | here | offline
    (install, start), (program,) = blocks("sh"), blocks("python")
    begun = monotonic()
    run("/bin/sh", "-e", "-c", install, cwd=tmp_path, env=env)
    (tmp_path / "chat.py").write_text(program)
    with subprocess.Popen(
        start.split(), cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bot:
        try:
            assert bot.stdout
            assert bot.stdin
            link = re.search(r"http://localhost:\d+/c/[\w-]+", bot.stdout.readline())
            assert link
            bot.stdin.write(stage.consumer().gets_code(link[0]) + "\n")
            bot.stdin.flush()
            assert "Walking boots" in bot.stdout.read()
            assert bot.wait(timeout=30) == 0
        finally:
            bot.kill()
    # No limit: what a machine needs is not what a newcomer needs. They have to read, too.
    with capsys.disabled():
        sys.stdout.write(f"\nFrom an empty folder to the orders: {monotonic() - begun:.0f} seconds\n")


def test_the_wheel_has_types(installed_python: Path) -> None:
    site = run(installed_python, "-c", "import consumer_delegation; print(consumer_delegation.__path__[0])").strip()
    assert (Path(site) / "py.typed").exists()
    assert "site-packages" in site


def test_the_tarball_in_an_empty_folder(built_typescript: Path, tmp_path: Path) -> None:
    npm_home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "npm_config_offline": "true"}
    run("npm", "pack", "--pack-destination", tmp_path, cwd=built_typescript, env=npm_home)
    (tarball,) = tmp_path.glob("*.tgz")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    run("npm", "install", "--no-audit", "--no-fund", tarball, cwd=tmp_path, env=npm_home)
    assert {each.name for each in (tmp_path / "node_modules").iterdir()} <= {
        "consumer-delegation",
        ".package-lock.json",
    }
    files = {str(each.relative_to(tmp_path / "node_modules")) for each in (tmp_path / "node_modules").rglob("*.*")}
    assert "consumer-delegation/dist/index.d.ts" in files
    assert not any("/src/" in name for name in files)
    program = (
        "import { conversationIdOf, Delegation, NoAnswer } from 'consumer-delegation';"
        "const delegation = new Delegation({ baseUrl: 'http://127.0.0.1:9/api/v1', botKey: 'key', patience: 0 });"
        "const told = await delegation.conversation(conversationIdOf('spaces/AAAA')).catch((error) => error);"
        "console.log(told instanceof NoAnswer, String(told).includes('key'));"
    )
    assert run("node", "--input-type=module", "-e", program, cwd=tmp_path) == "true false\n"
