"""What to do if a program that some tests need is not installed."""

import os
from typing import NoReturn

import pytest


def missing(sentence: str) -> NoReturn:
    """Skip the test on a developer's machine. Fail if `CI=true`, where nothing may be left out."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
