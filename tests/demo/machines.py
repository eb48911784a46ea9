"""Free ports, and a demo that is running on them."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from demo.__main__ import leave_up
from demo.addresses import Addresses
from demo.preparation import Demo, make_folder, prepare, start_brand, start_product
from demo.processes import Servers

LONG_ENOUGH = 600


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running_servers(folder: Path) -> Iterator[tuple[Demo, Servers, str]]:
    """Run the product, its worker and the sample brand; the third is a bot key."""
    make_folder(folder)
    demo = Demo(Addresses(*free_ports(3)), folder)
    bot_key = prepare(demo)
    with Servers(folder) as servers:
        start_product(demo, servers)
        start_brand(demo, servers, LONG_ENOUGH)
        yield demo, servers, bot_key


@contextmanager
def running_demo(folder: Path) -> Iterator[Demo]:
    """Run everything that `make demo` leaves up, without the journey before it."""
    with running_servers(folder) as (demo, servers, _):
        leave_up(demo, servers)
        yield demo
