"""The button before Django's handler and the full way give the same answer, cookies and log lines, and store the same.

B1, B2, B3, B16, B22, G8, H6: requests of every kind, rows in every state, clocks at every edge.
"""

from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import time_machine
from django.db import connection
from hypothesis import strategies as st

from brands.models import AuthorizationServer, Brand, WebhookEndpoint
from conversations.models import AuthorizationRequest, Challenge, ChallengeStatus, Conversation
from infrastructure import rate_limits
from infrastructure.models import AuditEvent, RateCounter
from tests.cast import HOST, Bot, Browser
from tests.conversations.test_query_counts import post
from tests.fuzz.both_ways import (
    ABSENT,
    HOSTS,
    LATIN,
    OF_EVERY_REQUEST,
    TIMES,
    Changes,
    at_moment,
    environ_of,
    same_on_both_ways,
    sent,
    stored,
    with_body,
)
from tests.fuzz.cases import fuzzed, rolled_back

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

LINK: Final = "the link's token"
CSRF: Final = "a" * 32
CSRF_COOKIE: Final = f"__Host-csrf={CSRF}"
OLD_COOKIE: Final = "the cookie of a sign-in"
ORIGIN: Final = f"https://{HOST}"


FORM: Final = urlencode({"csrfmiddlewaretoken": CSRF}).encode()
FORMS: Final = st.sampled_from(
    [b"", b"x", b"csrfmiddlewaretoken=", b"csrfmiddlewaretoken=" + b"b" * 32, FORM + b"&x=%00&%ff", b"a=1&" * 1_001]
)
PATHS: Final = [
    *(f"/c/{LINK}{end}" for end in ("/", ".", "\n", "x", "/cancel", "/done")),
    *(f"/C/{LINK}", f"//c/{LINK}", f"/en/c/{LINK}", "/c/", "/c/" + "x" * 27, f"/r/{LINK}"),
]
COOKIES: Final = [
    *(f"{CSRF_COOKIE}; {OLD_COOKIE}", OLD_COOKIE, f"{CSRF_COOKIE}; {OLD_COOKIE}x", f"{CSRF_COOKIE}; a=%00", ABSENT),
    *(f"{CSRF_COOKIE}; __Host-attempt-{'0' * 32}=x", "__Host-csrf=x", f"{CSRF_COOKIE}; a=\xe9", f"{CSRF_COOKIE};;="),
]
REQUESTS: Final[st.SearchStrategy[Changes]] = st.one_of(
    FORMS.map(with_body),
    sent("REQUEST_METHOD", "GET", "post", "PUT", "HEAD"),
    sent("PATH_INFO", *PATHS, also=LATIN.map(lambda text: f"/c/{text}")),
    sent("HTTP_HOST", *HOSTS),
    sent("HTTP_COOKIE", *COOKIES),
    sent("HTTP_COOKIE", *COOKIES),
    sent("HTTP_ORIGIN", ORIGIN, "null", "https://rival.example", "", "x"),
    sent("HTTP_REFERER", f"{ORIGIN}/", "https://rival.example/", "", "x", "http://["),
    sent("HTTP_SEC_FETCH_SITE", "same-origin", "cross-site", "none"),
    sent("HTTP_X_CSRFTOKEN", CSRF, "x"),
    sent("QUERY_STRING", "x=1", "x=%00", "x=\xff"),
    sent("CONTENT_TYPE", "application/json", "multipart/form-data; boundary=x", "text/plain", "", ABSENT),
    sent("CONTENT_TYPE", "application/x-www-form-urlencoded; charset=utf-16", "APPLICATION/x-www-form-urlencoded"),
    sent("CONTENT_LENGTH", "1", "0", "-1", "x", "", ABSENT),
    sent("HTTP_X_FORWARDED_FOR", "10.0.0.1", "x", "10.0.0.1, 2001:db8::1"),
    sent("wsgi.url_scheme", "http"),
    sent("SCRIPT_NAME", "/prefix"),
    OF_EVERY_REQUEST,
)
ROWS: Final[st.SearchStrategy[tuple[Any, Changes]]] = st.one_of(
    stored(Brand, "is_active", False),
    stored(AuthorizationServer, "is_active", False),
    stored(AuthorizationServer, "scope", "", "openid orders.read"),
    stored(AuthorizationServer, "dpop_bound_access_tokens", True),
    stored(
        AuthorizationServer, "authorization_endpoint", "https://login.acme.example/a?b=c", "https://x.example/\u00e9"
    ),
    stored(Challenge, "status", *ChallengeStatus.values),
    stored(Challenge, "expires_at", also=TIMES),
    stored(Challenge, "scope", "", "orders.read", "a b"),
    stored(Challenge, "max_age", 0, 60),
    stored(Challenge, "acr_values", "urn:acme:loa:2"),
    stored(Conversation, "closed_at", None, also=TIMES),
    stored(Conversation, "session", 2),
    stored(AuthorizationRequest, "finished_at", also=TIMES),
    stored(AuthorizationRequest, "claimed_at", also=TIMES),
    stored(AuthorizationRequest, "cookie_digest", b"", b"x" * 40),
    stored(WebhookEndpoint, "is_active", True),
)


@pytest.fixture
def link(acme_bot: Bot, ada: Browser, acme: Brand, acme_server: AuthorizationServer) -> dict[str, str]:
    """Return what stands for the link, and for the cookie of a browser that has begun there.

    Both ways compile their statements before anything is compared, since that draws random bytes.
    """
    WebhookEndpoint.objects.create(
        brand=acme, url="https://bots.acme.example/", secret_ciphertext=b"x", events=["*"], is_active=False
    )
    url = acme_bot.challenge()["url"]
    ada.begin(url)
    post(ada, url)
    name = next(name for name in ada.client.cookies if name.startswith("__Host-attempt-"))
    return {LINK: url.rpartition("/")[2], OLD_COOKIE: f"{name}={ada.client.cookies[name].value}"}


@fuzzed(
    150, 10_000, changes=st.lists(REQUESTS, max_size=3), rows=st.lists(ROWS, max_size=2), later=TIMES,
    most=st.sampled_from([1, 60, 60, 60]),
)  # fmt: skip
def test_any_press_of_any_button_at_any_moment(
    link: dict[str, str],
    dice: dict[int, Any],
    answered_fast: list[int],
    monkeypatch: pytest.MonkeyPatch,
    changes: list[Changes],
    rows: list[tuple[Any, Changes]],
    later: timedelta,
    most: int,
) -> None:
    challenge, told_before = Challenge.objects.get(), len(connection.run_on_commit)
    own = {
        "REQUEST_METHOD": "POST", "PATH_INFO": f"/c/{LINK}", "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "HTTP_COOKIE": CSRF_COOKIE, "HTTP_REFERER": f"{ORIGIN}/", "HTTP_AUTHORIZATION": ABSENT, **with_body(FORM),
    }  # fmt: skip
    environ = environ_of(changes, {}, own)
    for name, value in link.items():
        environ = {key: old.replace(name, value) if isinstance(old, str) else old for key, old in environ.items()}

    def look() -> list[Any]:
        dice.clear()
        for _, told, *_ in connection.run_on_commit[told_before:]:
            told()
        tables = [
            [without_numbers(row) for row in model.objects.order_by("pk").values()]
            for model in (Challenge, AuthorizationRequest, AuditEvent)
        ]
        return [sorted(RateCounter.objects.values_list("key", "times")), *tables]

    limit = rate_limits.Limit("pages-per-link", most, 60)
    with (
        rolled_back(),
        monkeypatch.context() as patched,
        time_machine.travel(challenge.issued_at + max(later, timedelta(0)), tick=False),
    ):
        patched.setattr(rate_limits, "PAGES_PER_LINK", limit)
        for model, columns in rows:
            model.objects.update(**{name: at_moment(value, challenge.expires_at) for name, value in columns.items()})
        dice.clear()
        same_on_both_ways(environ, answered_fast, monkeypatch, look)


def without_numbers(row: Any) -> dict[str, Any]:
    """Leave out the number, which the database gives out once, and the request's id."""
    kept = {name: value for name, value in row.items() if name not in {"id", "request_id"}}
    return {name: bytes(value) if isinstance(value, memoryview) else value for name, value in kept.items()}
