"""The calls that the examples beside this file share. Needs only requests; copy it with the example you take."""

import hashlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import requests

Json = dict[str, Any]
LONGEST_ID = 200


def chat_in_room(room: str, person: str) -> str:
    """Return the conversation id of one person's chat in a room. Different pairs get different ids."""
    if not (room and person):
        raise ValueError("name both: without the person, everybody in the room would share one permission")
    # Of the characters that an id may have, "|" and "=" are kept for this. All others become = and two hex digits.
    parts = (part.encode("utf-8", "surrogatepass") for part in (room, person))
    other = re.compile(rb"[^A-Za-z0-9._~:@;,+!$*()-]")
    chat = b"|".join(other.sub(lambda found: b"=%02X" % ord(found[0]), part) for part in parts).decode()
    return chat if len(chat) <= LONGEST_ID else f"sha256={hashlib.sha256(chat.encode()).hexdigest()}"


class SignInNeeded(Exception):
    """There is no token yet: send the consumer `message`, or `url` as a button, unless they only owe us the code."""

    def __init__(self, challenge: Json) -> None:
        super().__init__(challenge["challenge_id"])
        self.challenge = challenge
        self.message: str = challenge["message"]
        self.url: str = challenge["url"]
        self.awaits_code: bool = challenge["status"] == "confirmation_needed"


class Problem(Exception):
    """Any other answer, by its stable `code`: `conversation_closed`, `completion_code_incorrect`, `rate_limited` ..."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(status, body.get("code"))
        self.status, self.code = status, str(body.get("code", ""))
        self.attempts_left: int | None = body.get("attempts_left")


class Delegation:
    def __init__(self, base: str, key: str) -> None:
        self.base, self.key = base, key

    def call_as_consumer(
        self, conversation_id: str, ask_brand: Callable[[str], requests.Response], **wishes: Any
    ) -> requests.Response:
        """Call the brand's API with the consumer's token. Raises `SignInNeeded` and `Problem`."""
        session, token = self.access_token(conversation_id, **wishes)
        response = ask_brand(token)
        if response.status_code == 401:
            # The brand took the token back before its time: say so, and there is a new link to send. With the session,
            # a call that arrives late ends nobody else's token.
            try:
                self._conversation("DELETE", conversation_id, f"/token?reason=rejected&session={session}")
            except Problem as problem:
                if problem.status != 409:  # 409: it has ended meanwhile, which is what we want
                    raise
            response = ask_brand(self.access_token(conversation_id, **wishes)[1])
        return response

    def access_token(self, conversation_id: str, **wishes: Any) -> tuple[int, str]:
        """Return the session and the token. Raises `SignInNeeded` and `Problem`."""
        status, answer = self._conversation("POST", conversation_id, "/authorize", {"min_ttl": 30, **wishes})
        if status == 202:
            raise SignInNeeded(answer)
        return int(answer["session"]), str(answer["access_token"])

    def complete(self, conversation_id: str, code: str) -> None:
        """Pass on what the consumer typed. Raises `Problem`: `completion_code_incorrect` comes with `attempts_left`."""
        body = {"code": code, "session": self.session(conversation_id)}
        self._conversation("POST", conversation_id, "/completion", body)

    def conversation(self, conversation_id: str) -> Json:
        return self._conversation("GET", conversation_id)[1]

    def session(self, conversation_id: str) -> int:
        """Return the session that is going on. A call that names it meets no later one, however late it arrives."""
        return int(self.conversation(conversation_id)["session"])

    def challenge(self, challenge_id: str) -> Json:
        return self._call("GET", f"/challenges/{challenge_id}")[1]

    def close(self, conversation_id: str) -> Json:
        """End the chat: all that was granted in it is erased."""
        return self._conversation("DELETE", conversation_id, f"?session={self.session(conversation_id)}")[1]

    def _conversation(
        self, method: str, conversation_id: str, rest: str = "", body: Json | None = None
    ) -> tuple[int, Json]:
        # The messaging platform's own id, such as 19:abc@thread.tacv2;messageid=1, is part of a path here.
        return self._call(method, f"/conversations/{quote(conversation_id, safe='')}{rest}", body)

    def _call(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        response = request(method, f"{self.base}{path}", self.key, body)
        if not response.ok:
            raise Problem(response.status_code, response.json())
        return response.status_code, response.json()


def request(method: str, url: str, bearer: str, body: Json | None = None) -> requests.Response:
    """Send one request with a bearer token, ours or the brand's, and to nobody else."""

    def authenticate(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        # Handed over as `auth`, since a .netrc file replaces a header that is merely set.
        prepared.headers["Authorization"] = f"Bearer {bearer}"
        return prepared

    return requests.request(method, url, json=body, auth=authenticate, timeout=30, allow_redirects=False)
