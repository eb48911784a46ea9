"""How a page looks at the first glance: its sign says success, refusal, trouble, or stopped for safety."""

import re

import pytest
from django.conf import settings

TEMPLATES = settings.BASE_DIR / "templates"
SIGNS = {
    "success": {"signed_in"},
    "refusal": {"denied", "withdrawn", "replaced", "too_late", "link_no_longer_works", "elsewhere"},
    "trouble": {
        *("cannot_sign_in", "not_answering", "not_completed", "missing_permission", "server_busy", "start_again"),
        *("other_browser", "400", "403", "404", "429", "500", "503"),
    },
    "stopped": {
        *("not_me", "undone", "too_many_codes", "other_conversation", "other_person", "over", "receipt_over"),
        "assurance_not_met",
    },
    # Pages in the middle of something, or that say what may be done.
    "": {"link", "front_page", "completion_code", "back_to_chat", "one_moment", "receipt"},
}
SHAPES = ("success", "refusal", "trouble", "stopped")


def sign_of(text: str) -> str:
    found = re.search(r"consumer/mark_(\w+)\.html", text)
    return found[1] if found else ""


def test_every_page_has_the_sign_of_what_it_says() -> None:
    files = [file for folder in ("consumer", "errors") for file in (TEMPLATES / folder).iterdir()]
    pages = {file.stem: sign_of(file.read_text()) for file in files if "{% extends" in file.read_text()}
    assert pages == {page: sign for sign, named in SIGNS.items() for page in named}


def test_signs_differ_in_shape_and_in_both_modes_in_colour() -> None:
    """WCAG 1.4.1: never by colour alone."""
    shapes = {(TEMPLATES / "consumer" / f"mark_{sign}.html").read_text().partition(">")[2] for sign in SHAPES}
    light, dark = (settings.BASE_DIR / "static" / "consumer.css").read_text().split("prefers-color-scheme: dark", 1)
    colours = [re.findall(rf"--({'|'.join(SHAPES)}): (#[0-9a-f]{{6}})", mode) for mode in (light, dark)]
    assert len(shapes) == len(SHAPES)
    assert [len(set(dict(found).values())) for found in colours] == [len(SHAPES)] * 2


@pytest.mark.parametrize("page", sorted({page for named in SIGNS.values() for page in named}))
def test_a_page_has_one_primary_action_at_most(page: str) -> None:
    """What is drawn as a primary button: a `<button>` or `.button` without the class `second`."""
    folder = "errors" if page.isdigit() else "consumer"
    text = (TEMPLATES / folder / f"{page}.html").read_text()
    for part in ("go_back", "try_again_form", "undo_form"):
        text = text.replace(
            f'{{% include "consumer/{part}.html" %}}', (TEMPLATES / "consumer" / f"{part}.html").read_text()
        )
    primary = re.findall(r'<button(?![^>]*second)[^>]*>|<a class="button"[^>]*>', text)
    # Of the two on these pages one is hidden: by the script, or because there is no chat page to go back to.
    alternatives = {"completion_code": 2, "signed_in": 2}
    assert len(primary) <= alternatives.get(page, 1), primary
