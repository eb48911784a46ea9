"""Measure 500 long polls at once (`GET /challenges/{id}?wait=...`), and token reads beside them.

A limited number waits. The others are answered at once with `Retry-After`. The reads must not become slower. As in
deploy/nginx.conf, the polls have a group of processes of their own; for comparison they also go to that of the reads.
The polls are sent by a process of their own, so that sending them delays no read.
"""

import asyncio
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Final

from bench import calls, cast
from bench.calls import Made
from bench.client import Answer, Pool, open_loop
from bench.figures import spread

AT_ONCE: Final = 500
SECONDS: Final = 6
READS_PER_SECOND: Final = 100
# The requested wait in seconds: as long as the reads last. A bot would ask for 25.
_WAIT: Final = 10
# Of the process that sends the polls. It shares its core with the database and with what sends the reads.
_NICE: Final = 10


def measure(reads_port: int, polls_port: int, made: Made) -> dict[str, Any]:
    """Return how the long polls were answered, and the reads' durations without and with them."""
    challenges = _open_challenges(reads_port, made)
    quiet = asyncio.run(_undisturbed(reads_port, made))
    report = _beside(reads_port, polls_port, made, challenges, quiet)
    return report | {"one_group": _beside(reads_port, reads_port, made, challenges, quiet)["reads"]}


def _beside(
    reads_port: int, polls_port: int, made: Made, challenges: list[str], before: dict[str, float]
) -> dict[str, Any]:
    beside, waited = asyncio.run(_both(reads_port, polls_port, made, challenges))
    at_once = [answer for answer in waited if answer.retry_after]
    during = _figures(beside)
    return {
        "asked_at_once": AT_ONCE,
        "waited": len(waited) - len(at_once),
        "told_to_come_again": len(at_once),
        "told_to_come_again_ms": spread([answer.milliseconds for answer in at_once]),
        "errors": sum(answer.status != 200 for answer in waited),
        "reads": {
            "undisturbed": before,
            "beside_waiting": during,
            "p99_ratio": round(during["p99_ms"] / before["p99_ms"], 2) if before["p99_ms"] else 0.0,
        },
    }


def _figures(answers: list[Answer]) -> dict[str, float]:
    errors = sum(answer.status != 200 for answer in answers)
    return spread([answer.milliseconds for answer in answers]) | {"errors": errors}


def _open_challenges(port: int, made: Made) -> list[str]:
    """Create challenges for the polls; return their ids."""

    async def create() -> list[str]:
        pool = Pool(port)
        answers = [await pool.send(request) for request in calls.creations(made)(20)]
        pool.close()
        return [calls.challenge_id(answer.body) for answer in answers]

    return asyncio.run(create())


def _wait(made: Made, challenge: str, seconds: int) -> bytes:
    path = f"/api/v1/challenges/{challenge}?wait={seconds}"
    return calls.proxied("GET", path, Authorization=calls.bearer(made, cast.ACME))


async def _undisturbed(reads_port: int, made: Made) -> dict[str, float]:
    reads, pool = calls.token_reads(made)(READS_PER_SECOND * SECONDS), Pool(reads_port)
    await open_loop(pool.send, reads[:READS_PER_SECOND], READS_PER_SECOND)
    quiet = await open_loop(pool.send, reads, READS_PER_SECOND)
    pool.close()
    return _figures(quiet)


async def _both(
    reads_port: int, polls_port: int, made: Made, challenges: list[str]
) -> tuple[list[Answer], list[Answer]]:
    reads, pool = calls.token_reads(made)(READS_PER_SECOND * SECONDS), Pool(reads_port)
    await open_loop(pool.send, reads[:READS_PER_SECOND], READS_PER_SECOND)
    requests = [_wait(made, challenges[number % len(challenges)], _WAIT) for number in range(AT_ONCE)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=os.nice, initargs=(_NICE,)) as other:
        await asyncio.wrap_future(other.submit(int))  # it has started and imported what it needs
        waiting = asyncio.wrap_future(other.submit(_poll, polls_port, requests))
        beside = await open_loop(pool.send, reads, READS_PER_SECOND)
        waited = await waiting
    pool.close()
    return beside, waited


def _poll(port: int, requests: list[bytes]) -> list[Answer]:
    """Send all polls within a tenth of a second, and return their answers."""

    async def poll() -> list[Answer]:
        pool = Pool(port)
        answers = await open_loop(pool.send, requests, AT_ONCE * 10)
        pool.close()
        return answers

    return asyncio.run(poll())
