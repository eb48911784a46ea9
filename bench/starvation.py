"""Measure whether a brand's hanging token endpoint or API slows bots and consumers of other brands (open loop).

The load is 100 token reads a second and callbacks of another brand. In the second phase, 40 browsers return to the
hanging brand at once. Those that get "busy" try again after about 5 seconds, as `Retry-After` and the page ask them to.
Both phases run twice. `measure_calls` does the same with 40 calls of a hanging API beside the token reads alone.
"""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any, Final

from bench import calls
from bench.calls import Made
from bench.client import Answer, Pool, open_loop
from bench.figures import spread

READS_PER_SECOND: Final = 100
CALLBACKS_PER_SECOND: Final = 10
HANGING_AT_ONCE: Final = 40
PHASE_SECONDS: Final = 6
TURNS: Final = 2
# Each browser may come back to the hanging brand more than once: each time with an attempt of its own.
HANGING_CALLBACKS: Final = HANGING_AT_ONCE * TURNS
RIVAL_CALLBACKS: Final = CALLBACKS_PER_SECOND * PHASE_SECONDS * TURNS * 2
_PAUSE_OF_A_REFUSED: Final = (3.0, 7.0)
_WARM_CALLS: Final = 120
# The answer asks each bot to wait two to six seconds.
_PAUSE_OF_A_BOT: Final = (2.0, 6.0)

Phase = tuple[list[Answer], list[Answer]]


def measure(port: int, made: Made) -> dict[str, Any]:
    """Return the durations of reads and callbacks in both phases, and their ratios."""
    quiet, hanging, refused = asyncio.run(_all_turns(port, made))
    report: dict[str, Any] = {"hanging_callbacks": HANGING_AT_ONCE, "told_to_come_again": refused}
    for place, name, good in ((0, "reads", 200), (1, "other_brand", 303)):
        before, during = ([answer for phase in phases for answer in phase[place]] for phases in (quiet, hanging))
        report[name] = {
            "undisturbed": _figures(before, good),
            "beside_a_hanging_brand": _figures(during, good),
            "p99_ratio": _p99_ratio(before, during),
        }
    return report


def measure_calls(port: int, made: Made) -> dict[str, Any]:
    """Return the durations of token reads without and beside calls of a hanging API, and the ratio."""
    quiet, hanging, refused = asyncio.run(_all_turns_of_calls(port, made))
    return {
        "hanging_calls": HANGING_AT_ONCE,
        "told_to_come_again": refused,
        "undisturbed": _figures(quiet, 200),
        "beside_a_hanging_api": _figures(hanging, 200),
        "p99_ratio": _p99_ratio(quiet, hanging),
    }


async def _all_turns_of_calls(port: int, made: Made) -> tuple[list[Answer], list[Answer], int]:
    reads, hanging = calls.token_reads(made), calls.api_calls(made, "orders.hang")
    quiet, disturbed, refused = [], [], 0
    await _reads(port, reads, seconds=1)
    # Each thread prepares its statements at its first call.
    warm = Pool(port)
    await open_loop(warm.send, calls.api_calls(made)(_WARM_CALLS), _WARM_CALLS / 4)
    warm.close()
    for _ in range(TURNS):
        quiet += await _reads(port, reads)
        bots = [asyncio.create_task(_insist(port, one, _PAUSE_OF_A_BOT)) for one in hanging(HANGING_AT_ONCE)]
        await asyncio.sleep(0.5)  # until the places are taken
        disturbed += await _reads(port, reads)
        for bot in bots:
            bot.cancel()
        refused += sum(await asyncio.gather(*bots))
    return quiet, disturbed, refused


async def _reads(port: int, reads: calls.Writer, seconds: int = PHASE_SECONDS) -> list[Answer]:
    pool = Pool(port)
    answers = await open_loop(pool.send, reads(READS_PER_SECOND * seconds), READS_PER_SECOND)
    pool.close()
    return answers


def _figures(answers: list[Answer], good: int) -> dict[str, float]:
    errors = sum(answer.status != good for answer in answers)
    return spread([answer.milliseconds for answer in answers]) | {"errors": errors}


def _p99_ratio(before: list[Answer], during: list[Answer]) -> float:
    undisturbed = spread([answer.milliseconds for answer in before])["p99_ms"]
    disturbed = spread([answer.milliseconds for answer in during])["p99_ms"]
    return round(disturbed / undisturbed, 2) if undisturbed else 0.0


async def _all_turns(port: int, made: Made) -> tuple[list[Phase], list[Phase], int]:
    reads, others = calls.token_reads(made), calls.once_each(made["rival_callbacks"], calls.callback)
    hanging = calls.once_each(made["hanging_callbacks"], calls.callback)
    quiet_phases, hanging_phases, refused = [], [], 0
    await _phase(port, reads, others, seconds=1)
    for _ in range(TURNS):
        quiet_phases.append(await _phase(port, reads, others))
        browsers = [asyncio.create_task(_insist(port, request)) for request in hanging(HANGING_AT_ONCE)]
        await asyncio.sleep(0.5)  # until the brand's slots are taken
        hanging_phases.append(await _phase(port, reads, others))
        for browser in browsers:
            browser.cancel()
        came_again = await asyncio.gather(*browsers)
        refused += sum(came_again)
    return quiet_phases, hanging_phases, refused


async def _phase(port: int, reads: calls.Writer, others: calls.Writer, seconds: int = PHASE_SECONDS) -> Phase:
    pool, callbacks = Pool(port), Pool(port)
    both: tuple[Awaitable[list[Answer]], Awaitable[list[Answer]]] = (
        open_loop(pool.send, reads(READS_PER_SECOND * seconds), READS_PER_SECOND),
        open_loop(callbacks.send, others(CALLBACKS_PER_SECOND * seconds), CALLBACKS_PER_SECOND),
    )
    done = await asyncio.gather(*both)
    pool.close()
    callbacks.close()
    return done[0], done[1]


async def _insist(port: int, request: bytes, pause: tuple[float, float] = _PAUSE_OF_A_REFUSED) -> int:
    """Return to the hanging brand until cancelled. Return how often the request was refused at once."""
    refused, pool = 0, Pool(port)
    try:
        while True:
            answer = await pool.send(request)
            refused += answer.status == 503
            await asyncio.sleep(random.uniform(*pause))
    except asyncio.CancelledError:
        return refused
    finally:
        pool.close()
