"""`manage.py reencrypt` beside everything else: rows that change under it, and values that nothing can read."""

import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone

from accounts.second_factors import stored_second_factors
from brands.models import AuthorizationServer, BotKey
from conversations.flow.key_usage import counts_by_key
from conversations.models import Challenge
from infrastructure.columns import encrypted_columns, reencrypt, stored_in
from infrastructure.crypto import KeyRing, key_ring
from tests.cast import Bot, Browser, code_on
from tests.environment import TEST_ENVIRONMENT
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

LINK_TOKENS = next(column for column in encrypted_columns() if column.name == "link_token_ciphertext")


def rotate(settings: Any) -> None:
    third = "third:8l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A="
    settings.ENCRYPTION_KEYS = f"{third},{TEST_ENVIRONMENT['ENCRYPTION_KEYS']}"


def while_it_encrypts(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let somebody else change a row after it was read and before it is written."""
    encrypt = KeyRing.encrypt

    def encrypt_late(*arguments: Any) -> bytes:
        change()
        return encrypt(*arguments)

    monkeypatch.setattr(KeyRing, "encrypt", encrypt_late)


def test_a_row_that_changed_meanwhile_is_left_as_it_is(
    acme_bot: Bot, acme_server: AuthorizationServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K4: what was read is old by then; written back, it would undo the change."""
    acme_bot.challenge()
    rotate(settings)
    newer = b"what somebody else has written meanwhile"
    while_it_encrypts(monkeypatch, lambda: Challenge.objects.update(link_token_ciphertext=newer))
    assert reencrypt(stored_in(LINK_TOKENS)) == (0, 0)
    assert bytes(Challenge.objects.get().link_token_ciphertext or b"") == newer


def test_a_value_that_was_forgotten_meanwhile_does_not_come_back(
    acme_bot: Bot, acme_server: AuthorizationServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K4: a challenge that ends forgets its link."""
    acme_bot.challenge()
    rotate(settings)
    while_it_encrypts(monkeypatch, lambda: Challenge.objects.update(link_token_ciphertext=None))
    assert reencrypt(stored_in(LINK_TOKENS)) == (0, 0)
    assert Challenge.objects.get().link_token_ciphertext is None


def test_a_second_factor_that_changed_meanwhile_is_left_as_it_is(
    acme_admin: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K4: an authenticator's data is replaced as a whole."""
    TOTP.activate(acme_admin, generate_totp_secret())
    rotate(settings)
    newer = {"secret": "what somebody else has written meanwhile"}
    while_it_encrypts(monkeypatch, lambda: Authenticator.objects.update(data=newer))
    assert reencrypt(stored_second_factors()) == (0, 0)
    assert Authenticator.objects.get().data == newer


@pytest.mark.parametrize("secret", ["not a ciphertext", "é", "", "bm90IG91cnM=", 5, None, ["x"]])
def test_a_second_factor_that_nothing_reads_is_counted_to_the_end(
    acme_admin: Any, settings: Any, secret: object
) -> None:
    """K4: counted as unreadable, it then ended the command with a traceback."""
    TOTP.activate(acme_admin, generate_totp_secret())
    Authenticator.objects.update(data={"secret": secret})
    rotate(settings)
    printed = io.StringIO()
    with pytest.raises(CommandError, match="1 values could not be read") as raised:
        call_command("reencrypt", stdout=printed)
    assert raised.value.returncode == 1
    assert "authenticator.data: moved 0, unreadable 1\n" in printed.getvalue()
    assert printed.getvalue().endswith("authenticator.data is held by: unreadable 1\n")
    assert Authenticator.objects.get().data == {"secret": secret}


def test_a_handle_for_the_chat_page_holds_its_key(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """K4: the old key would go, and whoever comes back with the handle would not be recognised."""
    acme_bot.challenge()
    Challenge.objects.update(completion_handle_digest=key_ring().digest("completion-handle", b"handle"))
    printed = io.StringIO()
    call_command("reencrypt", stdout=printed)
    assert "challenge.completion_handle_digest is held by: test-new 1\n" in printed.getvalue()
    Challenge.objects.update(expires_at=F("issued_at"))
    call_command("reencrypt", stdout=printed)
    assert "challenge.completion_handle_digest is held by: empty\n" in printed.getvalue()


def in_use(now: datetime) -> dict[str, int]:
    """Return how many digests of each column still recognise something."""
    counted = counts_by_key(now)
    return {name: counted[name].total() for name in counted if name.endswith("digest") and counted[name]}


def test_a_digest_holds_its_key_until_the_clock_has_ended_its_use(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """K4: for as long as somebody may come with the key, the link, the receipt or the request, and no longer."""
    chat = f"/conversations/{acme_bot.chat}"
    _, challenge = acme_bot.call("POST", f"{chat}/challenges", {}, **{"Idempotency-Key": "once"})
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    now = timezone.now()
    BotKey.objects.update(expires_at=now + timedelta(hours=3))
    of_the_request = {"idempotencykey.digest": 1, "idempotencykey.request_digest": 1}
    of_the_sign_in = {
        "challenge.link_token_digest": 1,
        "challenge.completion_code_digest": 1,
        "authorizationrequest.state_digest": 1,
        "authorizationrequest.cookie_digest": 1,
        "accesstoken.receipt_digest": 1,
    }
    assert in_use(now) == {"botkey.digest": 1} | of_the_sign_in | of_the_request
    assert in_use(now + timedelta(hours=2)) == {"botkey.digest": 1} | of_the_request
    assert in_use(now + timedelta(hours=4)) == of_the_request
    assert in_use(now + timedelta(hours=24)) == {}
