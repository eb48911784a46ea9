"""The servers that `make demo` leaves running, once for all tests of a process."""

from collections.abc import Iterator

import pytest

from demo.preparation import Demo
from tests.demo.machines import running_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The running demo. Each test uses its own chats."""
    with running_demo(tmp_path_factory.mktemp("demo") / "folder") as demo:
        yield demo
