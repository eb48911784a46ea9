"""How many generated inputs a test gets, and strategies for them.

The usual suite tries a few, always the same. `HYPOTHESIS_PROFILE=long` tries many, different ones each time, and fails
a test that tried fewer than it promises.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final
from urllib.parse import quote

import pytest
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversations.models import AccessToken, AuthorizationRequest, Challenge, Conversation
from infrastructure import rate_limits
from tests.cast import HOST

LONG: Final = os.environ.get("HYPOTHESIS_PROFILE") == "long"
ALL_CHECKS: Final = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

# One for all cases: each new client loads all middleware and static files again, which takes 20 ms.
_CLIENT: Final = Client(SERVER_NAME=HOST)

Test = Callable[..., None]


def fuzzed(few: int, many: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Test], Test]:
    """Give a test this many generated inputs. `counted.cases` is the number that it has seen."""

    def decorate(test: Test) -> Test:
        @wraps(test)
        def counted(*arguments: Any, **options: Any) -> None:
            counted.cases += 1  # type: ignore[attr-defined]  # a function's own counter
            test(*arguments, **options)

        counted.cases, counted.promised = 0, many  # type: ignore[attr-defined]
        examples = settings(
            max_examples=many if LONG else few,
            deadline=None,
            database=None,
            derandomize=not LONG,
            suppress_health_check=ALL_CHECKS,
        )
        # A failing case that is long to print must not be hidden by this warning.
        quiet = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
        tried: Test = quiet(examples(given(**strategies)(counted)))
        return tried

    return decorate


@contextmanager
def rolled_back() -> Iterator[None]:
    """Roll back all writes of the block, so that no case sees another's rows or used-up limits."""
    rate_limits.reset_in_process()
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def send(method: str, path: str, body: bytes = b"", content_type: str = "", **environment: str) -> Any:
    """Send a request from a new browser or bot, without cookies of earlier ones."""
    _CLIENT.cookies.clear()
    return _CLIENT.generic(method, path, body, content_type=content_type, secure=True, **environment)  # type: ignore[arg-type]


def stored_rows() -> list[Any]:
    """The rows that a refusal must not change: a conversation's, and the times of its authorization requests."""
    return [
        list(Conversation.objects.values_list("pk", "closed_at")),
        list(Challenge.objects.values_list("pk", "status", "error", "last_error", "expires_at")),
        list(AuthorizationRequest.objects.values_list("pk", "claimed_at", "finished_at", "error")),
        list(AccessToken.objects.values_list("pk", "confirmed_at", "ended_at")),
    ]


# All kinds of text, including lone surrogates, except where a parser would refuse them first. A bound instead of a
# codec: with that, Hypothesis tries to encode each of a million characters.
ANY_TEXT: Final = st.text(max_size=60) | st.text(alphabet=st.characters(max_codepoint=0x7F), max_size=60)
BROKEN_TEXT: Final = ANY_TEXT | st.text(alphabet=st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=5)
LONG_TEXT: Final = st.integers(1, 20_000).map(lambda length: "x" * length)
NUMBERS: Final = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 1, 1.5, 10**18, 10**400, 2**31, 2**63, 1e308, True, False, float("inf"), float("nan")])
)
JSON_VALUES: Final = st.recursive(
    st.none() | st.booleans() | NUMBERS | BROKEN_TEXT | LONG_TEXT | st.sampled_from(["\ud800", "\0", "a\r\nb"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=6,
)
DEEP_JSON: Final = st.sampled_from([b"[", b'{"a":', b'[{"a":']).map(lambda part: part * 8000)


def as_json(value: Any) -> bytes:
    """Encode as JSON. A lone surrogate becomes an escape, an infinite number `Infinity`."""
    return json.dumps(value).encode()


def is_storable(value: Any) -> bool:
    """Whether both databases take this value in a JSON column that is never NULL.

    None becomes NULL. SQLite refuses infinite numbers, PostgreSQL also the character NUL and lone surrogates.
    """
    try:
        encoded = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return value is not None and b"\\u0000" not in encoded


def percent_encoded(text: str) -> str:
    """Percent-encode a text for a URL. What is not UTF-8 becomes the bytes that a careless client would send."""
    return quote(text, safe="", errors="surrogatepass")
