"""`python -m demo.journey`: play the whole journey between real processes. Exits 0 only if every check passed."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import requests

from demo.addresses import Addresses, DemoError, folder_from_environment, refuse_busy_ports, wanted_addresses
from demo.bot_api import BotApi
from demo.browser import BrowserError
from demo.preparation import (
    CALLING_SCOPES,
    Demo,
    create_bot_key,
    make_folder,
    prepare,
    start_brand,
    start_product,
)
from demo.processes import Servers, throw_away_certificate
from demo.story import CUSTOMER, LONGEST_TOKEN_LIFE, Journey
from demo.transcript import Transcript, conceal


def play(demo: Demo, servers: Servers, bot_key: str) -> None:
    start_product(demo, servers)
    start_brand(demo, servers, token_lifetime=LONGEST_TOKEN_LIFE)
    transcript = Transcript()
    print()
    transcript.note(f"The product is {demo.addresses.product}, the sample brand is {demo.addresses.brand}.")
    transcript.note(
        "Secrets are shortened and empty fields are left out. Everything else is shown as it was sent over HTTP."
    )
    bot = BotApi(demo.addresses.product, bot_key)
    calling_key = create_bot_key(demo.product_environment(), "Calls only", CALLING_SCOPES)
    caller = BotApi(demo.addresses.product, calling_key)
    try:
        Journey(demo.addresses, bot, caller, demo.customers[CUSTOMER], transcript).play()
    except (DemoError, BrowserError, requests.RequestException, KeyError) as error:
        where = f"The journey stopped in chapter {transcript.chapters}."
        raise DemoError(f"{servers.logs()}\n\n{where} {conceal(str(error))}") from error
    print()
    transcript.note(f"The whole journey held: {transcript.checks} checks in {transcript.chapters} chapters.")


@contextmanager
def prepared(addresses: Addresses, ports: dict[str, int]) -> Iterator[tuple[Demo, Servers, str]]:
    folder = folder_from_environment()
    refuse_busy_ports(ports)
    make_folder(folder)
    print("Setting up: two databases, one brand, one bot key, two customers ...", flush=True)
    certificate = throw_away_certificate(folder) if addresses.scheme == "https" else None
    if certificate:
        os.environ["DEMO_CA_FILE"] = str(certificate.ca_file)  # for our own calls, and calls between the servers
    demo = Demo(addresses, folder)
    bot_key = prepare(demo)
    with Servers(folder, certificate) as servers:
        yield demo, servers, bot_key


def as_program(main: Callable[[], None]) -> int:
    """Run `main`. Ctrl-C, SIGTERM and SIGHUP stop all servers first. A `DemoError` is printed without a traceback."""
    # A shell ignores SIGINT for a program in the background; we handle it anyway.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        main()
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def journey() -> None:
    addresses = wanted_addresses(sys.argv[1:])
    ports = {"DEMO_PRODUCT_PORT": addresses.product_port, "DEMO_BRAND_PORT": addresses.brand_port}
    with prepared(addresses, ports) as (demo, servers, bot_key):
        play(demo, servers, bot_key)


if __name__ == "__main__":
    sys.exit(as_program(journey))
