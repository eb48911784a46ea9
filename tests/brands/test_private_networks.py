"""Private networks: what the operator can allow to a brand, who else cannot, and what is never called."""

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from pytest_django import Settings

from brands.audited_changes import save_audited
from brands.configuration_export import export_configuration
from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.models import AuthorizationServer, Brand, BrandAPI, NetworkUse, WebhookEndpoint
from conversations.object_history import history_of
from delegation_site import checks
from delegation_site.environment import hosts_of_services
from infrastructure.models import AuditEvent
from oauth_client import addresses, keys, transport
from tests.admin_pages import AdminBrowser, address
from tests.brands.outbound import post
from tests.cast import declare_api, make_server

INSIDE = "10.20.0.5"
URL = "https://login.acme.internal:8443/token"
NETWORK = addresses.private_network("10.20.0.0/16", frozenset({443, 8443}))
Connected = list[tuple[str, int]]


def command(*arguments: str) -> None:
    call_command("private_networks", "acme", *arguments)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Connected:
    """Return the list of targets to which a connection was begun. Nobody listens there."""
    settings.ALLOW_LOCAL_ENDPOINTS, settings.OWN_HOSTS = False, []
    found: Connected = []

    def refuse(_socket: socket.socket, target: Any) -> None:
        found.append(target[:2])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return found


def call(url: str = URL) -> None:
    with pytest.raises(transport.OutboundError):
        post(url)


@pytest.mark.parametrize(
    "network",
    [
        *("0.0.0.0/0", "0.0.0.0/8", "0.0.0.0/32", "::/0", "::", "8.8.8.0/24", "2606:4700::/32"),
        *("127.0.0.0/8", "127.0.0.1", "::1", "169.254.0.0/16", "169.254.169.254", "fe80::/10", "224.0.0.0/4"),
        *("ff02::1", "255.255.255.255", "240.0.0.0/4", "198.18.0.0/15", "192.0.2.0/24", "192.0.0.192"),
        *("::ffff:10.20.0.5", "::ffff:10.0.0.0/104", "::10.20.0.5", "64:ff9b::a14:5", "2002:a14:5::/48"),
        *("8.0.0.0/6", "10.0.0.0/7", "100.0.0.0/8", "100.64.0.0/10", "100.100.100.200", "fc00::/7", "fc00::/48"),
        *("fd00::/8", "fd00:ec2::254", "fd00:ec2::/48", "fd20:ce::254", "fd12:3456::/32", "fd12:3456:789a::%lo/64"),
        *("10.20.0.5/16", "10.20.0.0/33", "10.20.0.0/-1", "010.20.0.0/16", "10.20", "0xa140005", "acme.internal"),
        *("", " 10.20.0.0/16", "10.20.0.0/16\n", "10.20.0.0/16,10.30.0.0/16", "*"),
    ],
)
def test_a_network_that_is_not_private_or_too_wide_cannot_be_allowed(network: str, acme: Brand) -> None:
    """N3, N14."""
    with pytest.raises(CommandError):
        command("allow", network)
    acme.refresh_from_db()
    assert acme.private_networks == []


@pytest.mark.django_db
def test_a_network_of_no_brand_says_how_the_brand_is_made() -> None:
    """The bug: a file with the server was refused because of the network, and the network because of the brand."""
    with pytest.raises(
        CommandError, match=r"There is no brand acme\. Make it first: .* a file that has \[brand\] alone\."
    ):
        command("allow", "10.20.0.0/16")


@pytest.mark.parametrize("ports", [["0"], ["65536"], ["-1"], [str(port) for port in range(1, 12)]])
def test_a_port_that_does_not_exist_cannot_be_allowed(ports: list[str], acme: Brand) -> None:
    with pytest.raises(CommandError):
        command("allow", "10.20.0.0/16", "--ports", *ports)


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        *(("10.0.0.0/8", "10.0.0.0/8"), ("10.20.0.5", "10.20.0.5/32"), ("172.16.0.0/255.240.0.0", "172.16.0.0/12")),
        *(("100.64.1.0/24", "100.64.1.0/24"), ("FD12:3456:789A:0::/48", "fd12:3456:789a::/48")),
    ],
)
def test_the_operator_allows_a_network_and_reads_it_back(
    typed: str, stored: str, acme: Brand, capsys: pytest.CaptureFixture[str]
) -> None:
    command("allow", typed, "--ports", "8443", "443")
    assert capsys.readouterr().out == f"{stored} at 443, 8443 for servers\n"
    command("remove", typed)
    assert capsys.readouterr().out.startswith("None: only public addresses")


def test_a_network_that_is_allowed_again_gets_the_new_ports(acme: Brand, capsys: pytest.CaptureFixture[str]) -> None:
    command("allow", "10.20.0.0/16", "--ports", "443", "8443")
    command("allow", "10.20.0.0/16", "--for", "servers", "webhooks")
    capsys.readouterr()
    command("list")
    assert capsys.readouterr().out == "10.20.0.0/16 at 443 for servers, webhooks\n"


def test_what_is_not_there_cannot_be_removed(acme: Brand) -> None:
    with pytest.raises(CommandError, match="has no network"):
        command("remove", "10.20.0.0/16")
    with pytest.raises(CommandError, match="no brand"):
        call_command("private_networks", "nobody", "list")


def test_each_change_is_audited_and_in_the_brands_history(acme: Brand) -> None:
    """N14: who, and what was and is allowed; what changes nothing leaves no row."""
    for arguments in (["allow", INSIDE], ["allow", INSIDE], ["allow", INSIDE, "--ports", "8443"], ["remove", INSIDE]):
        command(*arguments)
    events = AuditEvent.objects.filter(changed_fields="private_networks").order_by("id")
    first, second = f"{INSIDE}/32 at 443 for servers", f"{INSIDE}/32 at 8443 for servers"
    values = [event.changed_values["private_networks"] for event in events if event.changed_values]
    assert values == [["", first], [first, second], [second, ""]]
    assert {event.actor for event in events} == {"operator"}
    line = history_of(acme)[0]
    assert (line.by, line.fields) == ("the operator", [f"Private networks: {second} → empty"])


def test_neither_admins_nor_superusers_change_it_in_the_admin(
    acme: Brand, acme_admin: Any, django_user_model: Any
) -> None:
    """N14: not even whoever has stolen a superuser's session."""
    command("allow", INSIDE)
    posted = '[{"network": "10.0.0.0/8", "ports": [443], "uses": ["servers"]}]'
    root = django_user_model.objects.create_superuser("root")
    for user in (acme_admin, root):
        browser = AdminBrowser(user)
        page = browser.get(address(Brand, "change", acme))
        assert f"{INSIDE}/32 at 443 for servers" in page.content.decode()
        form = page.context["adminform"].form
        typed = {name: form[name].value() or "" for name in form.fields if name not in {"logo", "is_active"}}
        browser.post(address(Brand, "change", acme), typed | {"name": "Acme 2", "private_networks": posted})
    acme.refresh_from_db()
    assert [one["network"] for one in acme.private_networks] == [f"{INSIDE}/32"]


def test_a_form_that_was_open_meanwhile_does_not_bring_a_removed_network_back(acme: Brand) -> None:
    """N14: the row of an open form still has the network that the operator has removed since."""
    command("allow", INSIDE)
    stale = Brand.objects.get(pk=acme.pk)
    command("remove", INSIDE)
    stale.name = "Acme 2"
    save_audited(stale)
    acme.refresh_from_db()
    assert (acme.name, acme.private_networks) == ("Acme 2", [])


def test_a_file_neither_sets_nor_changes_it(acme: Brand) -> None:
    """N14: files come from brands."""
    command("allow", INSIDE)
    acme.refresh_from_db()
    assert "10.20" not in export_configuration(acme)
    apply_configuration(read_configuration('[brand]\nslug = "acme"\nname = "Acme"'))
    acme.refresh_from_db()
    assert len(acme.private_networks) == 1
    with pytest.raises(ConfigurationRefused, match="no such setting"):
        apply_configuration(read_configuration('[brand]\nslug = "acme"\nname = "Acme"\nprivate_networks = []'))


@pytest.mark.parametrize(
    "stored",
    [
        [{"network": "127.0.0.0/8", "ports": [443], "uses": ["servers"]}],
        [{"network": "0.0.0.0/0", "ports": [443], "uses": ["servers"]}],
        [{"network": 167772160, "ports": [443], "uses": ["servers"]}],
        [{"network": "10.20.0.0/16", "ports": [True], "uses": ["servers"]}],
        [{"network": "10.20.0.0/16", "ports": [443], "uses": []}],
        [{"network": "10.20.0.0/16", "ports": [443], "uses": ["servers"], "also": "10.30.0.0/16"}],
        {"network": "10.20.0.0/16"},
        "10.20.0.0/16",
        [{"network": "10.20.0.0/16", "ports": [443], "uses": ["servers"]}] * 21,
    ],
)
def test_a_column_that_sql_wrote_allows_nothing_and_is_told(stored: Any, acme: Brand) -> None:
    """N14: a system check names the brand; the command can write it anew."""
    Brand.objects.filter(pk=acme.pk).update(private_networks=stored)
    acme.refresh_from_db()
    assert acme.networks_for(NetworkUse.SERVERS) == ()
    (warning,) = checks.check_private_networks(databases=["default"])
    assert (warning.id, "brand acme" in warning.msg) == ("delegation.W008", True)
    command("allow", INSIDE)
    assert checks.check_private_networks(databases=["default"]) == []


def test_an_allowed_network_is_called_at_its_ports_alone(connected: Connected, look_ups: Callable[..., Any]) -> None:
    """N1, N2, N14."""
    look_ups([INSIDE])
    call()
    with addresses.allowing((NETWORK,)):
        call()
        call("https://login.acme.internal/token")
        call("https://login.acme.internal:9443/token")
    call()
    assert connected == [(INSIDE, 8443), (INSIDE, 443)]


@pytest.mark.parametrize(
    ("answers", "is_called"),
    [
        *(([INSIDE, "10.20.0.6"], True), ([INSIDE, "10.21.0.5"], False), ([INSIDE, "127.0.0.1"], False)),
        *((["::ffff:10.20.0.5"], False), ([INSIDE, "169.254.169.254"], False), (["10.20.0.5", "fd00:ec2::254"], False)),
    ],
)
def test_each_address_of_a_name_has_to_be_allowed(
    answers: list[str], is_called: bool, connected: Connected, look_ups: Callable[..., Any]
) -> None:
    """N2, N3, N14."""
    look_ups(answers)
    with addresses.allowing((NETWORK,)):
        call()
    assert bool(connected) == is_called


def test_a_public_address_is_called_at_port_443_alone(connected: Connected, look_ups: Callable[..., Any]) -> None:
    """N1: a port that is allowed inside a private network opens no port of the internet, nor beside a private one."""
    look_ups(["8.8.8.8"], ["8.8.8.8", INSIDE], ["8.8.8.8", INSIDE])
    with addresses.allowing((NETWORK,)):
        call()
        call()
        assert connected == []
        call("https://login.acme.internal/token")
    assert connected == [("8.8.8.8", 443), (INSIDE, 443)]


def test_hosts_of_our_own_are_never_called(
    connected: Connected, look_ups: Callable[..., Any], settings: Settings
) -> None:
    """N14: the database moves into the network, to the address that a brand's name leads to."""
    settings.OWN_HOSTS = ["database.internal"]
    look_ups([INSIDE], ["10.20.0.9"], [INSIDE], [INSIDE])
    with addresses.allowing((NETWORK,)):
        call()
        call()
    assert connected == [(INSIDE, 8443)]


def test_while_a_host_of_ours_cannot_be_resolved_its_last_addresses_count(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """N14: and if there are none, every address may be its own."""
    settings.OWN_HOSTS = ["database.internal"]
    monkeypatch.setattr(addresses, "_own_addresses", {})
    answers: list[Any] = [OSError, ["10.20.0.9"], OSError, OSError]

    def resolve(*_arguments: Any, **_options: Any) -> Any:
        answer = answers.pop(0)
        if answer is OSError:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in answer]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    seen = [addresses.is_our_own(ip_address(one)) for one in (INSIDE, INSIDE, "10.20.0.9", INSIDE)]
    assert seen == [True, False, True, False]


def test_addresses_of_this_machine_are_our_own(settings: Settings) -> None:
    """N14: whatever listens there without naming an address, such as Redis or what reads metrics."""
    settings.OWN_HOSTS = []
    assert [addresses.is_our_own(ip_address(one)) for one in ("127.0.0.1", "127.8.9.1", INSIDE)] == [True, True, False]


def test_hosts_of_our_own_are_read_from_the_settings() -> None:
    database = {"HOST": "db1.internal,10.0.0.7", "OPTIONS": {"hostaddr": "10.0.0.8"}}
    found = hosts_of_services(
        database, "rediss://u:p@cache.internal:6379/0", "https://delegation.example", "mail.internal"
    )
    assert found == ["db1.internal", "10.0.0.7", "10.0.0.8", "mail.internal", "cache.internal", "delegation.example"]
    sockets = hosts_of_services({"HOST": "/run/postgresql"}, "unix:///run/redis.sock", "https://[fd12::5]", None)
    assert sockets == ["fd12::5"]


def test_rows_are_validated_by_what_their_brand_may_be_called_at(acme: Brand, rival: Brand) -> None:
    """N1, N14: servers and APIs, webhook endpoints only if they are named, and never another brand's."""
    command("allow", INSIDE, "--ports", "8443")
    for brand in (acme, rival):
        brand.refresh_from_db()
    server = make_server(acme, token_endpoint=URL, revocation_endpoint=URL)
    server.full_clean()
    api = BrandAPI(authorization_server=server, key="shop", base_url="https://api.acme.internal:8443/v1")
    api.full_clean(exclude=["brand"])
    hook = WebhookEndpoint(brand=acme, url="https://bot.acme.internal:8443/hook")
    with pytest.raises(ValidationError, match="operator can allow"):
        hook.clean_fields(exclude=["secret_ciphertext"])
    with pytest.raises(ValidationError, match="Only port 443"):
        make_server(rival, token_endpoint=URL).full_clean()
    with pytest.raises(ValidationError, match="Only port 443"):
        AuthorizationServer(token_endpoint=URL).clean_fields()
    command("allow", INSIDE, "--ports", "8443", "--for", "webhooks")
    acme.refresh_from_db()
    WebhookEndpoint(brand=acme, url=hook.url).clean_fields(exclude=["secret_ciphertext"])
    with pytest.raises(ValidationError, match="Only port 443"):
        AuthorizationServer(brand=acme, token_endpoint=URL).clean_fields()


def test_a_support_contact_gets_no_other_port(acme: Brand) -> None:
    """N1: consumers' browsers open it, not we."""
    command("allow", INSIDE, "--ports", "8443")
    acme.refresh_from_db()
    acme.support_contact = "https://help.acme.internal:8443/"
    with pytest.raises(ValidationError):
        acme.full_clean()


def test_keys_that_were_fetched_inside_are_no_other_brands(
    connected: Connected, look_ups: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """N14: Rival names Acme's jwks_uri, and would get the copy that Acme's sign-ins keep."""
    look_ups([INSIDE])
    keys.forget_all()
    jwks_uri = "https://login.acme.internal:8443/jwks"
    with monkeypatch.context() as patched, addresses.allowing((NETWORK,)):
        patched.setattr(keys, "_fetch_keys", lambda _uri: [{"kty": "oct", "kid": "a"}])
        with pytest.raises(Exception, match="keys of the server fit"):
            keys.signing_keys(jwks_uri, "RS256", "a")
    with pytest.raises(Exception, match="jwks"):
        keys.signing_keys(jwks_uri, "RS256", "a")
    assert connected == []
    keys.forget_all()


def test_the_context_ends_with_its_block() -> None:
    with pytest.raises(RuntimeError), addresses.allowing((NETWORK,)):
        raise RuntimeError
    assert addresses.allowed_networks() == ()


def test_an_api_is_validated_by_its_servers_brand(acme: Brand) -> None:
    command("allow", INSIDE, "--ports", "8443")
    api = declare_api(make_server(Brand.objects.get(pk=acme.pk)), base_url="https://api.acme.internal:8443/v1")
    api.full_clean()
