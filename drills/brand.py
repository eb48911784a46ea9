"""Acme as a process, over TLS on loopback: `python -m drills.brand PORT CERTIFICATE_FILE KEY_FILE TOKEN_MS HOOK_MS`.

An authorization server with PKCE and revocation, and the receiver of Acme's webhooks. The consumer is signed in, and
agrees at once. Token endpoint and receiver take so many milliseconds each, so that callbacks and deliveries are under
way when something is killed. It keeps in memory what it has issued, revoked and received, and hands that to the drill
(`GET /notes`).
"""

import asyncio
import base64
import hashlib
import json
import secrets
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

CLIENT_ID: Final = "consumer-delegation"
_LIFETIME_SECONDS: Final = 3600
Answer = tuple[int, dict[str, str], dict[str, Any]]


@dataclass
class Brand:
    """What it has issued and received. A token begins with its number."""

    issuer: str
    milliseconds: dict[str, int]
    grants: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[str, bool] = field(default_factory=dict)  # whether it was revoked
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    exchanging: int = 0  # codes that wait for their answer

    def authorize(self, form: dict[str, str]) -> Answer:
        """Issue a code (RFC 6749 section 4.1.2), bound to the challenge of PKCE (RFC 7636)."""
        code = secrets.token_urlsafe(24)
        self.grants[code] = form
        answer = {"code": code, "state": form["state"], "iss": self.issuer}
        return 302, {"Location": f"{form['redirect_uri']}?{urlencode(answer)}"}, {}

    def token(self, form: dict[str, str]) -> Answer:
        """Exchange a code, once, for a token with an end and no refresh token."""
        grant = self.grants.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if grant is None or challenge != grant["code_challenge"] or form.get("redirect_uri") != grant["redirect_uri"]:
            return 400, {}, {"error": "invalid_grant"}
        token = f"{len(self.tokens) + 1}.{secrets.token_urlsafe(32)}"
        self.tokens[token] = False
        return 200, {}, {"access_token": token, "token_type": "Bearer", "expires_in": _LIFETIME_SECONDS}

    def revoke(self, form: dict[str, str]) -> Answer:
        """RFC 7009."""
        if form.get("token") in self.tokens:
            self.tokens[form["token"]] = True
        return 200, {}, {}

    def notes(self) -> Answer:
        """Return the numbers of all tokens and of those revoked, the webhooks, and how many codes are exchanged."""
        numbers = {int(token.partition(".")[0]): is_revoked for token, is_revoked in self.tokens.items()}
        revoked = [number for number, is_revoked in numbers.items() if is_revoked]
        notes = {"issued": list(numbers), "revoked": revoked, "webhooks": self.webhooks}
        return 200, {}, notes | {"exchanging": self.exchanging}

    async def answer(self, method: str, target: str, body: bytes) -> Answer:
        """Answer one request."""
        parts = urlsplit(target)
        if (method, parts.path) == ("GET", "/notes"):
            return self.notes()
        is_exchange = parts.path == "/token"
        self.exchanging += is_exchange
        await asyncio.sleep(self.milliseconds.get(parts.path, 0) / 1000)
        self.exchanging -= is_exchange
        if (method, parts.path) == ("POST", "/hooks"):
            message = json.loads(body)
            chat = message["data"].get("conversation_id", "")
            self.webhooks.append({"type": message["type"], "conversation_id": chat})
            return 200, {}, {}
        form = {name: values[0] for name, values in parse_qs(parts.query or body.decode()).items()}
        by_path: dict[tuple[str, str], Callable[[dict[str, str]], Answer]] = {
            ("GET", "/authorize"): self.authorize,
            ("POST", "/token"): self.token,
            ("POST", "/revoke"): self.revoke,
        }
        found = by_path.get((method, parts.path))
        return found(form) if found else (404, {}, {})

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until the client closes it."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, target, _ = head.split(" ", 2)
                length = head.lower().partition("\r\ncontent-length:")[2].partition("\r\n")[0]
                status, headers, document = await self.answer(
                    method, target, await reader.readexactly(int(length or 0))
                )
                writer.write(_response(status, headers, document))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        finally:
            writer.close()


def _response(status: int, headers: dict[str, str], document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    fields = {"Content-Type": "application/json", "Cache-Control": "no-store", "Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {status} As told", *(f"{name}: {value}" for name, value in (fields | headers).items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _serve(port: int, context: ssl.SSLContext, milliseconds: dict[str, int]) -> None:
    brand = Brand(f"https://localhost:{port}", milliseconds)
    async with await asyncio.start_server(brand.converse, "127.0.0.1", port, ssl=context, backlog=512) as server:
        await server.serve_forever()


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    milliseconds = {"/token": int(sys.argv[4]), "/hooks": int(sys.argv[5])}
    asyncio.run(_serve(int(sys.argv[1]), context, milliseconds))


if __name__ == "__main__":
    main()
