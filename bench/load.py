"""A closed loop: a fixed number of connections, each sending its next request after it got its answer.

Uses wrk if it is installed. Otherwise it uses our own client, which checks answers in the same way but needs more CPU
time of the core that it shares with the database. Then ratios within a run are comparable, rates between machines are
not.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.client import Connection
from bench.figures import Round, percentile
from bench.processes import OTHER_CORE, base_environment, on_core

SCRIPT: Final = Path(__file__).with_name("requests.lua")
_TIMEOUT_SECONDS: Final = 20


def wrk() -> str | None:
    """The path of wrk; None if it is not installed."""
    return shutil.which("wrk")


def closed_loop(port: int, requests: Sequence[bytes], *, seconds: int, connections: int, again: bool) -> Round:
    """Load a server. A missing answer, and any answer that is not a success or a redirect, counts as an error."""
    with on_core(OTHER_CORE):
        if wrk():
            return _with_wrk(port, requests, seconds, connections, again=again)
        return asyncio.run(_with_our_own(port, requests, seconds, connections, again=again))


def _with_wrk(port: int, requests: Sequence[bytes], seconds: int, connections: int, *, again: bool) -> Round:
    with tempfile.NamedTemporaryFile(suffix=".requests") as file:
        for request in requests:
            file.write(b"%d\n" % len(request) + request)
        file.flush()
        result = subprocess.run(
            [
                wrk() or "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s",
                "--timeout", f"{_TIMEOUT_SECONDS}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}",
                "--", file.name, "again" if again else "once",
            ],
            env=base_environment(),
            capture_output=True,
            text=True,
            check=True,
        )  # fmt: skip
    found = [line for line in result.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise RuntimeError(f"wrk's output cannot be parsed:\n{result.stdout}{result.stderr}")
    said = json.loads(found[0].removeprefix("RESULT "))
    return Round(
        answers=said["answers"],
        seconds=said["microseconds"] / 1e6,
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
        errors=said["errors"],
    )


async def _with_our_own(port: int, requests: Sequence[bytes], seconds: int, connections: int, *, again: bool) -> Round:
    loop = asyncio.get_running_loop()
    began, left, durations, errors = loop.time(), iter(requests), [], 0

    async def one_connection() -> None:
        nonlocal left, errors
        connection = Connection(port)
        while loop.time() - began < seconds:
            request = next(left, None)
            if request is None and again:
                left = iter(requests)
                request = next(left)
            if request is None:
                errors += 1
                break
            sent = loop.time()
            answer = await connection.send(request, timeout=_TIMEOUT_SECONDS)
            durations.append((loop.time() - sent) * 1e3)
            errors += answer.status is None or answer.status >= 400
        connection.close()

    await asyncio.gather(*(one_connection() for _ in range(connections)))
    return Round(
        answers=len(durations),
        seconds=loop.time() - began,
        p50_ms=percentile(durations, 50),
        p99_ms=percentile(durations, 99),
        errors=errors,
    )
