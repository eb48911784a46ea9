"""docs/bot-developer.md: its shell blocks are pasted into one shell, in their order, against the real servers."""

import json
import shutil
import time
from pathlib import Path
from threading import Timer
from typing import Any, Final

from tests.demo.stage import Stage
from tests.docs.test_bots_in_processes import blocks_of, environment, link_in, program, typed
from tests.machine import missing

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "bot-developer.md"


def test_every_block_of_the_page(stage: Stage) -> None:
    if not shutil.which("curl"):
        missing("curl is not installed: the page docs/bot-developer.md was not tried")
    helpers, call, complete, again, token, endings, ask, wait, repeat, purpose = blocks_of(PAGE)

    # The way to the token needs a key that may read it.
    with program("bash", env=environment(stage, KEY=stage.bot_key)) as shell:

        def paste(block: str) -> list[Any]:
            """Return what the block printed, line by line: JSON decoded, headers as they are."""
            shell.type(f"{block}\necho; echo '--- done'")
            lines = [line for line in shell.reads_until("--- done") if line]
            return [json.loads(line) if line.startswith("{") else line for line in lines]

        assert paste(helpers) == []
        (challenge,) = paste(call)
        code = stage.consumer().gets_code(link_in(challenge["message"]))
        assert paste(typed(complete, f"{code[:3]} {code[3:]}"))[0]["status"] == "authorized"
        assert paste(again)[0]["response"]["body"]["customer"] == "ada"
        assert paste(token)[0]["access_token"]
        ended, closed = paste(endings)
        assert (ended["end_reason"], closed["status"]) == ("rejected", "closed")

        asked = paste(ask)[-1]
        assert asked["status"] == "issued"
        presses = Timer(1, stage.consumer().gets_code, [link_in(asked["message"])])
        presses.start()
        begun = time.monotonic()
        head, *_, now = paste(wait)
        waited = time.monotonic() - begun
        presses.join()
        assert (head.split()[1], now["challenge_id"]) == ("200", asked["challenge_id"])
        assert now["status"] in {"started", "confirmation_needed"}
        assert waited > 0.5  # it was held until the consumer pressed the button

        first, second = paste(repeat), paste(repeat)
        assert first[0]["challenge_id"] == second[0]["challenge_id"] != asked["challenge_id"]
        assert paste(purpose)[0]["code"] == "challenged"
