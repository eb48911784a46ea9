"""A bot's HTTP calls: our JSON API with a bot key, and the brand's API with an access token."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

TIMEOUT = 15
Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One request and its response."""

    method: str
    url: str
    sent: Json | None
    status: int
    body: Json
    headers: Mapping[str, str]

    @property
    def is_ok(self) -> bool:
        return self.status == HTTPStatus.OK

    @property
    def code(self) -> str:
        """The stable `code` of a problem (RFC 9457); empty for other responses."""
        return str(self.body.get("code", ""))


def call(method: str, url: str, bearer: str, sent: Json | None = None) -> Answer:
    # Follow no redirect and read no .netrc: a redirect could leak the token, and .netrc could replace it.
    with requests.Session() as session:
        session.trust_env = False
        session.verify = os.environ.get("DEMO_CA_FILE") or True
        session.headers["Authorization"] = f"Bearer {bearer}"
        response = session.request(method, url, json=sent, timeout=TIMEOUT, allow_redirects=False)
    return Answer(method, url, sent, response.status_code, json_of(response), response.headers)


def json_of(response: requests.Response) -> Json:
    try:
        body = response.json()
    except requests.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


@dataclass(frozen=True)
class BotApi:
    base_url: str
    key: str

    def challenge(self, conversation_id: str, **wishes: object) -> Answer:
        return self._conversation("POST", conversation_id, "/challenges", wishes)

    def authorize(self, conversation_id: str, **wishes: object) -> Answer:
        return self._conversation("POST", conversation_id, "/authorize", wishes)

    def read_challenge(self, challenge_id: str) -> Answer:
        return call("GET", f"{self.base_url}/api/v1/challenges/{challenge_id}", self.key)

    def complete(self, conversation_id: str, code: str) -> Answer:
        return self._conversation("POST", conversation_id, "/completion", {"code": code})

    def complete_with_handle(self, conversation_id: str, handle: str) -> Answer:
        return self._conversation("POST", conversation_id, "/completion", {"handle": handle})

    def token(self, conversation_id: str) -> Answer:
        return self._conversation("GET", conversation_id, "/token")

    def call_operation(self, conversation_id: str, operation: str, **sent: object) -> Answer:
        """Call a declared operation of the brand's API. The bot never holds the token."""
        return self._conversation("POST", conversation_id, f"/calls/{operation}", sent)

    def end_token(self, conversation_id: str, reason: str) -> Answer:
        return self._conversation("DELETE", conversation_id, f"/token?reason={reason}")

    def close(self, conversation_id: str) -> Answer:
        return self._conversation("DELETE", conversation_id)

    def _conversation(self, method: str, conversation_id: str, rest: str = "", sent: Json | None = None) -> Answer:
        return call(method, f"{self.base_url}/api/v1/conversations/{conversation_id}{rest}", self.key, sent)
