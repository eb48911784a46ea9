"""Whatever a browser brings to the callback or to a link: one of the few answers that there are, and no fault of ours.

B13, B3, B15, G9: with and without cookies, with the real state and without; what is refused leaves no trace.
"""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import strategies as st

from conversations.models import Challenge
from tests.cast import Bot, Browser
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.fuzz.cases import ANY_TEXT, BROKEN_TEXT, LONG_TEXT, fuzzed, percent_encoded, rolled_back, send, stored_rows

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

NAMES: Final = st.sampled_from(["code", "state", "iss", "error", "error_description", "session_state"])
ERRORS: Final = st.sampled_from(["access_denied", "server_error", "invalid_request", "login_required"])
# REAL stands for what the brand really sent back under that name.
REAL: Final = "\0real"
PARAMETERS: Final = st.lists(st.tuples(NAMES | ANY_TEXT, st.just(REAL) | BROKEN_TEXT | LONG_TEXT | ERRORS), max_size=6)
# Mostly a good answer with something on top, so that cases get past the first check.
QUERIES: Final = st.tuples(st.sampled_from([["code", "state", "iss"], ["state"], ["state", "iss"], []]), PARAMETERS)
RAW_QUERIES: Final = st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=255), max_size=80)
COOKIES: Final = st.sampled_from(["held", "none", "garbage", "many"])
PATHS: Final = st.sampled_from(["", "/done", "/cancel", "/undo", "/other-browser", "/", "/done/"])


def cookie_header(kind: str, held: str) -> str:
    """Return what a browser of this kind sends along."""
    name = held.partition("=")[0]
    many = "; ".join(f"__Host-attempt-{number:032x}=x" for number in range(40))
    return {"held": held, "none": "", "garbage": f'{name}="\\000\xff"; ;=;__Host-attempt-=x', "many": many}[kind]


def begun(bot: Bot, browser: Browser, login: FakeAuthorizationServer) -> tuple[str, dict[str, str], str]:
    """Begin a sign-in; return its link, the query of the brand's answer, and the cookie as a browser sends it."""
    challenge = bot.challenge()
    query = dict(parse_qsl(login.authorize(browser.begin(challenge["url"]))))
    (cookie,) = [f"{name}={morsel.value}" for name, morsel in browser.client.cookies.items() if "attempt" in name]
    return str(challenge["url"]), query, cookie


def written(query: tuple[list[str], list[tuple[str, str]]], real: dict[str, str]) -> str:
    """Write a query down, with the real values in their places."""
    names, more = query
    pairs = [(name, REAL) for name in names] + more
    return "&".join(
        f"{percent_encoded(name)}={percent_encoded(real.get(name, '') if value == REAL else value)}"
        for name, value in pairs
    )


@pytest.fixture
def brought(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> Callable[..., None]:
    """Return a function that brings a query to the callback and judges the answer."""
    link, real, held = begun(acme_bot, ada, acme_login)
    path, link_path = urlsplit(acme_login.redirect_uri).path, urlsplit(link).path

    def bring(query: str, cookies: str) -> None:
        before = stored_rows()
        answer = send("GET", path, QUERY_STRING=query, HTTP_COOKIE=cookie_header(cookies, held))
        assert answer.status_code in {303, 400}, answer
        where = answer.headers.get("Location", "").removesuffix("#")
        assert where in {"", "/c/", *(f"{link_path}/{page}" for page in ("other-browser", "not-completed", "done"))}
        if not where.endswith("/done"):
            assert stored_rows() == before
        elif cookies != "held":
            pytest.fail("another browser saw the result")
        assert not Challenge.objects.filter(last_error="internal_error").exists()

    bring.real = real  # type: ignore[attr-defined]  # what the brand sent back
    return bring


@fuzzed(100, 7_000, query=QUERIES, cookies=COOKIES)
def test_any_parameters_at_the_callback(
    brought: Any, query: tuple[list[str], list[tuple[str, str]]], cookies: str
) -> None:
    with rolled_back():
        brought(written(query, brought.real), cookies)


@fuzzed(40, 3_000, query=RAW_QUERIES, cookies=COOKIES)
def test_any_bytes_as_a_query_at_the_callback(brought: Any, query: str, cookies: str) -> None:
    with rolled_back():
        brought(query, cookies)


@pytest.fixture
def link_and_cookie(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> tuple[str, str]:
    """Return the path of a link whose sign-in has begun, and the cookie of its browser."""
    link, _, held = begun(acme_bot, ada, acme_login)
    return urlsplit(link).path, held


@fuzzed(
    80,
    6_000,
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"]),
    token=st.none() | ANY_TEXT | BROKEN_TEXT,
    rest=PATHS,
    query=RAW_QUERIES,
    cookies=COOKIES,
)
def test_any_link(
    link_and_cookie: tuple[str, str], method: str, token: str | None, rest: str, query: str, cookies: str,
) -> None:  # fmt: skip
    """G9, B6, B16: a made-up token, or the real one with anything else about the request made up."""
    with rolled_back():
        path = link_and_cookie[0] if token is None else f"/c/{percent_encoded(token)}"
        before = stored_rows()
        answer = send(method, path + rest, QUERY_STRING=query, HTTP_COOKIE=cookie_header(cookies, link_and_cookie[1]))
        assert answer.status_code in {200, 303, 400, 404, 405}
        where = answer.headers.get("Location", "/c/")
        assert where.startswith(("/c/", "https://login.acme.example/authorize?"))
        if token is not None or method != "POST":
            assert stored_rows() == before
