"""Closed-loop load: a fixed number of connections, each of which sends a request when the last one was answered.

Uses wrk if it is installed, else our own client. Our client needs more of the core that it shares with the database, so
its rates must not be compared with those of wrk; ratios within one run can be compared.
"""

import asyncio
import json
import math
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.client import Connection
from bench.figures import Round, percentile
from bench.processes import OTHER_CORE, base_environment, on_core

SCRIPT: Final = Path(__file__).with_name("requests.lua")
_TIMEOUT_SECONDS: Final = 20


def wrk() -> str | None:
    """Return the path of wrk; None if it is not installed."""
    return shutil.which("wrk")


def closed_loop(port: int, requests: Sequence[bytes], *, seconds: float, connections: int, again: bool) -> Round:
    """Load a server. A missing response, or one that is neither a success nor a redirect, is an error."""
    with on_core(OTHER_CORE):
        if wrk():
            return _with_wrk(port, requests, seconds, connections, again=again)
        return asyncio.run(_with_our_own(port, requests, seconds, connections, again=again))


def _with_wrk(port: int, requests: Sequence[bytes], seconds: float, connections: int, *, again: bool) -> Round:
    with tempfile.NamedTemporaryFile(suffix=".requests") as file:
        for request in requests:
            file.write(b"%d\n" % len(request) + request)
        file.flush()
        # wrk knows whole seconds only. SIGINT ends it sooner, and it says how long it has really taken.
        process = subprocess.Popen(
            [
                wrk() or "wrk", "--threads", "1", "--connections", str(connections),
                "--duration", f"{math.ceil(seconds) + _TIMEOUT_SECONDS}s",
                "--timeout", f"{_TIMEOUT_SECONDS}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}",
                "--", file.name, "again" if again else "once",
            ],
            env=base_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        with process:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            output, reasons = process.communicate(timeout=2 * _TIMEOUT_SECONDS)
    found = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise RuntimeError(f"wrk said nothing that can be read:\n{output}{reasons}")
    said = json.loads(found[0].removeprefix("RESULT "))
    return Round(
        answers=said["answers"],
        seconds=said["microseconds"] / 1e6,
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
        errors=said["errors"],
    )


async def _with_our_own(
    port: int, requests: Sequence[bytes], seconds: float, connections: int, *, again: bool
) -> Round:
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
