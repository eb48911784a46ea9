"""A new signing key is published first and signs a day later, so that a server may cache our keys (C7)."""

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.utils import timezone

from brands.audited_changes import BrandEvent
from brands.models import AuthorizationServer, Brand
from brands.signing_keys import NoSigningKey, RotationUnderWay, forget_previous_signing_keys, rotate_signing_key
from conversations.models import AuditEvent
from conversations.outbox import worker
from infrastructure.columns import encrypted_columns, reencrypt, reveal_if_there, stored_in
from infrastructure.crypto import DecryptionError
from tests.admin_pages import AdminBrowser, address
from tests.cast import Bot, Browser, heading_of, make_server
from tests.fake_authorization_server import mounted
from tests.modern_authorization_server import ModernAuthorizationServer
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
KEPT_KEYS = ("signing_key_ciphertext", "signing_key_jwk", "previous_signing_key_ciphertext", "previous_signing_key_jwk")


@pytest.fixture
def login(acme: Brand) -> Iterator[ModernAuthorizationServer]:
    """Return a server that takes private_key_jwt, and read our keys when it was set up."""
    fake = ModernAuthorizationServer(
        "login.acme.example", "acme-client", token_endpoint_auth_method="private_key_jwt", pushed_only=False
    )
    server = make_server(acme, secret="", **fake.fields())
    server.update_signing_key()
    server.save()
    fake.redirect_uri = server.redirect_uri
    with mounted(fake):
        read_our_keys(fake)
        yield fake


@pytest.fixture
def server(login: ModernAuthorizationServer) -> AuthorizationServer:
    return stored()


def stored() -> AuthorizationServer:
    return AuthorizationServer.objects.select_related("brand").get()


def read_our_keys(login: ModernAuthorizationServer) -> list[str]:
    """Let the brand's server fetch our public keys, as it does when its cache is old; return their names."""
    login.client_keys = Browser().get(f"{login.redirect_uri}/jwks.json").json()["keys"]
    return [key["kid"] for key in login.client_keys]


def signs_in(bot: Bot, login: ModernAuthorizationServer) -> bool:
    page = Browser().sign_in(bot.challenge(replace=True)["url"], login)
    return heading_of(page) != "Acme is not answering right now"


def kid_of(server: AuthorizationServer) -> str:
    assert server.signing_key_jwk
    return str(server.signing_key_jwk["kid"])


def test_no_sign_in_fails_while_a_key_is_rotated(
    acme_bot: Bot, login: ModernAuthorizationServer, server: AuthorizationServer
) -> None:
    """C7. The bug: a replaced key signed at once, and the brand refused it for as long as it cached the old one."""
    old, begun = kid_of(server), timezone.now()
    new = kid_of(rotate_signing_key(server, now=begun))
    assert signs_in(acme_bot, login)
    with time_machine.travel(begun + 23 * HOUR, tick=False):
        assert read_our_keys(login) == [old, new]
        assert signs_in(acme_bot, login)
    with time_machine.travel(begun + 24 * HOUR, tick=False):
        assert signs_in(acme_bot, login)
        assert read_our_keys(login) == [new, old]
    with time_machine.travel(begun + 25 * HOUR, tick=False):
        assert read_our_keys(login) == [new]
        assert signs_in(acme_bot, login)


def test_the_clock_ends_it_and_the_sweep_only_erases(login: Any, server: AuthorizationServer) -> None:
    """C7, K6: the old private key does not outlive its use by more than an hour and the sweep's minute."""
    begun = timezone.now()
    rotate_signing_key(server, now=begun)
    assert forget_previous_signing_keys(begun + 24 * HOUR + timedelta(minutes=59)) == 0
    assert stored().previous_signing_key_ciphertext is not None
    worker.run_once(begun + 25 * HOUR)
    ended = stored()
    assert (ended.previous_signing_key_ciphertext, ended.previous_signing_key_jwk) == (None, None)
    assert ended.previous_signing_key_signs_until is None


def test_both_private_keys_are_ciphertext_of_their_row_and_column(login: Any, server: AuthorizationServer) -> None:
    """K1, K5."""
    rotated = rotate_signing_key(server, now=timezone.now())
    both = [reveal_if_there(rotated, name) for name in ("signing_key_ciphertext", "previous_signing_key_ciphertext")]
    private = [key.reveal().split('"d": "')[1][:43] for key in both if key]
    assert len(set(private)) == 2
    assert [value for value in private if value in everything_stored()] == []
    AuthorizationServer.objects.update(previous_signing_key_ciphertext=rotated.signing_key_ciphertext)
    with pytest.raises(DecryptionError):
        stored().reveal_credentials()


def test_the_old_key_moves_to_the_newest_encryption_key(login: Any, server: AuthorizationServer, settings: Any) -> None:
    """K4: and signs on."""
    before = rotate_signing_key(server, now=timezone.now()).reveal_credentials().signing_key
    (column,) = [column for column in encrypted_columns() if column.name == "previous_signing_key_ciphertext"]
    settings.ENCRYPTION_KEYS = f"third:8l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A=,{settings.ENCRYPTION_KEYS}"
    assert reencrypt(stored_in(column)) == (1, 0)
    assert stored().reveal_credentials().signing_key == before


def test_a_second_rotation_waits_for_the_first(login: Any, server: AuthorizationServer) -> None:
    begun = timezone.now()
    rotate_signing_key(server, now=begun)
    before = AuthorizationServer.objects.values(*KEPT_KEYS).get()
    with pytest.raises(RotationUnderWay) as refused:
        rotate_signing_key(server, now=begun + HOUR)
    assert (refused.value.signs_from, refused.value.ends_at) == (begun + 24 * HOUR, begun + 25 * HOUR)
    assert AuthorizationServer.objects.values(*KEPT_KEYS).get() == before
    rotate_signing_key(server, now=begun + 25 * HOUR)


def test_rotations_in_a_row_take_no_key_away_while_what_it_signed_is_on_its_way(
    acme_bot: Bot, login: ModernAuthorizationServer, server: AuthorizationServer
) -> None:
    """C7. The bug: a second one could begin the moment the old key stopped signing, and unpublished it at once."""
    begun, first = timezone.now(), kid_of(server)
    second = kid_of(rotate_signing_key(server, now=begun))
    with time_machine.travel(begun + 24 * HOUR + timedelta(minutes=59), tick=False):
        with pytest.raises(RotationUnderWay):
            rotate_signing_key(server, now=timezone.now())
        assert read_our_keys(login) == [second, first]
    with time_machine.travel(begun + 25 * HOUR, tick=False):
        third = kid_of(rotate_signing_key(server, now=timezone.now()))
        assert read_our_keys(login) == [second, third]
        assert signs_in(acme_bot, login)
    with time_machine.travel(begun + 49 * HOUR, tick=False):
        assert signs_in(acme_bot, login)
        assert read_our_keys(login) == [third, second]
    with time_machine.travel(begun + 50 * HOUR, tick=False):
        assert read_our_keys(login) == [third]


def test_at_once_makes_another_key_where_the_old_one_is_published_and_no_longer_signs(
    login: Any, server: AuthorizationServer
) -> None:
    """C7: the key that signs may have leaked in that very hour; neither of the two is published any more."""
    begun = timezone.now()
    known = {kid_of(server), kid_of(rotate_signing_key(server, now=begun))}
    replaced = rotate_signing_key(server, now=begun + 24 * HOUR, at_once=True)
    assert kid_of(replaced) not in known
    assert read_our_keys(login) == [kid_of(replaced)]


def test_at_once_ends_a_rotation_with_the_key_that_is_published_already(
    acme_bot: Bot, login: ModernAuthorizationServer, server: AuthorizationServer
) -> None:
    """C7: for a brand that has read it, and for an old key that leaked."""
    new = kid_of(rotate_signing_key(server, now=timezone.now()))
    read_our_keys(login)
    rotate_signing_key(server, now=timezone.now(), at_once=True)
    assert signs_in(acme_bot, login)
    assert read_our_keys(login) == [new]


def test_at_once_makes_another_key_where_none_is_published_yet(login: Any, server: AuthorizationServer) -> None:
    replaced = rotate_signing_key(server, now=timezone.now(), at_once=True)
    assert kid_of(replaced) != kid_of(server)
    assert read_our_keys(login) == [kid_of(replaced)]


def test_a_new_issuer_gets_a_new_key_at_once_and_ends_a_rotation(
    login: ModernAuthorizationServer, server: AuthorizationServer, operator: AdminBrowser
) -> None:
    """C7, N8: neither key of the old issuer's client signs for a new one."""
    rotated = rotate_signing_key(server, now=timezone.now())
    known = {kid_of(server), kid_of(rotated)}
    change = address(AuthorizationServer, "change", server)
    assert operator.send_changed(change, issuer="https://login.acme.example/tenant").status_code == 302
    (kid,) = read_our_keys(login)
    assert kid not in known
    assert stored().previous_signing_key_ciphertext is None


def test_another_method_forgets_both_keys(login: Any, server: AuthorizationServer, operator: AdminBrowser) -> None:
    rotate_signing_key(server, now=timezone.now())
    change = address(AuthorizationServer, "change", server)
    changes = {"token_endpoint_auth_method": "client_secret_basic", "client_secret": "a-secret"}
    assert operator.send_changed(change, **changes).status_code == 302
    assert set(AuthorizationServer.objects.values_list(*KEPT_KEYS).get()) == {None}


def test_another_change_leaves_a_rotation_as_it_is(
    login: Any, server: AuthorizationServer, operator: AdminBrowser
) -> None:
    rotate_signing_key(server, now=timezone.now())
    before = AuthorizationServer.objects.values(*KEPT_KEYS).get()
    change = address(AuthorizationServer, "change", server)
    assert operator.send_changed(change, revocation_endpoint=f"{server.issuer}/revoke").status_code == 302
    assert AuthorizationServer.objects.values(*KEPT_KEYS).get() == before


def test_an_old_key_that_cannot_be_read_is_replaced_at_once(login: Any, server: AuthorizationServer) -> None:
    """K2: it could sign nothing until then."""
    AuthorizationServer.objects.update(signing_key_ciphertext=b"nonsense")
    replaced = rotate_signing_key(server, now=timezone.now())
    assert replaced.reveal_credentials().signing_key is not None
    assert replaced.previous_signing_key_ciphertext is None


def test_an_admin_rotates_after_a_recent_sign_in_alone(
    login: ModernAuthorizationServer, server: AuthorizationServer, acme_admin: Any
) -> None:
    """G10."""
    admin = AdminBrowser(acme_admin)
    admin.sign_in_again(seconds_ago=11 * 60)
    refused = admin.run(AuthorizationServer, "rotate_key", server)
    assert "Confirm that it is you" in refused.content.decode()
    assert read_our_keys(login) == [kid_of(server)]


@time_machine.travel("2030-05-01T10:00:00Z", tick=False)
def test_the_admin_says_which_key_signs_until_when(
    login: ModernAuthorizationServer, server: AuthorizationServer, acme_admin: Any
) -> None:
    admin = AdminBrowser(acme_admin)
    (said,) = admin.run(AuthorizationServer, "rotate_key", server).context["messages"]
    new = kid_of(stored())
    words = f"{kid_of(server)} signs until 2030-05-02 10:00 UTC, {new} from then on; both are published."
    assert str(said) == words
    assert words in admin.get(address(AuthorizationServer, "change", server)).content.decode()
    (said,) = admin.run(AuthorizationServer, "rotate_key", server).context["messages"]
    assert str(said).startswith("Nothing was changed: a new key is published and signs from 2030-05-02")
    (said,) = admin.run(AuthorizationServer, "rotate_key_at_once", server).context["messages"]
    assert str(said) == f"{new} signs."


def test_another_brands_admin_rotates_nothing(login: Any, server: AuthorizationServer, rival_admin: Any) -> None:
    """J6."""
    AdminBrowser(rival_admin).run(AuthorizationServer, "rotate_key_at_once", server)
    assert read_our_keys(login) == [kid_of(server)]


def test_a_server_with_a_secret_has_nothing_to_rotate(acme_server: AuthorizationServer, operator: AdminBrowser) -> None:
    with pytest.raises(NoSigningKey):
        rotate_signing_key(acme_server, now=timezone.now())
    (said,) = operator.run(AuthorizationServer, "rotate_key", acme_server).context["messages"]
    assert str(said) == "This server has no signing key: choose private_key_jwt."


def test_a_rotation_is_one_audit_event_without_a_value(
    login: Any, server: AuthorizationServer, operator: AdminBrowser
) -> None:
    """N8, H1: names of fields, and nothing of either key."""
    rotate_signing_key(server, now=timezone.now())
    (changed,) = AuditEvent.objects.filter(kind=BrandEvent.SERVER_SECRET_CHANGED)
    assert "previous_signing_key_ciphertext" in changed.changed_fields
    assert kid_of(stored()) not in repr(AuditEvent.objects.values())


def rotate_by_command(*options: str) -> str:
    printed = io.StringIO()
    call_command("rotate_signing_key", "acme", "orders", *options, stdout=printed)
    return printed.getvalue()


def test_the_command_says_which_key_signs_from_when(login: Any, server: AuthorizationServer) -> None:
    with time_machine.travel("2030-05-01T10:00:00Z", tick=False):
        printed = rotate_by_command()
        kid = kid_of(stored())
        assert printed == f"The key {kid} signs from 2030-05-02 10:00 UTC. Our keys: {server.client_jwks_uri}\n"
        with pytest.raises(CommandError, match=r"10:00 UTC; .+ begin at 11:00 UTC\. With --at-once"):
            rotate_by_command()
        assert rotate_by_command("--at-once").startswith(f"The key {kid} signs from now on.")


def test_the_command_names_what_is_not_there(acme_server: AuthorizationServer) -> None:
    with pytest.raises(CommandError, match="This server has no signing key"):
        rotate_by_command()
    with pytest.raises(CommandError, match="There is no brand acme with an authorization server x"):
        call_command("rotate_signing_key", "acme", "x")
