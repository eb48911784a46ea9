"""The gallery that is committed shows every page there is; what it shows is taken anew by `make gallery`."""

import re

from tests.browser.gallery import (
    IN_HEBREW,
    LAST_PAGES,
    MOST_BYTES,
    OF_THE_DEMO,
    OF_THE_SETUP,
    ON_A_DESK,
    PAGE,
    PICTURES,
)
from tests.browser.states import STATES

AGAIN = "run `make gallery`, and look at what it made"


def test_every_page_is_in_the_gallery() -> None:
    shown = re.findall(r'src="pictures/(\w[\w-]*)\.png"', PAGE.read_text())
    expected = [*STATES, LAST_PAGES, *(f"{name}-desktop" for name in ON_A_DESK), *(f"{name}-he" for name in IN_HEBREW)]
    assert sorted(shown) == sorted(expected), AGAIN
    assert sorted(file.stem for file in PICTURES.iterdir()) == sorted([*expected, *OF_THE_DEMO, *OF_THE_SETUP]), AGAIN


def test_the_pictures_stay_small() -> None:
    assert sum(file.stat().st_size for file in PICTURES.iterdir()) <= MOST_BYTES, AGAIN
