"""A peer is a process that prints `READY {address}` and serves until its standard input closes."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a peer in `folder`. Yields its address. The peer also stops when this process dies."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | dict(environment or {}),
    ) as peer:
        try:
            yield _address(peer)
        finally:
            peer.terminate()


def _address(peer: subprocess.Popen[str]) -> str:
    assert peer.stdout
    for line in peer.stdout:
        if line.startswith("READY "):
            return line.removeprefix("READY ").strip()
    raise RuntimeError(f"{peer.args!r} did not start; see its output above")
