"""A brand at its limit: refused before the state is spent, and nobody else waits for it."""

from contextlib import ExitStack
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connections

from brands.models import AuthorizationServer
from conversations.api.flow_problems import problem_of
from conversations.flow.errors import ApiBusy
from conversations.flow.sign_in import MAX_EXCHANGES_PER_SERVER, exchange_slot
from conversations.flow.slots import ServerBusy, call_slot, most_calls
from conversations.models import AuthorizationRequest
from tests.cast import Bot, Browser, code_on, heading_of, make_bot
from tests.fake_authorization_server import FakeAuthorizationServer, TokenRequest

pytestmark = pytest.mark.django_db


def test_a_server_has_four_slots_and_another_server_has_its_own() -> None:
    slots = [exchange_slot(1) for _ in range(MAX_EXCHANGES_PER_SERVER)]
    for slot in slots:
        slot.__enter__()
    try:
        with pytest.raises(ServerBusy), exchange_slot(1):
            pass
        with exchange_slot(2):
            pass
    finally:
        for slot in slots:
            slot.__exit__(None, None, None)
    with exchange_slot(1):
        pass


def test_all_servers_together_leave_half_of_the_threads_free(settings: Any) -> None:
    settings.THREADS = 4
    with exchange_slot(1), exchange_slot(2), pytest.raises(ServerBusy), exchange_slot(3):
        pass


def test_a_process_with_one_thread_has_one_slot(settings: Any) -> None:
    settings.THREADS = 1
    with exchange_slot(1), pytest.raises(ServerBusy), exchange_slot(2):
        pass


def test_sign_ins_take_no_place_of_calls(settings: Any) -> None:
    """P7: of eight requests that may wait, four sign-ins leave four for calls."""
    settings.THREADS = 16
    with exchange_slot(1), exchange_slot(2), exchange_slot(3), exchange_slot(4), call_slot(1), call_slot(1):
        pass


def test_calls_of_one_brand_leave_a_place_for_another_and_half_of_the_threads_free(settings: Any) -> None:
    """P7: with 16 threads four calls, three of them one brand's, and always four exchanges beside them."""
    settings.THREADS = 16
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(call_slot(1))
        with pytest.raises(ServerBusy), call_slot(1):
            pass
        held.enter_context(call_slot(2))
        with pytest.raises(ServerBusy), call_slot(3):
            pass
        for _ in range(MAX_EXCHANGES_PER_SERVER):
            held.enter_context(exchange_slot(1))
        with pytest.raises(ServerBusy), exchange_slot(2):
            pass
    with call_slot(3):
        pass


@pytest.mark.parametrize("threads", [8, 12, 16, 20, 64])
def test_no_brand_takes_the_last_place_of_calls(threads: int, settings: Any) -> None:
    """P7: also with few threads, as long as there are two places."""
    settings.THREADS = threads
    with ExitStack() as held:
        for _ in range(most_calls() * 3 // 4):
            held.enter_context(call_slot(1))
        with pytest.raises(ServerBusy), call_slot(1):
            pass
        held.enter_context(call_slot(2))


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (4, 1), (8, 2), (16, 4), (64, 16)])
def test_a_quarter_of_the_threads_call(threads: int, most: int, settings: Any) -> None:
    """P7."""
    settings.THREADS = threads
    assert most_calls() == most


def test_bots_that_were_refused_together_do_not_come_back_together() -> None:
    """P7: forty bots at an API that hangs all asked again after two seconds, and reads waited behind them."""
    pauses = {problem_of(ApiBusy()).headers["Retry-After"] for _ in range(200)}
    assert pauses == {"2", "3", "4", "5", "6"}


def test_a_slot_is_given_back_after_a_fault() -> None:
    for _ in range(MAX_EXCHANGES_PER_SERVER * 2):
        with pytest.raises(RuntimeError), exchange_slot(1):
            raise RuntimeError


@pytest.mark.django_db(transaction=True)
def test_a_callback_beyond_the_limit_spends_nothing_and_works_a_moment_later(
    ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """B15's one exception: the page of a brand at its limit stays at the callback's address, to be reloaded."""
    queries = []
    for number in range(MAX_EXCHANGES_PER_SERVER + 1):
        bot = make_bot(acme_server.brand, chat=f"web:{number}")
        queries.append(acme_login.authorize(ada.begin(bot.challenge()["url"])))
    hanging, arrived = Event(), list[TokenRequest]()

    def hang(request: TokenRequest) -> None:
        arrived.append(request)
        hanging.wait(100)

    acme_login.on_token_request = hang

    def come_back(query: str) -> None:
        browser = Browser()
        browser.client.cookies = ada.client.cookies
        browser.get(f"{acme_login.redirect_uri}?{query}")
        connections.close_all()

    threads = [Thread(target=come_back, args=(query,)) for query in queries[:-1]]
    for thread in threads:
        thread.start()
    try:
        while len(arrived) < MAX_EXCHANGES_PER_SERVER:
            assert any(thread.is_alive() for thread in threads)
        busy = ada.get(f"{acme_login.redirect_uri}?{queries[-1]}")
    finally:
        hanging.set()
        for thread in threads:
            thread.join()
    assert (busy.status_code, busy["Retry-After"], heading_of(busy)) == (503, "5", "Acme is busy right now")
    assert '<a class="button" href="">' in busy.content.decode()
    assert AuthorizationRequest.objects.filter(claimed_at=None).count() == 1
    acme_login.on_token_request = None
    answer = ada.get(f"{acme_login.redirect_uri}?{queries[-1]}")
    assert code_on(ada.get(answer["Location"]))


def test_a_refusal_does_not_wait_for_a_slot(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """Nobody has to be asked about a denial."""
    acme_login.denies = True
    challenge = acme_bot.challenge()
    url = ada.begin(challenge["url"])
    slots = [exchange_slot(acme_server.pk) for _ in range(MAX_EXCHANGES_PER_SERVER)]
    for slot in slots:
        slot.__enter__()
    try:
        page = ada.get(ada.come_back(url, acme_login)["Location"])
    finally:
        for slot in slots:
            slot.__exit__(None, None, None)
    assert heading_of(page) == "You are not signed in"


def test_a_brand_at_its_limit_takes_no_other_brands_slots(
    acme_bot: Bot,
    rival_bot: Bot,
    ada: Browser,
    rita: Browser,
    acme_login: FakeAuthorizationServer,
    rival_login: FakeAuthorizationServer,
    acme_server: AuthorizationServer,
) -> None:
    acme_url, rival_url = ada.begin(acme_bot.challenge()["url"]), rita.begin(rival_bot.challenge()["url"])
    with ExitStack() as slots:
        for _ in range(MAX_EXCHANGES_PER_SERVER):
            slots.enter_context(exchange_slot(acme_server.pk))
        busy = ada.come_back(acme_url, acme_login)
        assert (busy.status_code, heading_of(busy)) == (503, "Acme is busy right now")
        assert code_on(rita.get(rita.come_back(rival_url, rival_login)["Location"]))
