"""A whole bot with the client that openapi-python-client generates."""

import json
import os
import sys
from pathlib import Path

import httpx
from consumer_delegation_client import AuthenticatedClient
from consumer_delegation_client.api.challenges import complete, read_challenge
from consumer_delegation_client.api.conversations import close_conversation
from consumer_delegation_client.api.tokens import authorize, read_token
from consumer_delegation_client.models import (
    AccessToken,
    AuthorizeRequest,
    Challenge,
    ClosedConversation,
    CodeCompletion,
    Confirmation,
    IssuedChallenge,
    Problem,
)

client = AuthenticatedClient(base_url=os.environ["BASE"], token=os.environ["KEY"], timeout=httpx.Timeout(30))
CHAT = os.environ["CHAT"]
WISH = AuthorizeRequest(purpose="to look up your order", min_ttl=30)


def say(step: str, **told: str) -> None:
    print(json.dumps({"step": step, **told}), flush=True)


asked = authorize.sync_detailed(CHAT, client=client, body=WISH)
challenge = asked.parsed
assert isinstance(challenge, IssuedChallenge), challenge
assert not challenge.error
say("challenge")

early = read_token.sync(CHAT, client=client)
assert isinstance(early, Problem), early
assert early.code == "challenged", early
assert early.next_
assert early.next_.operation == "readChallenge"
say("conflict")

ID, TAG = str(challenge.challenge_id), asked.headers["ETag"]
assert read_challenge.sync_detailed(ID, client=client, wait=1, if_none_match=TAG).status_code == 304
say("unchanged", url=str(challenge.url))

code = sys.stdin.readline().strip()
changed = read_challenge.sync(ID, client=client, wait=25, if_none_match=TAG)
assert isinstance(changed, Challenge), changed
assert changed.status == "confirmation_needed"
assert not changed.error
say("signed_in")

wrong = f"{(int(code) + 1) % 1_000_000:06}"
refused = complete.sync(CHAT, client=client, body=CodeCompletion(code=wrong))
assert isinstance(refused, Problem), refused
assert refused.attempts_left == 4
say("wrong_code")

confirmed = complete.sync(CHAT, client=client, body=CodeCompletion(code=code))
assert isinstance(confirmed, Confirmation), confirmed
assert confirmed.status == "authorized"
granted = authorize.sync(CHAT, client=client, body=WISH)
assert isinstance(granted, AccessToken), granted
bearer = {"Authorization": f"Bearer {granted.access_token}"}
assert httpx.get(os.environ["ORDERS"], headers=bearer).status_code == 200
say("token")

closed = close_conversation.sync(CHAT, client=client)
assert isinstance(closed, ClosedConversation), closed
gone = read_token.sync_detailed(CHAT, client=client)
assert gone.status_code == 410
say("closed")

tomorrow = json.loads(Path("tomorrow.json").read_text())
assert Challenge.from_dict(tomorrow["challenge"]).additional_properties == {"member_of_tomorrow": 1}
assert Problem.from_dict(tomorrow["problem"]).code == "of_tomorrow"
say("tomorrow")
