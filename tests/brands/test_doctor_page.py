"""The doctor's page: for one's own servers, limited, and of our network it tells one sentence after one time (N9)."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from brands import doctor
from brands.doctor import bounded
from brands.doctor.table import ROWS
from brands.models import AuthorizationServer
from brands.server_rules import SUBJECT_ENDPOINTS
from infrastructure.models import RateCounter
from oauth_client import transport
from tests.admin_pages import AdminBrowser, address
from tests.cast import use_openid
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.hostile_token_endpoint import HostileTokenEndpoint, running
from tests.tls import Authority

pytestmark = pytest.mark.django_db

# How long a server hangs, in seconds, if `over` is not set before. Half of it is enough on a busy machine.
HANGING, over = 30.0, threading.Event()


@pytest.fixture
def browser(acme_admin: Any) -> AdminBrowser:
    return AdminBrowser(acme_admin)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Wait a second for a no instead of five, and three for the end. A server hangs until the test has ended."""
    monkeypatch.setattr(bounded, "SECONDS_UNTIL_NO", 1.0)
    monkeypatch.setattr(bounded, "SECONDS_FOR_ALL", 3.0)
    over.clear()
    yield 1.0
    over.set()
    for thread in threading.enumerate():
        if thread.name.startswith("doctor"):
            thread.join(20)


@pytest.fixture
def quick_at_acme(acme_login: FakeAuthorizationServer, quick: float) -> float:
    """Wait no longer either, and let the threads end while the server that they call is still mounted."""
    return quick


@pytest.fixture
def endpoint(tls_authority: Authority) -> Iterator[HostileTokenEndpoint]:
    with running(tls_authority.issue()) as started:
        yield started


def page_of(server: AuthorizationServer) -> str:
    return f"/admin/brands/authorizationserver/{server.pk}/doctor/"


def run(browser: AdminBrowser, server: AuthorizationServer) -> Any:
    return browser.post(page_of(server))


def told(answer: Any) -> list[str]:
    return [shown["finding"].code for shown in answer.context["findings"] or []]


def messages(answer: Any) -> list[str]:
    return [str(message) for message in answer.context["messages"]]


# Whoever may open it.


def test_the_list_and_the_change_page_lead_to_it(browser: AdminBrowser, acme_server: AuthorizationServer) -> None:
    data = {"action": "check_set_up", "_selected_action": [acme_server.pk], "index": "0"}
    answer = browser.post(address(AuthorizationServer, "changelist"), data)
    assert (answer.status_code, answer["Location"]) == (302, page_of(acme_server))
    assert page_of(acme_server) in browser.get(address(AuthorizationServer, "change", acme_server)).content.decode()


def test_opening_it_sends_nothing(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    assert "at most 16 requests" in " ".join(browser.get(page_of(acme_server)).content.decode().split())
    assert (acme_login.token_requests, acme_login.authorization_requests) == ([], [])
    assert RateCounter.objects.count() == 0


@pytest.mark.parametrize("method", ["get", "post"])
def test_another_brands_server_is_not_found(
    method: str, browser: AdminBrowser, rival_server: AuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """J1."""
    assert getattr(browser, method)(page_of(rival_server)).status_code == 404


def test_other_methods_are_refused(browser: AdminBrowser, acme_server: AuthorizationServer) -> None:
    for method in ("put", "delete", "patch"):
        assert getattr(browser.client, method)(page_of(acme_server), secure=True).status_code == 405


@pytest.mark.parametrize("key", ["0", "9" * 18, "9" * 19, "abc", "1/2", "%00", "-1"])
def test_a_key_that_is_none_is_not_found(browser: AdminBrowser, acme_server: AuthorizationServer, key: str) -> None:
    answer = browser.get(f"/admin/brands/authorizationserver/{key}/doctor/")
    assert answer.status_code in {302, 404}  # Django's own page says that nothing has this key


@pytest.mark.parametrize("method", ["get", "post"])
def test_nobody_else_opens_it(method: str, acme_server: AuthorizationServer, client: Any, rival_admin: Any) -> None:
    """J1, J6."""
    assert getattr(client, method)(page_of(acme_server), secure=True).status_code == 302
    assert getattr(AdminBrowser(rival_admin), method)(page_of(acme_server)).status_code == 404


def test_an_old_sign_in_is_enough(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """G10: nothing is changed, and nothing that was typed is sent."""
    browser.sign_in_again(seconds_ago=3600)
    assert "client_accepted" in told(run(browser, acme_server))


def test_it_takes_few_queries(
    browser: AdminBrowser,
    acme_server: AuthorizationServer,
    acme_login: FakeAuthorizationServer,
    django_assert_max_num_queries: Any,
) -> None:
    for ask in (browser.get, browser.post):
        with django_assert_max_num_queries(15):
            assert ask(page_of(acme_server)).status_code == 200


# What it says.


def test_a_server_that_is_well_set_up_is_told_step_by_step(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    started = time.monotonic()
    answer = run(browser, acme_server)
    assert told(answer) == ["metadata_not_found", "client_accepted", "redirect_uri_registered"]
    assert time.monotonic() - started < bounded.SECONDS_UNTIL_NO
    shown = answer.content.decode()
    assert "No problem was found." in shown
    assert shown.count("<strong>Proven</strong>") == 2
    assert "HTTP status 400, error invalid_grant; then HTTP status 401, error invalid_client" in shown


def test_a_problem_leads_to_its_field(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    acme_login.client_secret = "another"
    acme_login.redirect_uri = "https://delegation.test/callback/another"
    shown = run(browser, acme_server).content.decode()
    change = address(AuthorizationServer, "change", acme_server)
    assert f'<a href="{change}#id_client_secret">Client secret</a>' in shown
    assert f'<a href="{change}">Redirect URI</a>' in shown
    assert "2 problems have to be fixed." in shown
    assert 'id="id_client_secret"' in browser.get(change).content.decode()


def test_each_field_that_a_finding_names_is_on_the_form(
    browser: AdminBrowser, acme_server: AuthorizationServer
) -> None:
    form = browser.get(address(AuthorizationServer, "change", acme_server)).content.decode()
    fields = {row.field for row in ROWS.values()} - {"", "redirect_uri"}
    fields |= {step.field for step in doctor._STEPS}
    assert [field for field in fields if f'id="id_{field}"' not in form] == []


def test_what_the_server_writes_is_not_shown(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """N9, H5."""
    acme_login.next_token_answer = (400, {"Content-Type": "text/html", "X-Planted": "planted"}, b"<b>planted</b>")
    assert b"planted" not in run(browser, acme_server).content


# One sentence after one time.


def failing(error: transport.OutboundError, seconds: float) -> Callable[..., None]:
    def send(*_arguments: Any, **_options: Any) -> None:
        over.wait(seconds)
        raise error

    return send


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (transport.EndpointBlocked("planted"), 0.0),
        (transport.EndpointUnreachable("planted"), 0.05),
        (transport.EndpointTimeout("planted"), 0.4),
        (transport.EndpointTimeout("planted"), HANGING),
    ],
)
def test_every_no_is_the_same_sentence_after_the_same_time(
    browser: AdminBrowser,
    acme_server: AuthorizationServer,
    acme_login: FakeAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    quick_at_acme: float,
    error: transport.OutboundError,
    seconds: float,
) -> None:
    """N9: blocked, refused and timed out are one thing, by word, field and stopwatch."""
    use_openid(acme_server, acme_login)
    monkeypatch.setattr(acme_login, "send", failing(error, seconds))
    started = time.monotonic()
    answer = run(browser, acme_server)
    assert quick_at_acme <= time.monotonic() - started < HANGING / 2
    assert told(answer) == ["no_answer"] * 4
    findings = [shown["finding"] for shown in answer.context["findings"]]
    without_userinfo = [step.field for step in doctor._STEPS if step.field not in SUBJECT_ENDPOINTS]
    assert [finding.field for finding in findings] == without_userinfo
    assert {finding.answer for finding in findings} == {""}
    assert b"planted" not in answer.content


@pytest.mark.parametrize("seconds", [0.0, HANGING])
def test_a_no_of_one_address_changes_nothing_about_another(
    browser: AdminBrowser,
    acme_server: AuthorizationServer,
    acme_login: FakeAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    quick_at_acme: float,
    seconds: float,
) -> None:
    """N9: otherwise the steps after it would show how long it took."""
    answers = acme_login.send

    def send(request: Any, *arguments: Any, **options: Any) -> Any:
        if "/.well-known/" in request.url:
            failing(transport.EndpointTimeout("no"), seconds)()
        return answers(request, *arguments, **options)

    monkeypatch.setattr(acme_login, "send", send)
    started = time.monotonic()
    assert told(run(browser, acme_server)) == ["no_answer", "client_accepted", "redirect_uri_registered"]
    assert quick_at_acme <= time.monotonic() - started < HANGING / 2


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_an_address_that_answers_once_and_then_no_more_is_told_at_the_very_end(
    browser: AdminBrowser,
    acme_server: AuthorizationServer,
    acme_login: FakeAuthorizationServer,
    quick_at_acme: float,
    seconds: float,
) -> None:
    """N9: whoever answers for a name can have it lead inside from the second request on."""

    def inside(_: Any) -> None:
        if len(acme_login.token_requests) > 1:
            failing(transport.EndpointBlocked("inside"), seconds)()

    acme_login.on_token_request = inside
    started = time.monotonic()
    assert told(run(browser, acme_server)) == ["metadata_not_found", "no_answer", "redirect_uri_registered"]
    assert 3.0 <= time.monotonic() - started < HANGING / 2


def test_a_run_ends_in_time_whatever_a_server_does(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer, quick_at_acme: float
) -> None:
    """A slow server would hold a thread of ours otherwise."""

    def hold(_: Any) -> None:
        if len(acme_login.token_requests) > 1:
            over.wait(HANGING)

    acme_login.on_token_request = hold
    started = time.monotonic()
    assert told(run(browser, acme_server)) == ["metadata_not_found", "unfinished", "redirect_uri_registered"]
    assert time.monotonic() - started < HANGING / 2


def test_a_closed_port_a_blocked_address_and_a_name_without_an_entry_look_alike(
    browser: AdminBrowser,
    acme_server: AuthorizationServer,
    quick: float,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """N9: for real."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(socket, "getaddrinfo", _no_entry(socket.getaddrinfo))
    for origin, allowed in ((closed, True), (closed, False), ("https://nowhere.acme.example", True)):
        settings.ALLOW_LOCAL_ENDPOINTS = allowed
        point_at(acme_server, f"{origin}/token")
        started = time.monotonic()
        assert told(run(browser, acme_server)) == ["issuer_not_set", "no_answer", "no_answer"]
        assert quick <= time.monotonic() - started < HANGING / 2


def _no_entry(resolve: Callable[..., Any]) -> Callable[..., Any]:
    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".example"):
            raise socket.gaierror(socket.EAI_NONAME, "no entry")
        return resolve(host, *arguments, **options)

    return resolved


def point_at(server: AuthorizationServer, url: str) -> None:
    AuthorizationServer.objects.filter(pk=server.pk).update(issuer="", authorization_endpoint=url, token_endpoint=url)


def test_what_speaks_no_http_is_one_no(
    browser: AdminBrowser,
    acme_server: AuthorizationServer,
    quick: float,
    endpoint: HostileTokenEndpoint,
    settings: Any,
    tls_authority: Authority,
) -> None:
    """N9: an open port that is no web server's."""
    settings.ALLOW_LOCAL_ENDPOINTS, settings.OUTBOUND_CA_FILE = True, str(tls_authority.ca_file)
    endpoint.play(b"220 mail.acme.example ESMTP\r\n")
    point_at(acme_server, endpoint.url)
    started = time.monotonic()
    assert told(run(browser, acme_server)) == ["issuer_not_set", "no_answer", "no_answer"]
    assert quick <= time.monotonic() - started < HANGING / 2


def test_a_certificate_that_is_not_accepted_is_told(
    browser: AdminBrowser, acme_server: AuthorizationServer, endpoint: HostileTokenEndpoint, settings: Any
) -> None:
    """N9: the address was checked to be public before, so this tells what everybody can see."""
    settings.ALLOW_LOCAL_ENDPOINTS = True
    point_at(acme_server, endpoint.url)
    assert told(run(browser, acme_server))[1:] == ["certificate_unknown_ca"] * 2


def test_a_certificate_for_another_name_is_told(
    browser: AdminBrowser, acme_server: AuthorizationServer, settings: Any, tls_authority: Authority
) -> None:
    """N9: as above."""
    settings.ALLOW_LOCAL_ENDPOINTS, settings.OUTBOUND_CA_FILE = True, str(tls_authority.ca_file)
    with running(tls_authority.issue("login.rival.example")) as other:
        point_at(acme_server, other.url)
        assert told(run(browser, acme_server))[1:] == ["certificate_other_name"] * 2


def test_an_error_of_ours_is_no_finding(
    browser: AdminBrowser,
    acme_server: AuthorizationServer,
    acme_login: FakeAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception in a step's thread reaches the request, and with it the log."""
    monkeypatch.setattr(acme_login, "send", failing(ZeroDivisionError(), 0.0))  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        run(browser, acme_server)


# Limits.


@pytest.mark.usefixtures("one_window")
def test_it_is_limited_for_each_admin(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """N9, G8: ten in ten minutes, counted in the shared store; a click more tells nothing."""
    answers = [run(browser, acme_server) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert messages(answers[10])[0].startswith("Too many tests: wait ")
    assert told(answers[10]) == []
    assert list(RateCounter.objects.values_list("times", flat=True)) == [11]


def test_a_process_runs_two_at_once(
    browser: AdminBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """Each holds a thread of the web process, and token reads need those."""
    for _ in range(bounded.RUNS_AT_ONCE):
        bounded._runs.acquire()
    try:
        answer = run(browser, acme_server)
    finally:
        bounded._runs.release(bounded.RUNS_AT_ONCE)
    assert (answer.status_code, told(answer)) == (503, [])
    assert messages(answer) == ["Other checks are running: try again in a minute."]
    assert told(run(browser, acme_server)) != []


def test_a_form_of_another_site_runs_nothing(acme_server: AuthorizationServer, acme_admin: Any, client: Any) -> None:
    client.handler.enforce_csrf_checks = True
    client.force_login(acme_admin)
    assert client.post(page_of(acme_server), secure=True).status_code == 403
