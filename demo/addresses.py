"""Addresses of the demo's three servers, and a check that their ports are free."""

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HIGHEST_PORT = 65535
ROOT = Path(__file__).resolve().parent.parent
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class DemoError(Exception):
    """A problem whose message is printed to the terminal without a traceback."""


@dataclass(frozen=True)
class Addresses:
    """The product has another host name than brand and chat, because cookies ignore ports."""

    product_port: int = 8000
    brand_port: int = 8001
    chat_port: int = 8002
    scheme: str = field(default="http", kw_only=True)

    @property
    def product(self) -> str:
        return f"{self.scheme}://localhost:{self.product_port}"

    @property
    def brand(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.brand_port}"

    @property
    def chat(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.chat_port}"


def wanted_addresses(arguments: Sequence[str]) -> Addresses:
    """Read the ports from the environment, and the option `--tls` from the command line. Raises `DemoError`."""
    parser = argparse.ArgumentParser(description="A sample brand and a sample chat to try the product with.")
    parser.add_argument("--tls", action="store_true", help="serve https, for Safari and other browsers of WebKit")
    return Addresses(
        scheme="https" if parser.parse_args(arguments).tls else "http",
        product_port=port_from_environment("DEMO_PRODUCT_PORT", Addresses.product_port),
        brand_port=port_from_environment("DEMO_BRAND_PORT", Addresses.brand_port),
        chat_port=port_from_environment("DEMO_CHAT_PORT", Addresses.chat_port),
    )


def port_from_environment(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or not 0 < int(text) <= HIGHEST_PORT:
        raise DemoError(f"{variable} must be a port number, not {text!r}.")
    return int(text)


def folder_from_environment() -> Path:
    return Path(os.environ.get("DEMO_FOLDER", ROOT / ".demo")).resolve()


def refuse_busy_ports(ports: dict[str, int]) -> None:
    for variable, port in ports.items():
        if is_busy(port):
            raise DemoError(
                f"Port {port} is busy: another program listens there, perhaps another demo. "
                f"Stop it, or choose another port with {variable}=... in front of the command."
            )


def is_busy(port: int) -> bool:
    """Check IPv6 too: a browser that opens localhost may try ::1 first."""
    return any(_accepts(family, host, port) for family, host in _LOOPBACK)


def _accepts(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            return probe.connect_ex((host, port)) == 0
    except OSError:
        return False
