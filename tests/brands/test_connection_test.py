"""The admin's connection test: every failure has the same message and duration, and no server text is shown (N9)."""

import socket
import time
from typing import Any

import pytest

from brands import doctor
from brands.models import AuthorizationServer
from infrastructure.models import RateCounter
from oauth_client import transport
from tests.admin_pages import AdminBrowser

pytestmark = pytest.mark.django_db

NO = "No answer: the address is wrong, or its server is not reachable, slow, or not trusted over TLS."


@pytest.fixture
def browser(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


def press(browser: AdminBrowser, *servers: AuthorizationServer) -> list[str]:
    page = browser.run(AuthorizationServer, "test_connection", *servers)
    assert "planted" not in page.content.decode()
    return [str(message) for message in page.context["messages"]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """Report a failure after one second instead of five."""
    monkeypatch.setattr(doctor, "SECONDS_UNTIL_NO", 1.0)
    return 1.0


def fail_with(monkeypatch: pytest.MonkeyPatch, error: type[transport.OutboundError], seconds: float) -> None:
    def get(url: str) -> None:
        time.sleep(seconds)
        raise error(f"planted: {url}")

    monkeypatch.setattr(transport, "get", get)


def test_a_server_that_answers_is_told_at_once(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: Any
) -> None:
    """N9: whatever the status and the body are; neither is shown."""
    started = time.monotonic()
    assert press(browser, acme_server) == ["The server answers."]
    assert time.monotonic() - started < doctor.SECONDS_UNTIL_NO


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (transport.EndpointBlocked, 0.0),
        (transport.EndpointUnreachable, 0.05),
        (transport.ResponseTooLarge, 0.2),
        (transport.EndpointTimeout, 3.0),
    ],
)
def test_every_no_is_the_same_sentence_after_the_same_time(
    browser: AdminBrowser,
    acme_server: AuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    quick: float,
    error: type[transport.OutboundError],
    seconds: float,
) -> None:
    """N9: blocked, refused, too large and timed out are one thing, by word and by stopwatch."""
    fail_with(monkeypatch, error, seconds)
    started = time.monotonic()
    assert doctor.server_answers(acme_server) is False
    assert quick <= time.monotonic() - started < quick + 0.25
    assert press(browser, acme_server) == [NO]


def test_a_closed_port_and_a_blocked_address_look_alike(
    acme_server: AuthorizationServer, quick: float, settings: Any
) -> None:
    """N9: for real: nothing listens on the one, and the other is not called."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        acme_server.jwks_uri = f"http://127.0.0.1:{free.getsockname()[1]}/jwks"
    for allowed in (True, False):
        settings.ALLOW_LOCAL_ENDPOINTS = allowed
        started = time.monotonic()
        assert doctor.server_answers(acme_server) is False
        assert quick <= time.monotonic() - started < quick + 0.25


@pytest.mark.usefixtures("one_window")
def test_it_is_limited_for_each_admin(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: Any, rival_admin: Any
) -> None:
    """N9, G8: ten in ten minutes, counted in the shared store."""
    said = [press(browser, acme_server)[0] for _ in range(11)]
    assert said[:10] == ["The server answers."] * 10
    assert said[10].startswith("Too many tests: wait ")
    assert list(RateCounter.objects.values_list("times", flat=True)) == [11]


def test_it_is_for_one_server_of_ones_own(
    browser: AdminBrowser, acme_server: AuthorizationServer, rival_server: AuthorizationServer, acme_login: Any
) -> None:
    """N9, J6: another brand's row is not there, and two at once are not tested."""
    assert press(browser, acme_server, rival_server) == ["The server answers."]
    assert press(browser, rival_server) == ["Select one authorization server."]
    assert RateCounter.objects.get().times == 1


def test_a_get_does_nothing(browser: AdminBrowser, acme_server: AuthorizationServer) -> None:
    """N9: only a POST with the form's own token."""
    browser.get("/admin/brands/authorizationserver/", action="test_connection", _selected_action=acme_server.pk)
    assert RateCounter.objects.count() == 0
