import socket

import pytest

from demo.__main__ import which_browsers
from demo.addresses import Addresses, DemoError, refuse_busy_ports, wanted_addresses


def test_product_and_brand_have_different_hosts_since_cookies_ignore_ports() -> None:
    here = Addresses()
    assert (here.product, here.brand, here.chat) == (
        "http://localhost:8000",
        "http://127.0.0.1:8001",
        "http://127.0.0.1:8002",
    )


def test_ports_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_BRAND_PORT", "9001")
    assert wanted_addresses([]).brand == "http://127.0.0.1:9001"


def test_tls_is_a_switch() -> None:
    here = wanted_addresses(["--tls"])
    assert {address.partition(":")[0] for address in (here.product, here.brand, here.chat)} == {"https"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_demo_says_at_its_start_which_browsers_it_works_in(scheme: str) -> None:
    said = " ".join(which_browsers(Addresses(scheme=scheme)).split())
    assert ("Safari, and every browser on an iPhone" in said) == ("make demo ARGS=--tls" in said) == (scheme == "http")
    assert ("adds nothing to a trust store" in said) == (scheme == "https")


@pytest.mark.parametrize("port", ["", "eight", "0", "65536", "-1"])
def test_a_port_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("DEMO_CHAT_PORT", port)
    with pytest.raises(DemoError, match="DEMO_CHAT_PORT"):
        wanted_addresses([])


def test_a_busy_port_is_told_with_the_way_around_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(DemoError, match=f"Port {port} is busy.*DEMO_BRAND_PORT"):
            refuse_busy_ports({"DEMO_BRAND_PORT": port})


def test_a_free_port_is_fine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    refuse_busy_ports({"DEMO_BRAND_PORT": port})
