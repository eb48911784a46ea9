"""Brands of different admins cannot share a client registration (C5)."""

from time import sleep
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction

from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.models import AuthorizationServer, Brand
from brands.server_rules import refuse_shared_registration
from tests.admin_pages import AdminBrowser, address
from tests.cast import make_server
from tests.concurrency import at_once

pytestmark = pytest.mark.django_db

MESSAGE = "Another brand uses this client id at this server. Register a separate client for this brand there."
SHARED = {"client_id": "shared-client", "token_endpoint": "https://login.acme.example/token"}


@pytest.fixture
def acme_shared(acme: Brand, acme_admin: Any) -> AuthorizationServer:
    """Acme, administered by acme-admin, uses the client id shared-client."""
    return make_server(acme, **SHARED)


def unsaved(brand: Brand, **values: str) -> AuthorizationServer:
    server = make_server(brand, key="second", **(SHARED | values))
    server.delete()
    return server


def is_refused(server: AuthorizationServer) -> bool:
    try:
        refuse_shared_registration(server)
    except ValidationError as error:
        return error.message_dict == {"client_id": [MESSAGE]}
    return False


@pytest.mark.usefixtures("acme_shared")
def test_a_client_of_another_owner_is_refused(rival: Brand, rival_admin: Any) -> None:
    assert is_refused(unsaved(rival))


@pytest.mark.usefixtures("acme_shared")
@pytest.mark.parametrize(
    "values",
    [
        {"token_endpoint": "https://LOGIN.acme.example/other/path?tenant=1"},
        {"token_endpoint": "https://login.acme.example:443/token"},
        {"authorization_endpoint": "https://elsewhere.example/authorize", "issuer": ""},
    ],
)
def test_another_spelling_of_the_same_host_is_the_same_registration(rival: Brand, values: dict[str, str]) -> None:
    assert is_refused(unsaved(rival, **values))


@pytest.mark.usefixtures("acme_shared")
@pytest.mark.parametrize(
    "values", [{"client_id": "Shared-Client"}, {"token_endpoint": "https://login2.acme.example/token"}]
)
def test_another_client_or_another_server_is_another_registration(rival: Brand, values: dict[str, str]) -> None:
    assert not is_refused(unsaved(rival, **values))


def test_one_owner_may_use_a_registration_for_two_brands(
    acme_shared: AuthorizationServer, rival: Brand, acme_admin: Any, rival_admin: Any
) -> None:
    """The owners are the admins: the very same ones, not some of them."""
    rival.admins.set([acme_admin])
    assert not is_refused(unsaved(rival))
    rival.admins.set([acme_admin, rival_admin])
    assert is_refused(unsaved(rival))
    acme_shared.brand.admins.add(rival_admin)
    assert not is_refused(unsaved(rival))


def test_a_viewer_owns_no_registration(
    acme_shared: AuthorizationServer, rival: Brand, acme_admin: Any, rival_admin: Any
) -> None:
    """C5: viewers neither make two owners one, nor one owner two."""
    rival.viewers.set([acme_admin])
    acme_shared.brand.viewers.set([rival_admin])
    assert is_refused(unsaved(rival))
    rival.admins.set([acme_admin])
    rival.viewers.set([rival_admin])
    assert not is_refused(unsaved(rival))


def test_brands_without_admins_are_the_operators_own(acme: Brand, rival: Brand) -> None:
    make_server(acme, **SHARED)
    assert not is_refused(unsaved(rival))


def test_two_servers_of_one_brand_may_share_a_registration(acme: Brand, acme_shared: AuthorizationServer) -> None:
    assert not is_refused(unsaved(acme))


def test_a_server_that_is_switched_off_still_has_its_registration(
    acme_shared: AuthorizationServer, rival: Brand
) -> None:
    AuthorizationServer.objects.update(is_active=False)
    assert is_refused(unsaved(rival))


@pytest.mark.usefixtures("acme_shared")
def test_the_form_says_so_at_the_client_id(rival: Brand, rival_admin: Any, operator: AdminBrowser) -> None:
    """C5: to the brand's admin and to the operator alike; and it names no other brand (J5)."""
    server = make_server(rival)
    for browser in (AdminBrowser(rival_admin), operator):
        answer = browser.send_changed(
            address(AuthorizationServer, "change", server), **SHARED, client_secret="a-secret"
        )
        assert answer.context["adminform"].form.errors == {"client_id": [MESSAGE]}
    assert "Acme" not in MESSAGE
    server.refresh_from_db()
    assert server.client_id == "rival-client"


@pytest.mark.usefixtures("acme_shared")
def test_apply_config_says_so_too() -> None:
    text = """
        [brand]
        slug = "rival"
        name = "Rival"
        [[authorization_servers]]
        key = "orders"
        authorization_endpoint = "https://login.acme.example/authorize"
        token_endpoint = "https://login.acme.example/token"
        client_id = "shared-client"
        client_secret = "a-secret"
        prompt = ""
    """
    with pytest.raises(ConfigurationRefused) as refused:
        apply_configuration(read_configuration(text), {})
    assert refused.value.problems == [f"authorization_servers.orders.client_id: {MESSAGE}"]
    assert not Brand.objects.filter(slug="rival").exists()


def test_new_admins_that_part_a_registration_are_pointed_out(
    acme: Brand, rival: Brand, acme_admin: Any, operator: AdminBrowser
) -> None:
    """Who administers a brand is the operator's decision: told, not refused."""
    make_server(acme, **SHARED)
    make_server(rival, **SHARED)
    rival.admins.set([acme_admin])
    answer = operator.send_changed(address(Brand, "change", acme), admins=[])
    assert answer.status_code == 302
    shown = operator.get(answer["Location"]).content.decode()
    assert "give it a registration of its own" in shown


@pytest.mark.django_db(transaction=True)
def test_of_two_brands_at_once_one_gets_the_registration(acme_admin: Any, acme: Brand, rival: Brand) -> None:
    """C5: neither sees the other's row before it is there; the lock makes them wait for each other."""
    for brand in (acme, rival):
        brand.admins.set([acme_admin] if brand == acme else [])
    servers = [unsaved(brand) for brand in (acme, rival)]

    def save(number: int) -> bool:
        with transaction.atomic():
            if is_refused(servers[number]):
                return False
            sleep(0.2)  # long enough for the other to look for a row that is not there yet
            servers[number].pk = None
            servers[number].save(force_insert=True)
            return True

    assert sorted(at_once(2, save)) == [False, True]
    assert AuthorizationServer.objects.count() == 1


def file_of(brand: Brand, number: int) -> str:
    return f"""
        [brand]
        slug = "{brand.slug}"
        name = "{brand.name} {number}"
        [[authorization_servers]]
        key = "orders"
        authorization_endpoint = "https://login.{brand.slug}.example/authorize"
        token_endpoint = "https://login.{brand.slug}.example/token"
        client_id = "client-{number}"
        client_secret = "a-secret"
        prompt = ""
    """


@pytest.mark.django_db(transaction=True)
def test_two_brands_applied_at_once_do_not_wait_for_each_other_for_ever(acme: Brand, rival: Brand) -> None:
    """C5: each held its own brand when it asked for all of them, and PostgreSQL ended one of the two as a deadlock."""
    brands = (acme, rival)
    for number in range(10):
        files = [read_configuration(file_of(brand, number)) for brand in brands]
        at_once(2, lambda which, files=files: apply_configuration(files[which], {}))  # type: ignore[misc]
        assert [Brand.objects.get(pk=brand.pk).name for brand in brands] == [f"Acme {number}", f"Rival {number}"]
    assert AuthorizationServer.objects.filter(client_id="client-9").count() == 2


@pytest.mark.django_db(transaction=True)
def test_an_admin_who_saves_while_a_file_is_applied_does_not_either(
    acme: Brand, rival: Brand, operator: AdminBrowser
) -> None:
    """C5: the form takes all brands first, too."""
    server = make_server(acme)
    page, file = address(AuthorizationServer, "change", server), file_of(rival, 1)

    def save(which: int) -> Any:
        if which:
            return apply_configuration(read_configuration(file), {})
        return operator.send_changed(page, client_id="another").status_code

    for _ in range(5):
        assert at_once(2, save)[0] == 302
