"""What the documents have to tell people, and that what they point at is there: no other check reads them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from django.core.management import get_commands

from tests.test_house import PRODUCT, ROOT, modules, named, project_files

LINK: Final = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
CODE: Final = re.compile(r"^```.*?^```$|^  ```.*?^  ```$", re.MULTILINE | re.DOTALL)
OWN_FILE: Final = re.compile(r"[\w*-][\w./*-]*\.(?:py|md|toml|ya?ml|html|css|txt|json|conf|sh)")
# What a reader makes, or a server of others has.
OF_THE_READER: Final = frozenset({"acme.toml", "receiver.py", "token.json"})
PARTS: Final = re.compile(r"^\| ([\w.\[\]-]+) \| ([\w.]+) \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)


def documents() -> list[Path]:
    return project_files("*.md")


def links() -> Iterator[tuple[Path, str]]:
    """Return each link that leads to a file of ours, or into one."""
    for path in documents():
        for found in LINK.findall(CODE.sub("", path.read_text())):
            target = found[0] or found[1]
            if not re.match(r"https?://|mailto:", target):
                yield path, target


def anchors(path: Path) -> set[str]:
    """Return what a heading's address is on the pages that show Markdown: its words, small, joined by hyphens."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_to_a_heading_of_it() -> None:
    found = list(links())
    assert len(found) > 40
    dead = []
    for path, target in found:
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(f"{named(path)}: {target}")
    assert dead == []


def test_every_file_that_a_document_names_is_there() -> None:
    """The bug: after modules had moved, tables led to files of other names, in packages that nobody had listed here."""
    found = list(named_files())
    assert len(found) > 150
    assert [(named(page), name) for page, places, name in found if not any(map(is_there, places))] == []


def named_files() -> Iterator[tuple[Path, list[str], str]]:
    """Yield each file, folder or module of ours in inline code, with the places where it may be.

    A bare name, such as `calls.py`, is beside the last path in its paragraph or row of a table.
    """
    top = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "static"))
    whole = re.compile(rf"(?:{top}|static|\.ci)/[\w./*-]*")
    dotted = re.compile(rf"((?:{'|'.join(PRODUCT)})(?:\.[a-z_]+)+)(?:\.[A-Z]\w*)?")
    for page in documents():
        for paragraph in re.split(r"\n\s*\n|\n(?=\||- |\d+\. )", CODE.sub("", page.read_text())):
            beside = [""]
            for name in re.findall(r"`([^`\s]+)`", paragraph):
                if whole.fullmatch(name):
                    beside = [str(Path(name).parent), "", *beside]
                    yield page, [name], name
                elif module := dotted.fullmatch(name):
                    yield page, modules_of(module[1]), name
                elif OWN_FILE.fullmatch(name) and name not in OF_THE_READER:
                    yield page, [f"{folder}/{name}".lstrip("/") for folder in beside], name


def modules_of(dotted: str) -> list[str]:
    """Return the files that a dotted name may mean: a package, a module, or something in a module."""
    path = dotted.replace(".", "/")
    return [path, f"{path}.py", f"{path.rpartition('/')[0]}.py"]


def is_there(place: str) -> bool:
    return any(ROOT.glob(place.rstrip("/")))


def test_every_command_that_a_document_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    words = "\n".join(path.read_text() for path in documents())
    made = set(re.findall(r"`(?:\w+=\S+ )*make ([a-z-]+)|^make ([a-z-]+)", words, re.MULTILINE))
    managed = set(re.findall(r"manage\.py ([a-z_]+)", words)) - {"init"}  # Django does not know it: no settings yet
    assert (len(made) > 10, len(managed) > 5) == (True, True)
    assert ({first or second for first, second in made} - targets, managed - set(get_commands())) == (set(), set())


# Other requirements than those in the project's own folder, for the same environment.
BESIDE: Final = ("bench/requirements.txt", "tests/key_providers/requirements.txt")


def test_every_requirement_is_explained_with_its_version() -> None:
    explained = dict(found[:2] for found in PARTS.findall((ROOT / "docs" / "dependencies.md").read_text()))
    required: dict[str, str] = {}
    for name in [*(path.name for path in ROOT.glob("requirements*.txt")), *BESIDE]:
        required |= dict(re.findall(r"^([\w.\[\]-]+)==([\w.]+)", (ROOT / name).read_text(), re.MULTILINE))
    for name in ("tests/peers/package.json", "bench/peers/package.json"):
        required |= msgspec.json.decode((ROOT / name).read_bytes())["dependencies"]
    del explained["part"]
    assert explained == required


def test_integrators_are_told_to_open_the_link_in_the_system_browser() -> None:
    """B19: an embedded web view lets its app read the password, and some servers block it."""
    words = " ".join((ROOT / "docs" / "bot-developer.md").read_text().split())
    assert "**Open the link in the system browser**" in words
    assert "embedded web view" in words
    assert "RFC 8252 section 8.12" in words


def test_the_readme_says_how_long_each_run_of_the_tests_takes() -> None:
    timed = dict(re.findall(r"^\| `([^`]+)` \| .* \| (.*\w) \|$", (ROOT / "README.md").read_text(), re.MULTILINE))
    runs = {"make demo", "make test", "make test-served", "make test-full", ".ci/run", ".ci/full"}
    assert runs <= timed.keys()
    assert [name for name in timed if name.startswith(".ci/") and not (ROOT / name).exists()] == []


def test_the_readme_leads_each_reader_on() -> None:
    pages = {target for path, target in links() if path == ROOT / "README.md"}
    readers = {f"docs/{name}.md" for name in ("bot-developer", "brand-admin", "operator", "security-review")}
    assert readers <= pages


def test_diagrams_can_be_drawn() -> None:
    """A semicolon ends a statement of Mermaid's: in the middle of a note, it left an error where the diagram was."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    diagrams = re.findall(r"^```mermaid\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(diagrams) == 2
    assert [line for diagram in diagrams for line in diagram.splitlines() if ";" in line] == []


def test_the_module_map_names_modules_that_are_there() -> None:
    labels = re.findall(r"\[\"([\w.]+)", (ROOT / "docs" / "architecture.md").read_text())
    assert set(PRODUCT) <= {label.partition(".")[0] for label in labels}
    assert [label for label in labels if not any(map(is_there, modules_of(label)))] == []


def test_the_glossary_has_each_word_once_and_only_words_that_are_in_use() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text()
    words = [word for cell in re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)[2:] for word in cell.split(", ")]
    used = "\n".join(path.read_text() for path in [*documents(), *modules(*PRODUCT)] if path.name != "glossary.md")
    plain = re.sub(r"[\W_]+", " ", used).lower()
    assert len(words) == len(set(words)) > 60
    assert [word for word in words if re.sub(r"[\W_]+", " ", word).strip().lower() not in plain] == []
