"""Long polls at a real gunicorn: a quarter of the threads wait, and no token read and no restart waits for them."""

import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.installation import Installation
from tests.served import installation_at_a_free_port, prepared, serving

THREADS, MAY_WAIT, POLLS = 8, 2, 50
# The 25 seconds of a wait. Whatever is over sooner did not wait for its end.
BEFORE_ITS_TIME = 25


@dataclass
class Api:
    """Acme's bot over HTTP, each call on a connection of its own."""

    base: str
    key: str

    def call(self, method: str, path: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return requests.request(method, f"{self.base}/api/v1{path}", headers=headers, timeout=60)

    def poll(self, challenge_id: str) -> requests.Response:
        return self.call("GET", f"/challenges/{challenge_id}?wait=25")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return installation_at_a_free_port(tmp_path, THREADS=str(THREADS))


def test_fifty_polls_at_once_leave_the_token_read_its_threads(installation: Installation) -> None:
    made = prepared(installation, ["issued", "completed"])
    api = Api(installation.settings["PUBLIC_BASE_URL"], made["key"])
    challenge_id = made["chats"]["web:0"]["challenge_id"]
    with serving(installation), ThreadPoolExecutor(POLLS) as bots:
        begun = time.monotonic()
        polls = [bots.submit(api.poll, challenge_id) for _ in range(POLLS)]
        at_once = [poll.result() for _, poll in zip(range(POLLS - MAY_WAIT), as_completed(polls), strict=False)]
        reads = [api.call("GET", "/conversations/web:1/token") for _ in range(20)]
        still_waiting = [poll for poll in polls if not poll.done()]
        assert len(still_waiting) == MAY_WAIT
        assert api.call("DELETE", f"/challenges/{challenge_id}").status_code == 200
        woken = [poll.result() for poll in still_waiting]
        assert time.monotonic() - begun < BEFORE_ITS_TIME
    assert {(read.status_code, read.json()["access_token"]) for read in reads} == {(200, "token-1")}
    assert {(answer.status_code, answer.json()["status"]) for answer in at_once} == {(200, "issued")}
    assert {answer.headers["Retry-After"] for answer in at_once} <= {"1", "2", "3"}
    assert [(answer.json()["status"], "Retry-After" in answer.headers) for answer in woken] == [
        ("withdrawn", False)
    ] * 2


def test_a_restart_does_not_wait_for_those_who_wait(installation: Installation) -> None:
    """Gunicorn lets requests under way end, for up to 30 seconds."""
    made = prepared(installation, ["issued"])
    api = Api(installation.settings["PUBLIC_BASE_URL"], made["key"])
    with ThreadPoolExecutor(MAY_WAIT + 1) as bots:
        with serving(installation):
            path, begun = made["chats"]["web:0"]["challenge_id"], time.monotonic()
            polls = [bots.submit(api.poll, path) for _ in range(MAY_WAIT + 1)]
            one_too_many = next(as_completed(polls))
            assert "Retry-After" in one_too_many.result().headers
            waiting = [poll for poll in polls if not poll.done()]
        assert time.monotonic() - begun < BEFORE_ITS_TIME
        # It has gone, and not without answering.
        answers = [poll.result() for poll in waiting]
    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "issued")] * MAY_WAIT
