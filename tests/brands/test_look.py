"""Theme colours that stay readable in light and dark mode, support contacts, and descriptions of scopes."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from brands.branding import (
    DARK_BACKGROUNDS,
    DEFAULT_ACCENT,
    LIGHT_BACKGROUNDS,
    contrast,
    described,
    text_colour_on,
    theme_of,
    validate_scope_descriptions,
    validate_support_contact,
)
from brands.models import Brand

COLOURS = st.integers(min_value=0, max_value=0xFFFFFF).map(lambda number: f"#{number:06x}")
ORDERS = {"orders.read": {"en": "see your orders", "de": "Ihre Bestellungen sehen"}, "orders.write": "place orders"}


def test_contrast_is_what_wcag_says() -> None:
    assert contrast("#000000", "#ffffff") == contrast("#ffffff", "#000000") == 21
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.542, abs=0.001)


@given(COLOURS)
def test_every_colour_can_be_read_as_a_surface_and_as_text(colour: str) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11: on the button, and as a link or border on each ground, light and dark."""
    assert contrast(text_colour_on(colour), colour) >= 4.5
    _, light, dark = re.findall("--(?:fill|accent):(#[0-9a-f]{6})", theme_of(colour))
    assert min(contrast(light, ground) for ground in LIGHT_BACKGROUNDS) >= 4.5
    assert min(contrast(dark, ground) for ground in DARK_BACKGROUNDS) >= 7


def test_a_page_without_a_brand_has_the_default_colours_in_the_dark_too() -> None:
    """An error page's second button used to look switched off there: 4.5:1."""
    dark = (Path(settings.BASE_DIR) / "static" / "consumer.css").read_text().split("prefers-color-scheme: dark")[1]
    shown = re.search(r"--accent: (#[0-9a-f]{6});", dark)
    assert shown
    assert theme_of(DEFAULT_ACCENT).endswith(f"--accent:{shown[1]}}}}}")


def test_a_colour_that_can_be_read_already_stays_as_it_is() -> None:
    assert theme_of("#1F4FBF").startswith(":root{--fill:#1f4fbf;--on-fill:#ffffff;--accent:#1f4fbf}")
    assert theme_of("#ffd400").startswith(":root{--fill:#ffd400;--on-fill:#000000;--accent:#")
    assert "--accent:#ffd400" in theme_of("#ffd400").split("@media")[1]


@pytest.mark.parametrize("colour", ["", "red", "#fff", "#12345g", "#123456;}body{display:none", "#1234567"])
def test_what_is_no_colour_reaches_no_stylesheet(colour: str) -> None:
    assert theme_of(colour) == theme_of(DEFAULT_ACCENT)


def test_the_grounds_are_those_of_the_stylesheet() -> None:
    """Otherwise the contrast would be computed against what no page shows."""
    rules = (Path(settings.BASE_DIR) / "static" / "consumer.css").read_text()
    light, dark = rules.split("prefers-color-scheme: dark")
    for text, grounds in ((light, LIGHT_BACKGROUNDS), (dark, DARK_BACKGROUNDS)):
        found = [re.search(rf"--{name}: (#[0-9a-f]+);", text) for name in ("ground", "sheet", "soft")]
        assert [match[1] if match else "" for match in found] == [g if g != "#ffffff" else "#fff" for g in grounds]
        quiet, ink = re.search(r"--quiet: (#\w+)", text), re.search(r"--ink: (#\w+)", text)
        assert quiet
        assert ink
        assert min(contrast(match[1], ground) for match in (quiet, ink) for ground in grounds) >= 4.5


@pytest.mark.parametrize("contact", ["https://acme.example/help", "mailto:help@acme.example", "tel:+49-30-123456"])
def test_support_is_a_page_an_address_or_a_number(contact: str) -> None:
    validate_support_contact(contact)


@pytest.mark.parametrize(
    "contact",
    [
        "javascript:alert(1)",
        "http://acme.example/help",
        "mailto:help@acme.example?cc=evil@rival.example",
        "mailto:help@acme.example\nBcc: x",
        "tel:12",
        "https://user@acme.example/",
        "data:text/html,x",
    ],
)
def test_support_is_nothing_else(contact: str) -> None:
    with pytest.raises(ValidationError):
        validate_support_contact(contact)


SPELLED = {
    "help@acme.example": "mailto:help@acme.example",
    " Help@Acme.example ": "mailto:Help@Acme.example",
    "MAILTO: help@acme.example": "mailto:help@acme.example",
    "Acme Help <help@acme.example>": "mailto:help@acme.example",
    "+49 30 123456": "tel:+4930123456",
    "+49 (0)30 / 12 34-56": "tel:+4930123456",
    "0049 30 123456": "tel:+4930123456",
    "(030) 123456": "tel:030123456",
    "030.123.456": "tel:030123456",
    "+1 (555) 010-9999": "tel:+15550109999",
    "+33\u00a01\u202f23 45 67 89": "tel:+33123456789",
    "+44 20\u20117946\u20130018": "tel:+442079460018",
    "Tel: 112": "tel:112",
    "tel:+49-30-123456": "tel:+4930123456",
    "acme.example/help": "https://acme.example/help",
    "www.acme.example": "https://www.acme.example",
    "https://acme.example/help": "https://acme.example/help",
}


@pytest.mark.parametrize("typed", SPELLED)
def test_support_is_taken_as_people_write_it(typed: str) -> None:
    """The bug: `help@acme.example` was refused with "The address must begin with https://."."""
    brand = Brand(name="Acme", slug="acme", support_contact=typed)
    brand.clean_fields()
    assert brand.support_contact == SPELLED[typed]
    brand.clean_fields()
    assert brand.support_contact == SPELLED[typed]


@pytest.mark.parametrize(
    "typed",
    [
        "help",
        "+49 30 12 x 5",
        "1-800-FLOWERS",
        "+1234567890123456",
        "12",
        "help@acme.example, other@acme.example",
        "tel:help@acme.example",
        "mailto:+49 30 123456",
        "help@acme.example\nBcc: x@rival.example",
        "+49 30\n123456",
        "Acme <help@acme.example",
        "ftp://acme.example",
        "javascript:alert(1)//acme.example",
        "acme.example:99999999/x y",
    ],
)
def test_whatever_else_is_typed_gets_an_example_of_each(typed: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Brand(name="Acme", slug="acme", support_contact=typed).clean_fields()
    said = (
        "Write an e-mail address such as help@acme.example, a telephone number such as +49 30 123456, or an "
        "address that begins with https://."
    )
    assert refused.value.message_dict == {"support_contact": [said]}


def test_a_scope_is_told_in_the_readers_language_or_not_at_all() -> None:
    assert described("openid orders.read orders.write", ORDERS) == ["see your orders", "place orders"]
    with translation.override("de"):
        assert described("orders.read", ORDERS) == ["Ihre Bestellungen sehen"]
    with translation.override("he"):
        assert described("orders.read", ORDERS) == ["see your orders"]


def test_half_of_what_is_granted_is_never_told_as_the_whole() -> None:
    assert described("openid orders.read admin", ORDERS) == []
    assert described("openid", ORDERS) == described("", ORDERS) == []


@pytest.mark.parametrize(
    "value", [[], "x", {"a": 1}, {"a": ""}, {"a": {}}, {"a": {"xx-": "y"}}, {"a": "b" * 81}, {"a": "\n"}]
)
def test_descriptions_are_scopes_with_words(value: Any) -> None:
    with pytest.raises(ValidationError):
        validate_scope_descriptions(value)
    validate_scope_descriptions(ORDERS)
