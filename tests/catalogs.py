"""The translation catalogs: the sources' sentences, each language's translations, and `python -m tests.catalogs`.

That command adds new sentences to every `django.po`, removes old ones, and compiles each `django.mo`. Both files are
committed, so that an installation needs no tool for them.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT: Final = Path(__file__).parent.parent
# A fixed header, so that a catalog changes only if its sentences change.
_DATE: Final = datetime(2026, 1, 1, tzinfo=UTC)
LANGUAGES: Final = ("de", "fr", "es", "pt_BR", "he")


def sources() -> Iterator[tuple[str, int, str]]:
    """Yield file, line and sentence of every text for consumers and bots."""
    templates = ROOT / "templates"
    pages = [templates / "base.html", *(templates / "consumer").glob("*.html"), *(templates / "errors").glob("*.html")]
    for path in sorted([*pages, ROOT / "conversations" / "pages.py", *(ROOT / "conversations" / "api").glob("*.py")]):
        text = templatize(path.read_text()) if path.suffix == ".html" else path.read_text()
        for line, message, _, _ in extract("python", BytesIO(text.encode()), {"gettext": None}):
            assert isinstance(message, str), message
            yield str(path.relative_to(ROOT)), line, message


def sentences() -> set[str]:
    return {message for _, _, message in sources()}


def folder(language: str) -> Path:
    """The folder of a language's catalog."""
    return ROOT / "locale" / language / "LC_MESSAGES"


def catalog(language: str) -> Catalog:
    """A language's catalog as committed."""
    with (folder(language) / "django.po").open("rb") as file:
        return read_po(file, locale=language)


def compiled(language: str) -> Catalog:
    """The compiled catalog, as Django reads it."""
    with (folder(language) / "django.mo").open("rb") as file:
        return read_mo(file)


def renew(language: str) -> list[str]:
    """Update a language's files from the sources. Returns the sentences without a translation."""
    known = catalog(language) if (folder(language) / "django.po").exists() else Catalog(locale=language)
    words = {str(message.id): message.string for message in known if message.id}
    names = {"project": "Consumer Delegation", "version": "1", "msgid_bugs_address": "-", "last_translator": "-"}
    renewed = Catalog(language, language_team="-", creation_date=_DATE, revision_date=_DATE, fuzzy=False, **names)
    renewed.header_comment = f"# What consumers read and bots pass on, in the language {language}."
    for path, _, message in sources():
        renewed.add(message, words.get(message, ""), locations=[(path, 1)])
    folder(language).mkdir(parents=True, exist_ok=True)
    with (folder(language) / "django.po").open("wb") as file:
        write_po(file, renewed, width=120, include_lineno=False, sort_by_file=True)
    with (folder(language) / "django.mo").open("wb") as file:
        write_mo(file, renewed)
    return [str(message.id) for message in renewed if message.id and not message.string]


if __name__ == "__main__":
    for name in LANGUAGES:
        for missing in renew(name):
            sys.stdout.write(f"{name}: {missing}\n")
