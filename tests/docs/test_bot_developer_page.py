"""docs/bot-developer.md: its shell blocks are pasted into one shell, against the real servers."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from tests.demo.stage import Stage
from tests.docs.test_bots_in_processes import blocks_of, environment, link_in, program
from tests.machine import missing

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "bot-developer.md"


def test_every_block_of_the_page(stage: Stage) -> None:
    if not shutil.which("curl"):
        missing("curl is not installed: the page docs/bot-developer.md was not tried")
    helpers, authorize, complete, again, endings, wait, repeat, purpose = blocks_of(PAGE)

    with program("bash", env=environment(stage)) as shell:

        def paste(block: str) -> list[Any]:
            """Return what the block printed, line by line: JSON decoded, headers as they are."""
            shell.type(f"{block}\necho; echo '--- done'")
            lines = [line for line in shell.reads_until("--- done") if line]
            return [json.loads(line) if line.startswith("{") else line for line in lines]

        assert paste(helpers) == []
        (challenge,) = paste(authorize)
        code = stage.consumer().gets_code(link_in(challenge["message"]))
        assert paste(f"CODE='{code[:3]} {code[3:]}'\n{complete}")[0]["status"] == "authorized"
        (token,) = paste(again)
        assert paste(purpose)[0]["access_token"] == token["access_token"]

        head, *headers, now = paste(f"CHALLENGE_ID={challenge['challenge_id']}\n{wait}")
        assert (head.split()[1], now["status"]) == ("200", "completed")
        (tag,) = [line.partition(": ")[2] for line in headers if line.lower().startswith("etag:")]
        assert paste(f"ETAG='{tag}'\n{wait}")[0].split()[1] == "304"

        first, second = paste(repeat), paste(repeat)
        assert first[0]["challenge_id"] == second[0]["challenge_id"] != challenge["challenge_id"]
        ended, closed = paste(endings)
        assert (ended["end_reason"], closed["status"]) == ("rejected", "closed")
