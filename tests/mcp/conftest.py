"""A bot key for MCP servers, and clients that start one."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.preparation import CALLING_SCOPES, create_bot_key
from tests.demo.stage import Stage
from tests.mcp.players import Client, client
from tests.mcp.sites import Site, serving_people

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


@pytest.fixture(scope="session")
def state_key() -> str:
    return secrets.token_hex(32)


@pytest.fixture(scope="session")
def state_keys_file(state_key: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "states"
    file.write_text(f"{state_key}\n")
    return file


@pytest.fixture(scope="session")
def site(stage: Stage, mcp_key: str, state_keys_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests: each has people of its own."""
    settings = {"CONSUMER_DELEGATION_STATE_KEYS_FILE": str(state_keys_file)}
    with serving_people(stage, mcp_key, tmp_path_factory.mktemp("site") / "frames", **settings) as running:
        yield running
