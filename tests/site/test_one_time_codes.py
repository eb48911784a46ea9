"""Codes of authenticator apps: accepted half a minute early or late, and once (G10)."""

from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core.cache import cache

from accounts.one_time_codes import use_code
from tests.site.test_second_factor_demand import enrol
from tests.site.test_sign_in import INDEX, SignIn, code_for

pytestmark = pytest.mark.django_db

NOON = 1_800_014_400
REFUSED = "Incorrect code."


@pytest.fixture(autouse=True)
def requires_second_factor(settings: Any) -> None:
    settings.REQUIRE_ADMIN_MFA = True


@pytest.fixture
def secret(acme_admin: Any) -> str:
    """Return what the app of Acme's admin makes its codes from."""
    made: str = generate_totp_secret()
    TOTP.activate(acme_admin, made)
    return made


def types(code: str) -> Any:
    """Return what the second step of a sign-in answers; the browser is a new one."""
    browser = SignIn()
    return browser.post(browser.sign_in()["Location"], code=code)


@pytest.mark.parametrize(("half_minutes_ago", "status"), [(2, 200), (1, 302), (0, 302), (-1, 302), (-2, 200)])
def test_a_code_is_accepted_half_a_minute_early_or_late(secret: str, half_minutes_ago: int, status: int) -> None:
    """G10, RFC 6238 section 5.2. The bug: what was typed in the last second of its half minute was wrong on arrival."""
    with time_machine.travel(NOON, tick=False):
        answer = types(code_for(secret, half_minutes_ago))
    assert (answer.status_code, REFUSED in answer.content.decode()) == (status, status == 200)


@pytest.mark.parametrize("seconds", [0, 31, 59])
def test_a_used_code_is_a_wrong_code_on_every_worker(secret: str, seconds: int) -> None:
    """G10: also where the cache has forgotten it; another code works."""
    with time_machine.travel(NOON, tick=False) as clock:
        code = code_for(secret)
        assert types(code).status_code == 302
        cache.clear()
        clock.shift(seconds)
        assert REFUSED in types(code).content.decode()
        assert types(code_for(secret, -1)).status_code == 302


def test_a_watched_code_does_not_make_wrong_tries_forgotten(secret: str) -> None:
    """G10. The attack: four guesses, then the watched code, then four more, at a worker that has not seen it used."""
    with time_machine.travel(NOON, tick=False):
        assert types(code_for(secret)).status_code == 302
        cache.clear()
        answers = [types(code).content.decode() for code in [*("000000",) * 4, code_for(secret), *("000000",) * 2]]
    assert [REFUSED in answer for answer in answers] == [*(True,) * 6, False]
    assert "Too many failed login attempts" in answers[-1]


def test_an_earlier_code_is_refused_after_a_later_one(secret: str) -> None:
    """G10: an onlooker keeps the code that its owner never sent."""
    with time_machine.travel(NOON, tick=False):
        assert types(code_for(secret)).status_code == 302
        assert REFUSED in types(code_for(secret, 1)).content.decode()


def test_the_code_of_the_enrolment_is_used(acme_admin: Any) -> None:
    """G10: and the half minute that follows has one of its own."""
    with time_machine.travel(NOON, tick=False) as clock:
        owner = SignIn()
        owner.sign_in()
        secret = enrol(owner)
        assert owner.get(INDEX).status_code == 200
        assert REFUSED in types(code_for(secret)).content.decode()
        clock.shift(30)
        assert types(code_for(secret)).status_code == 302


def test_a_confirmation_uses_a_code_as_a_sign_in_does(secret: str) -> None:
    """G10: both pages, with the spaces that an app shows."""
    with time_machine.travel(NOON, tick=False):
        browser = SignIn()
        browser.post(browser.sign_in()["Location"], code=code_for(secret, 1))
        confirm = "/admin/account/second-factor/reauthenticate/"
        assert REFUSED in browser.post(confirm, code=code_for(secret, 1)).content.decode()
        spaced = f"{code_for(secret)[:3]} {code_for(secret)[3:]}"
        assert browser.post(confirm, code=spaced).status_code == 302


def test_two_requests_at_once_use_a_code_once(secret: str) -> None:
    """G10: both have read the row before either has written it."""
    first, second = Authenticator.objects.get(), Authenticator.objects.get()
    with time_machine.travel(NOON, tick=False):
        assert [use_code(row, secret, code_for(secret)) for row in (first, second)] == [True, False]


def test_a_clock_that_was_ahead_locks_nobody_out(secret: str) -> None:
    """G10: a period that was noted in the future does not count."""
    with time_machine.travel(NOON, tick=False) as clock:
        assert types(code_for(secret)).status_code == 302
        clock.move_to(NOON - 3600)
        assert types(code_for(secret)).status_code == 302
