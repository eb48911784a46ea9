"""docs/generate-a-client.md: each generator with the settings of the page, and bots with what it generated.

The page's table is what this run has seen. `KEEP_MATRIX=1` writes it.
"""

import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract import CONTRACT, document
from tests.demo.stage import Stage
from tests.machine import missing

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parents[1]
PAGE: Final = ROOT / "docs" / "generate-a-client.md"
# `make generators` installs the Python generators here.
ENVIRONMENT: Final = Path(os.environ.get("GENERATORS_VENV", ROOT / ".venv-generators")).absolute()
NODE_MODULES: Final = FOLDER / "node_modules"
# Where openapi-python-client's package is, as if it were installed.
PACKAGE: Final = "python-client"
MARKS: Final = re.compile(r"(<!-- matrix: .*? -->\n)(.*)(<!-- end of the matrix -->)", re.DOTALL)
BLOCKS: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEPS: Final = [
    "challenge", "conflict", "unchanged", "signed_in", "wrong_code", "token", "closed", "tomorrow",
]  # fmt: skip

pytestmark = pytest.mark.full


@dataclass(frozen=True)
class Generator:
    """A section of the page. `bot` is a program of this folder that uses the output."""

    title: str
    package: str
    output: str
    bot: str = ""

    @property
    def version(self) -> str:
        npm = json.loads((FOLDER / "package.json").read_text())["dependencies"]
        python = dict(re.findall(r"^([\w-]+)==(\S+)$", (FOLDER / "requirements.txt").read_text(), re.MULTILINE))
        return str({**npm, **python}[self.package])

    @property
    def in_typescript(self) -> bool:
        return self.package in json.loads((FOLDER / "package.json").read_text())["dependencies"]


GENERATORS: Final = [
    Generator("hey-api with zod", "@hey-api/openapi-ts", "hey-api", "bot_hey_api.ts"),
    Generator("orval", "orval", "orval", "bot_orval.ts"),
    Generator("openapi-typescript with openapi-fetch", "openapi-typescript", "openapi-typescript.ts"),
    Generator("swagger-typescript-api", "swagger-typescript-api", "swagger-typescript-api"),
    Generator("datamodel-code-generator", "datamodel-code-generator", "delegation_models.py", "bot_pydantic.py"),
    Generator(
        "openapi-python-client",
        "openapi-python-client",
        "python-client/consumer_delegation_client",
        "bot_openapi_python_client.py",
    ),
]
PLAYED: Final = [generator for generator in GENERATORS if generator.bot]


@dataclass
class Workshop:
    """A folder with the contract and the generators, and what each has done there."""

    folder: Path
    seen: dict[str, list[str]] = field(default_factory=dict)

    def run(self, *command: str) -> None:
        """Run a command of a reader's. Fails with its output."""
        paths = [str(NODE_MODULES / ".bin"), str(ENVIRONMENT / "bin"), os.environ["PATH"]]
        environment = {
            "PATH": os.pathsep.join(paths),
            "MYPYPATH": PACKAGE,
            "HOME": str(self.folder),
            "npm_config_offline": "true",
        }
        result = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"

    def follow(self, title: str) -> None:
        """Do what a section of the page says: write its files, run its lines."""
        blocks = BLOCKS.findall(section(title))
        assert blocks
        for language, text in blocks:
            if language == "js":
                name = text.splitlines()[0].removeprefix("// ")
                (self.folder / name).write_text(text)
        for language, text in blocks:
            if language == "sh":
                for line in text.splitlines():
                    self.run("sh", "-c", line)

    def note(self, generator: Generator, what: str) -> None:
        self.seen.setdefault(generator.title, []).append(what)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, requires_node: Path) -> Workshop:
    if not (NODE_MODULES / "orval").is_dir() or not (ENVIRONMENT / "bin" / "datamodel-codegen").exists():
        missing("the generators are not installed (make generators): no client was generated")
    folder = tmp_path_factory.mktemp("generators")
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "openapi.yaml").write_bytes(CONTRACT.read_bytes())
    (folder / "tomorrow.json").write_text(json.dumps(of_tomorrow()))
    for name in ("chat.ts", *(generator.bot for generator in PLAYED)):
        (folder / name).write_text((FOLDER / name).read_text())
    return Workshop(folder)


def of_tomorrow() -> dict[str, Any]:
    """Answers that a later version may give."""
    examples = {name: example["value"] for name, example in document()["components"]["examples"].items()}
    grown = {"member_of_tomorrow": 1, "last_error": "of_tomorrow"}
    return {
        "challenge": examples["challenge_failed"]
        | grown
        | {"error": "of_tomorrow", "same_person_check": "of_tomorrow"},
        "problem": examples["unchallenged"] | grown | {"code": "of_tomorrow", "reason": "of_tomorrow"},
    }


def section(title: str) -> str:
    """The text below a heading of the page."""
    return PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("parser", ["js-yaml", "yaml"])
def test_the_file_is_the_same_for_parsers_of_yaml_1_2(workshop: Workshop, parser: str) -> None:
    read = {"js-yaml": "load", "yaml": "parse"}[parser]
    program = (
        f'import * as parser from "{parser}"; import {{ readFileSync }} from "node:fs";'
        f"const read = parser.{read} ?? parser.default.{read};"
        'process.stdout.write(JSON.stringify(read(readFileSync("openapi.yaml", "utf8"))));'
    )
    found = subprocess.run(
        ["node", "--input-type=module", "-e", program], cwd=workshop.folder, capture_output=True, check=True
    )
    assert json.loads(found.stdout) == document()


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.package)
def test_a_generator_generates_what_compiles(workshop: Workshop, generator: Generator) -> None:
    workshop.follow(generator.title)
    workshop.note(generator, "generates")
    files = [generator.output, *([generator.bot] if generator.bot else [])]
    if generator.in_typescript:
        options = {
            "strict": True, "noEmit": True, "target": "es2022", "module": "esnext", "moduleResolution": "bundler",
            "skipLibCheck": True, "types": ["node"], "lib": ["es2022", "dom", "dom.iterable"],
        }  # fmt: skip
        included = [name if name.endswith(".ts") else f"{name}/**/*.ts" for name in files]
        (workshop.folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": included}))
        workshop.run("tsc", "-p", "tsconfig.json")
    else:
        workshop.run("mypy", "--strict", *files)
    workshop.note(generator, "compiles")


@pytest.mark.parametrize("generator", PLAYED, ids=lambda generator: generator.package)
def test_a_bot_with_the_generated_client_plays_a_conversation(
    workshop: Workshop, stage: Stage, generator: Generator
) -> None:
    """Its conversation id needs encoding. The link is followed by Ada; the rest is the bot's."""
    program = [str(ENVIRONMENT / "bin" / "python"), generator.bot]
    if generator.in_typescript:
        workshop.run("esbuild", generator.bot, "--bundle", "--platform=node", "--format=esm", "--outfile=bot.mjs")
        program = ["node", "bot.mjs"]
    assert list(played(program, workshop.folder, stage)) == STEPS
    workshop.note(generator, "plays")


def played(program: list[str], folder: Path, stage: Stage) -> Iterator[str]:
    """Run a bot and yield its steps. When it has a link, Ada signs in, and her code is typed into the chat."""
    environment = os.environ | {
        "PYTHONPATH": PACKAGE, "BASE": f"{stage.addresses.product}/api/v1", "KEY": stage.bot_key,
        "ORDERS": stage.orders_url, "CHAT": f"room|{secrets.token_hex(4)}@acme;thread=1",
    }  # fmt: skip
    with subprocess.Popen(
        program, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bot:
        assert bot.stdin
        assert bot.stdout
        try:
            for line in bot.stdout:
                told = json.loads(line)
                yield told["step"]
                if "url" in told:
                    bot.stdin.write(stage.consumer().gets_code(told["url"]) + "\n")
                    bot.stdin.flush()
        finally:
            bot.kill()


def test_linters_find_no_error(workshop: Workshop) -> None:
    workshop.follow("Linters")


def test_the_table_of_the_page_is_what_was_seen(workshop: Workshop) -> None:
    rows = ["| generator | version | generates | compiles | plays, takes growth |", "|---|---|---|---|---|"]
    for generator in GENERATORS:
        seen = workshop.seen.get(generator.title, [])
        done = ["yes" if what in seen else "no" for what in ("generates", "compiles")]
        plays = ("yes" if "plays" in seen else "no") if generator.bot else "not tried"
        rows.append(
            f"| [{generator.title}](#{anchor(generator.title)}) | {generator.version} | {' | '.join(done)} | {plays} |"
        )
    table = "\n".join(["", *rows, "", ""])
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("KEEP_MATRIX"):
        PAGE.write_text(MARKS.sub(lambda marks: marks[1] + table + marks[3], text), encoding="utf-8")
        return
    found = MARKS.search(text)
    assert found
    assert found[2] == table


def anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
