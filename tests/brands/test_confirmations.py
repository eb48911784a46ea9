"""Actions of the brands' admin that need a recent sign-in: extending a key, and requests to servers."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from brands.models import AuthorizationServer, BotKey, Brand
from infrastructure import rate_limits
from tests.admin_pages import AdminBrowser, address
from tests.cast import Bot, make_server
from tests.fake_authorization_server import mounted
from tests.limits import pause
from tests.modern_authorization_server import ModernAuthorizationServer

pytestmark = pytest.mark.django_db

ISSUER = "https://login.acme.example"
LATER = {"expires_at_0": "2999-01-01", "expires_at_1": "00:00"}
NEVER = {"expires_at_0": "", "expires_at_1": ""}
ENDED = {"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}


@pytest.fixture
def login() -> Iterator[ModernAuthorizationServer]:
    fake = ModernAuthorizationServer()
    with mounted(fake):
        yield fake


@pytest.fixture
def stale(acme_admin: Any) -> AdminBrowser:
    """A session that signed in eleven minutes ago."""
    browser = AdminBrowser(acme_admin)
    browser.sign_in_again(seconds_ago=11 * 60)
    return browser


def is_asked(answer: Any) -> bool:
    return answer.status_code == 200 and "Confirm that it is you" in answer.content.decode()


@pytest.mark.parametrize("end", [LATER, NEVER], ids=["later", "never"])
def test_an_expired_key_is_not_revived_without_confirming(
    stale: AdminBrowser, acme_bot: Bot, end: dict[str, str]
) -> None:
    """G10, G4: it is worth as much as a new one."""
    BotKey.objects.update(expires_at=timezone.now() - timedelta(days=1))
    page = address(BotKey, "change", BotKey.objects.get())
    assert is_asked(stale.send_changed(page, **end))
    assert acme_bot.in_chat("GET")[0] == 401
    stale.sign_in_again()
    assert stale.send_changed(page, **end).status_code == 302
    assert acme_bot.in_chat("GET")[0] == 404


def test_a_key_may_be_ended_and_renamed_without(stale: AdminBrowser, acme_bot: Bot) -> None:
    """G4: whoever finds a leaked key ends it at once, also one that already had an end."""
    page = address(BotKey, "change", BotKey.objects.get())
    assert stale.send_changed(page, label="renamed", **NEVER).status_code == 302
    BotKey.objects.update(expires_at=timezone.now() + timedelta(days=1))
    assert stale.send_changed(page, **ENDED).status_code == 302
    assert acme_bot.in_chat("GET")[0] == 401
    assert BotKey.objects.get().label == "renamed"


def typed(brand: Brand) -> dict[str, Any]:
    names = {"key": "fresh", "client_id": "acme-client", "client_secret": "a-secret", "issuer": ISSUER}
    return {"brand": brand.pk, "authorization_endpoint": "", "token_endpoint": ""} | names


def test_metadata_is_fetched_for_nobody_who_has_not_confirmed(
    stale: AdminBrowser, acme: Brand, login: ModernAuthorizationServer
) -> None:
    """G10, N9: the address is of the sender's choice; and the one thing to do is named, not the endpoints."""
    add = address(AuthorizationServer, "add")
    refused = stale.send_changed(add, **typed(acme))
    assert is_asked(refused)
    assert list(refused.context["adminform"].form.errors) == ["__all__"]
    changed = address(AuthorizationServer, "change", make_server(acme, key="old"))
    assert is_asked(stale.send_changed(changed, issuer=ISSUER, token_endpoint="", client_secret="a-secret"))
    assert login.metadata_requests == []
    stale.sign_in_again()
    assert stale.send_changed(add, **typed(acme)).status_code == 302
    assert len(login.metadata_requests) == 1


@pytest.mark.usefixtures("one_window")
def test_look_ups_of_metadata_are_counted_for_each_admin(
    acme: Brand, acme_admin: Any, operator: AdminBrowser, login: ModernAuthorizationServer
) -> None:
    """G8, N9: no scanner of other people's networks; the error stands at the issuer."""
    browser, add = AdminBrowser(acme_admin), address(AuthorizationServer, "add")
    bad = typed(acme) | {"token_endpoint": f"{ISSUER}/typed"}
    for _ in range(rate_limits.METADATA_LOOKUPS_PER_ADMIN.times):
        assert "token_endpoint" in browser.send_changed(add, **bad).context["adminform"].form.errors
    asked = len(login.metadata_requests)
    errors = browser.send_changed(add, **typed(acme)).context["adminform"].form.errors
    assert list(errors) == ["issuer"]
    assert errors["issuer"][0].startswith("Too many look-ups of metadata: wait ")
    assert len(login.metadata_requests) == asked
    assert operator.send_changed(add, **typed(acme)).status_code == 302
    pause()
    assert browser.send_changed(add, **typed(acme) | {"key": "second"}).status_code == 302


def test_who_administers_a_brand_is_not_changed_without_confirming(acme: Brand, rival_admin: Any) -> None:
    """G10: a session left open must not let an accomplice into a brand."""
    operator = AdminBrowser(get_user_model().objects.create_superuser("operator", password="operator"))
    operator.sign_in_again(seconds_ago=11 * 60)
    page = address(Brand, "change", acme)
    assert is_asked(operator.send_changed(page, admins=[rival_admin.pk]))
    assert not acme.admins.exists()
    assert operator.send_changed(page, name="Acme Shops").status_code == 302
    operator.sign_in_again()
    assert operator.send_changed(page, admins=[rival_admin.pk]).status_code == 302
    assert list(acme.admins.all()) == [rival_admin]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subject_claim", "nickname"),
        ("expected_claims_policy", "flag"),
        ("trusted_audiences", "https://rival.example"),
        ("id_token_signing_alg_values", ["RS256", "HS256"]),
        ("revocation_endpoint", f"{ISSUER}/revoke"),
        ("ignored_metadata", ["jwks_uri"]),
        ("userinfo_endpoint", f"{ISSUER}/userinfo"),
        ("introspection_endpoint", f"{ISSUER}/introspect"),
        ("subject_member", "login"),
        ("dpop_bound_access_tokens", "on"),
    ],
)
def test_what_is_believed_of_who_signed_in_is_not_changed_without_confirming(
    name: str, value: str | list[str], stale: AdminBrowser, acme: Brand
) -> None:
    """G10. The bug: a claim that customers write themselves could be made the one that `expected_subject` reads."""
    page = address(AuthorizationServer, "change", make_server(acme))
    assert is_asked(stale.send_changed(page, **{name: value}))
    assert stale.send_changed(page, prompt="consent").status_code == 302
    stale.sign_in_again()
    assert stale.send_changed(page, **{name: value}).status_code == 302
