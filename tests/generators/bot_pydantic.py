"""A whole bot with httpx, and the models that datamodel-code-generator generates."""

import json
import os
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
from delegation_models import AccessToken, Challenge, ClosedConversation, IssuedChallenge, Problem, Standing
from pydantic import TypeAdapter

http = httpx.Client(
    base_url=os.environ["BASE"] + "/", headers={"Authorization": f"Bearer {os.environ['KEY']}"}, timeout=30
)
CHAT = "conversations/" + quote(os.environ["CHAT"], safe="")
WISH = {"purpose": "to look up your order", "min_ttl": 30}
# `authorize` answers 200 or 202: the body alone tells which.
authorized = TypeAdapter[AccessToken | IssuedChallenge](AccessToken | IssuedChallenge)


def say(step: str, **told: str) -> None:
    print(json.dumps({"step": step, **told}), flush=True)


def problem(answer: httpx.Response, status: int, code: str) -> Problem:
    assert answer.status_code == status, answer.text
    refused = Problem.model_validate_json(answer.content)
    assert refused.code == code, refused
    return refused


asked = http.post(f"{CHAT}/authorize", json=WISH)
challenge = authorized.validate_json(asked.content)
assert isinstance(challenge, IssuedChallenge), challenge
assert not challenge.error
say("challenge")

early = problem(http.get(f"{CHAT}/token"), 409, "challenged")
assert early.next
assert early.next.operation == "readChallenge"
say("conflict")


ADDRESS, TAG = f"challenges/{challenge.challenge_id}", {"If-None-Match": asked.headers["ETag"]}


def poll(wait: int) -> httpx.Response:
    return http.get(ADDRESS, params={"wait": wait}, headers=TAG)


assert poll(1).status_code == 304
say("unchanged", url=str(challenge.url))

code = sys.stdin.readline().strip()
changed = Challenge.model_validate_json(poll(25).content)
assert changed.status == "confirmation_needed", changed
assert not changed.error
say("signed_in")

wrong = f"{(int(code) + 1) % 1_000_000:06}"
refused = problem(http.post(f"{CHAT}/completion", json={"code": wrong}), 422, "completion_code_incorrect")
assert refused.attempts_left == 4
say("wrong_code")

confirmed = Standing.model_validate_json(http.post(f"{CHAT}/completion", json={"code": code}).content)
assert confirmed.status == "authorized", confirmed
granted = authorized.validate_json(http.post(f"{CHAT}/authorize", json=WISH).content)
assert isinstance(granted, AccessToken)
bearer = {"Authorization": f"Bearer {granted.access_token}"}
assert httpx.get(os.environ["ORDERS"], headers=bearer).status_code == 200
say("token")

assert ClosedConversation.model_validate_json(http.delete(CHAT).content).status == "closed"
problem(http.get(f"{CHAT}/token"), 410, "conversation_closed")
say("closed")

tomorrow = json.loads(Path("tomorrow.json").read_text())
Challenge.model_validate(tomorrow["challenge"])
assert Problem.model_validate(tomorrow["problem"]).code == "of_tomorrow"
say("tomorrow")
