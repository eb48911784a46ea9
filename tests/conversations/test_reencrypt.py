"""`manage.py reencrypt`: a key rotation from beginning to end, while the server reads and with what cannot be read."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from brands.models import AuthorizationServer, BotKey
from conversations.flow import key_usage
from conversations.models import AccessToken, AuthorizationRequest, Challenge
from infrastructure.columns import encrypted_columns
from infrastructure.crypto import DecryptionError, KeyRing, key_id_of
from tests.cast import ACME_SECRET, Bot, Browser, code_on, make_bot, use_openid
from tests.environment import TEST_ENVIRONMENT
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.installation import Installation

OLD = "old:Zr0C2f0XQmYb7tq1sJ6uPpVdKxw4hN8aLo5iE3gTzUk="
NEW = "new:9l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A="
CONFIGURATION = """
[brand]
slug = "acme"
name = "Acme"

[[authorization_servers]]
key = "orders"
authorization_endpoint = "https://login.acme.example/authorize"
token_endpoint = "https://login.acme.example/token"
client_id = "consumer-delegation"
client_secret = "planted-client-secret"

[[webhooks]]
url = "https://bot.acme.example/hooks"
events = ["challenge.withdrawn"]
"""
# A challenge with an authorization request, which is open; another chat's token, whose subject is known, and its
# revocation; a server with two signing keys; and an admin's trial and secret that is not saved.
FILL = """
from datetime import timedelta
from uuid import uuid4
from django.contrib.auth.models import User
from django.utils import timezone
from brands.models import AuthorizationServer, WebhookEndpoint
from brands.unsaved_secrets import UnsavedSecrets
from brands.webhooks import rotate_secret
from conversations.flow.authorization_requests import begin_authorization_request
from conversations.flow.challenges import WantedChallenge, issue_challenge, withdraw_challenge
from conversations.flow.trial_sign_in import begin_trial
from conversations.models import AccessToken, AuthorizationRequest, Revocation, TrialSignIn
from infrastructure.crypto import Secret
from oauth_client.dpop import ProofKey
def proof_key(name):
    return ProofKey(Secret('{"kty":"EC","planted":"%s"}' % name))
server, now = AuthorizationServer.objects.select_related("brand").get(), timezone.now()
wanted = WantedChallenge(server=server, context=Secret("planted-context"))
open_one, _ = issue_challenge(server.brand, "open", wanted, actor="test", now=now)
begin_authorization_request(open_one, now)
begun = AuthorizationRequest.objects.select_related("challenge__conversation__brand").get()
begun.set_proof_key(proof_key("planted-request-key"))
begun.save()
ended, _ = issue_challenge(server.brand, "authorized", wanted, actor="test", now=now)
withdraw_challenge(ended, actor="test", now=now)
token = AccessToken(
    uuid=uuid4(), conversation=ended.conversation, authorization_server=server, challenge=ended, token_type="DPoP",
    assurance="none", expires_at=now + timedelta(hours=1), confirmed_at=now,
)
token.set_subject(Secret("planted-subject"))
token.set_access_token(Secret("planted-access-token"))
token.set_response_members(Secret('{"patient":"planted-patient"}'))
token.set_proof_key(proof_key("planted-token-key"))
token.save()
revocation = Revocation(conversation=ended.conversation, authorization_server=server, access_token_uuid=token.uuid)
revocation.set_access_token(Secret("planted-access-token"))
revocation.save()
rotate_secret(WebhookEndpoint.objects.get(), now=now)
admin = User.objects.create_user("ada")
begin_trial(server, admin, "session", now)
trial = TrialSignIn.objects.get()
trial.set_proof_key(proof_key("planted-trial-key"))
trial.save()
UnsavedSecrets(admin.pk, "session").keep(Secret("planted-typed-secret"), server, {}, now + timedelta(minutes=10))
for _ in range(2):
    server.rotate_signing_key(now + timedelta(days=1))
server.save()
"""
REVEAL = """
from infrastructure.columns import encrypted_columns, reveal
def values():
    return {
        f"{column.model._meta.model_name}.{column.name}": [
            reveal(row, column.name).reveal() for row in column.rows().order_by("pk")
        ]
        for column in encrypted_columns()
    }
"""
READ_ONCE = REVEAL + "print(values())"
READ_ON = f"""{REVEAL}
import threading
ended, rounds, first = threading.Event(), 0, values()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("reading", flush=True)
while not ended.is_set():
    assert values() == first
    rounds += 1
print(rounds)
"""
USE_KEY = """
from django.utils import timezone
from brands.authentication import authenticate
print(authenticate("Bearer " + {key!r}, timezone.now()) is not None)
"""
END_EVERYTHING = """
from django.utils import timezone
from conversations.flow.termination import close_conversation
from brands.models import UnsavedClientSecret
from conversations.models import Conversation, TrialSignIn
TrialSignIn.objects.all().delete()
UnsavedClientSecret.objects.all().delete()
for conversation in Conversation.objects.select_related("brand"):
    close_conversation(conversation, actor="test", now=timezone.now())
"""
# How many values of each column the script above makes.
CIPHERTEXTS = {
    "authorizationserver.client_secret_ciphertext": 1,
    "authorizationserver.signing_key_ciphertext": 1,
    "authorizationserver.previous_signing_key_ciphertext": 1,
    "unsavedclientsecret.ciphertext": 1,
    "challenge.link_token_ciphertext": 2,
    "challenge.context_ciphertext": 2,
    "authorizationrequest.code_verifier_ciphertext": 1,
    "authorizationrequest.dpop_key_ciphertext": 1,
    "accesstoken.ciphertext": 1,
    "accesstoken.response_members_ciphertext": 1,
    "accesstoken.subject_ciphertext": 1,
    "accesstoken.dpop_key_ciphertext": 1,
    "webhookendpoint.secret_ciphertext": 1,
    "webhookendpoint.previous_secret_ciphertext": 1,
    "revocation.ciphertext": 1,
    "trialsignin.code_verifier_ciphertext": 1,
    "trialsignin.dpop_key_ciphertext": 1,
    "webhookdelivery.payload_ciphertext": 1,
}


def moved(printed: str) -> dict[str, int]:
    """Return how many values of which column were moved, without the columns of which none was."""
    found = re.findall(r"^(\S+): moved (\d+), unreadable 0$", printed, re.MULTILINE)
    return {name: int(count) for name, count in found if count != "0"}


def held(printed: str) -> dict[str, str]:
    """Return which column is held by which keys, without the empty ones."""
    found = re.findall(r"^(\S+) is held by: (.*)$", printed, re.MULTILINE)
    return {name: keys for name, keys in found if keys != "empty"}


DIGESTS = {
    "botkey.digest": "old 1",
    "challenge.link_token_digest": "old 2",
    "authorizationrequest.state_digest": "old 1",
    "authorizationrequest.cookie_digest": "old 1",
    "trialsignin.session_digest": "old 1",
    "trialsignin.state_digest": "old 1",
    "trialsignin.cookie_digest": "old 1",
    "unsavedclientsecret.session_digest": "old 1",
}


def test_the_rotation_moves_a_value_of_every_encrypted_column() -> None:
    """K4: a new column is found, and has to be filled here. The bug: six were not, among them those of trials."""
    assert set(CIPHERTEXTS) == {f"{column.model._meta.model_name}.{column.name}" for column in encrypted_columns()}


@pytest.mark.full
def test_a_rotation_from_the_first_key_to_the_second(tmp_path: Path) -> None:
    """K4: two processes; the server reads on while the command moves everything; then the old key goes."""
    installation = Installation(tmp_path, OLD)
    installation.migrate()
    installation.manage("apply_config", "-", text=CONFIGURATION)
    key = installation.manage("create_bot_key", "acme", "--label", "x", "--scope", "token:read")
    installation.python(FILL)
    before = installation.python(READ_ONCE)
    assert "planted-access-token" in before

    installation.encryption_keys = f"{NEW},{OLD}"
    server = installation.start(READ_ON)
    assert server.stdout.readline() == "reading\n"
    printed = installation.manage("reencrypt")
    rounds, errors = server.communicate(timeout=60)
    assert (server.returncode, errors, int(rounds) > 0) == (0, "", True)
    assert moved(printed) == CIPHERTEXTS
    assert held(printed) == {name: f"new {count}" for name, count in CIPHERTEXTS.items()} | DIGESTS

    # What a digest recognises cannot be moved: a bot key's moves when it is used, the others end with their use.
    assert installation.python(USE_KEY.format(key=key)) == "True"
    printed = installation.manage("reencrypt")
    assert moved(printed) == {}
    assert held(printed)["botkey.digest"] == "new 1"
    assert installation.python(READ_ONCE) == before
    installation.encryption_keys = NEW
    assert installation.python(READ_ONCE) == before
    assert installation.python(USE_KEY.format(key=key)) == "True"
    installation.python(END_EVERYTHING)
    assert held(installation.manage("reencrypt")) == {
        "authorizationserver.client_secret_ciphertext": "new 1",
        "authorizationserver.signing_key_ciphertext": "new 1",
        "authorizationserver.previous_signing_key_ciphertext": "new 1",
        "revocation.ciphertext": "new 1",
        "webhookendpoint.secret_ciphertext": "new 1",
        "webhookendpoint.previous_secret_ciphertext": "new 1",
        "webhookdelivery.payload_ciphertext": "new 2",
        "botkey.digest": "new 1",
    }


def link_tokens() -> list[bytes]:
    rows = Challenge.objects.order_by("pk").values_list("link_token_ciphertext", flat=True)
    return [bytes(value or b"") for value in rows]


def rotate(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = f"{NEW.replace('new:9l8', 'third:8l8')},{TEST_ENVIRONMENT['ENCRYPTION_KEYS']}"


def reencrypt() -> str:
    printed = io.StringIO()
    call_command("reencrypt", stdout=printed)
    return printed.getvalue()


@pytest.mark.django_db
def test_a_command_that_was_stopped_goes_on_where_it_was(
    acme_bot: Bot, acme_server: AuthorizationServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K4: chunk by chunk, and every value moves once."""
    monkeypatch.setattr(key_usage, "CHUNK", 2)
    for number in range(5):
        acme_bot.chat = f"chat-{number}"
        acme_bot.challenge()
    rotate(settings)
    whole, calls = KeyRing.encrypt, 0

    def stopped(*arguments: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(KeyRing, "encrypt", stopped)
        with pytest.raises(KeyboardInterrupt):
            reencrypt()
    assert sorted(key_id_of(value) for value in link_tokens()) == ["test-new", "test-new", "test-new", "third", "third"]
    assert moved(reencrypt()) == {"challenge.link_token_ciphertext": 3}
    assert [bool(challenge.reveal_link_token().reveal()) for challenge in Challenge.objects.all()] == [True] * 5


@pytest.mark.django_db
def test_what_cannot_be_read_is_counted_and_left_alone(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer, settings: Any
) -> None:
    """K2, K4: plain text, another row's ciphertext and a flipped bit; the rest is moved, and the command exits 1."""
    challenges = []
    for number in range(4):
        acme_bot.chat = f"chat-{number}"
        challenges.append(Challenge.objects.get(uuid=acme_bot.challenge()["challenge_id"]))
    good = bytes(challenges[0].link_token_ciphertext or b"")
    bad = [b"plain text", good, good[:-1] + bytes([good[-1] ^ 1])]
    for challenge, value in zip(challenges[1:], bad, strict=True):
        Challenge.objects.filter(pk=challenge.pk).update(link_token_ciphertext=value)
    rotate(settings)
    printed = io.StringIO()
    with pytest.raises(CommandError, match="3 values could not be read with any key of the ring") as raised:
        call_command("reencrypt", stdout=printed)
    assert raised.value.returncode == 1
    assert "challenge.link_token_ciphertext: moved 1, unreadable 3" in printed.getvalue()
    assert held(printed.getvalue())["challenge.link_token_ciphertext"] == "test-new 2, third 1, unreadable 1"
    assert link_tokens()[1:] == bad
    assert secret_of(acme_server) == ACME_SECRET


def secret_of(server: AuthorizationServer) -> str | None:
    secret = AuthorizationServer.objects.get(pk=server.pk).reveal_credentials().client_secret
    return secret.reveal() if secret else None


@pytest.mark.django_db
def test_without_its_key_a_value_is_unreadable_and_says_nothing(
    acme_server: AuthorizationServer, settings: Any
) -> None:
    """K2: the old key was taken away too early."""
    settings.ENCRYPTION_KEYS = NEW
    with pytest.raises(CommandError, match="1 values could not be read"):
        reencrypt()
    with pytest.raises(DecryptionError, match=r"^a stored value could not be read$"):
        secret_of(acme_server)


@pytest.mark.django_db
def test_only_digests_that_still_count_hold_a_key(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer, settings: Any
) -> None:
    """K4: a revoked bot key, an ended link or a replaced token's subject would hold the old key for ever."""
    use_openid(acme_server, acme_login)
    for _ in range(2):
        acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    make_bot(acme_server.brand)
    BotKey.objects.filter(pk=BotKey.objects.latest("pk").pk).update(
        revoked_at=AccessToken.objects.latest("pk").issued_at
    )
    rotate(settings)
    counted = held(reencrypt())
    assert {name: counted[name] for name in counted if name.endswith("_digest") or name == "botkey.digest"} == {
        "botkey.digest": "test-new 1",
        "challenge.link_token_digest": "test-new 1",
        "challenge.completion_code_digest": "test-new 1",
        "accesstoken.receipt_digest": "test-new 1",
        "authorizationrequest.state_digest": "test-new 1",
        "authorizationrequest.cookie_digest": "test-new 1",
    }
    assert AuthorizationRequest.objects.count() == 2
    acme_bot.in_chat("DELETE")
    assert acme_bot.in_chat("GET")[0] == 200
    BotKey.objects.update(last_used_at=None)
    acme_bot.in_chat("GET")
    left = {name: keys for name, keys in held(reencrypt()).items() if "test-" in keys}
    assert left == {}
