"""What to do when a part of the machine that some tests need is not there."""

import os
from typing import NoReturn

import pytest


def missing(sentence: str) -> NoReturn:
    """Skip by name on a developer's machine; fail under `CI=true`, where nothing may be left out."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
