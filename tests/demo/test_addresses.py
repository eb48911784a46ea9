import socket

import pytest

from demo.addresses import Addresses, DemoError, addresses_from_environment, refuse_busy_ports


def test_product_and_brand_have_different_hosts_since_cookies_ignore_ports() -> None:
    here = Addresses()
    assert (here.product, here.brand, here.chat) == (
        "http://localhost:8000",
        "http://127.0.0.1:8001",
        "http://127.0.0.1:8002",
    )


def test_ports_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_BRAND_PORT", "9001")
    assert addresses_from_environment().brand == "http://127.0.0.1:9001"


@pytest.mark.parametrize("port", ["", "eight", "0", "65536", "-1"])
def test_a_port_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("DEMO_CHAT_PORT", port)
    with pytest.raises(DemoError, match="DEMO_CHAT_PORT"):
        addresses_from_environment()


def test_a_busy_port_is_told_with_the_way_around_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(DemoError, match=f"Port {port} is busy.*DEMO_BRAND_PORT"):
            refuse_busy_ports({"DEMO_BRAND_PORT": port})


def test_a_free_port_is_fine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    refuse_busy_ports({"DEMO_BRAND_PORT": port})
