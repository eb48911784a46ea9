"""A bot key for MCP servers, and clients that start one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.preparation import CALLING_SCOPES, create_bot_key
from tests.demo.stage import Stage
from tests.mcp.players import Client, client

Connect = Callable[..., Client]


@pytest.fixture(scope="session")
def mcp_key(stage: Stage) -> str:
    """The key that the page asks for: it cannot read a token."""
    return create_bot_key(stage.demo.product_environment(), "MCP", CALLING_SCOPES)


@pytest.fixture
def connect(stage: Stage, mcp_key: str, tmp_path: Path) -> Iterator[Connect]:
    with ExitStack() as stack:
        yield lambda mode, **settings: stack.enter_context(
            client(stage, mcp_key, tmp_path / "frames", mode, **settings)
        )
