"""The authorization server of MCP's Python SDK on a loopback port, with the minimum that it leaves to its user.

Run by file name in the environment of `requirements.txt` beside it. Prints `READY {origin}` and serves until its input
closes. A code can be used once, as RFC 6749 section 4.1.2 requires; the SDK leaves that to the storage.
"""

import secrets
import sys
import threading
import time
from urllib.parse import urlencode

import uvicorn
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from plain_pages import allowed_by, next_page
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

SCOPES = ["orders.read", "orders.write"]
LIFETIME = 3600


class Provider(OAuthAuthorizationServerProvider):
    """Everything in memory. It issues a refresh token although nobody asks for one."""

    def __init__(self) -> None:
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.waiting: dict[str, tuple[str, AuthorizationParams]] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.tokens: dict[str, AccessToken] = {}
        self.responses: list[dict[str, object]] = []

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        request_id = secrets.token_urlsafe(16)
        self.waiting[request_id] = (client.client_id, params)
        return f"/sign-in?{urlencode({'request': request_id})}"

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self.codes[authorization_code.code]
        token = AccessToken(
            token=secrets.token_urlsafe(32),
            client_id=client.client_id,
            scopes=authorization_code.scopes,
            expires_at=int(time.time()) + LIFETIME,
            resource=authorization_code.resource,
            subject=authorization_code.subject,
        )
        self.tokens[token.token] = token
        answer = OAuthToken(
            access_token=token.token,
            expires_in=LIFETIME,
            scope=" ".join(token.scopes),
            refresh_token=secrets.token_urlsafe(32),
        )
        self.responses.append(answer.model_dump())
        return answer

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> None:
        return None

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.tokens.get(token)

    async def revoke_token(self, token: AccessToken) -> None:
        self.tokens.pop(token.token, None)


def back(client_id: str, params: AuthorizationParams, provider: Provider, customer: str) -> str:
    """The URL that the consumer is redirected to with a code."""
    code = AuthorizationCode(
        code=secrets.token_urlsafe(32),
        scopes=params.scopes or [],
        expires_at=time.time() + 60,
        client_id=client_id,
        code_challenge=params.code_challenge,
        redirect_uri=params.redirect_uri,
        redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
        resource=params.resource,
        subject=customer,
    )
    provider.codes[code.code] = code
    return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)


def application(origin: str) -> Starlette:
    """The SDK's own routes, the sign-in page, the orders, and the tests' view of its state."""
    provider = Provider()

    async def sign_in(request: Request) -> Response:
        client_id, params = provider.waiting[request.query_params["request"]]
        form = {name: str(value) for name, value in (await request.form()).items()}
        if page := next_page(form):
            return HTMLResponse(page)
        if customer := allowed_by(form):
            return RedirectResponse(back(client_id, params, provider, customer), 303)
        refusal = construct_redirect_uri(str(params.redirect_uri), error="access_denied", state=params.state)
        return RedirectResponse(refusal, 303)

    async def orders(request: Request) -> Response:
        token = provider.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if token is None or "orders.read" not in token.scopes:
            return JSONResponse({"error": "invalid_token"}, 401)
        return JSONResponse({"customer": token.subject, "orders": [], "resource": token.resource})

    async def responses(request: Request) -> Response:
        return JSONResponse(provider.responses)

    registration = ClientRegistrationOptions(enabled=True, valid_scopes=SCOPES, default_scopes=["orders.read"])
    return Starlette(
        routes=[
            Route("/sign-in", sign_in, methods=["GET", "POST"]),
            Route("/orders", orders),
            Route("/test/token-responses", responses),
            *create_auth_routes(
                provider,
                AnyHttpUrl(origin),
                client_registration_options=registration,
                revocation_options=RevocationOptions(enabled=True),
            ),
        ]
    )


def main(port: int) -> None:
    origin = f"http://localhost:{port}"
    server = uvicorn.Server(uvicorn.Config(application(origin), host="127.0.0.1", port=port, log_level="warning"))
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    while not server.started:
        time.sleep(0.05)
    print(f"READY {origin}", flush=True)
    sys.stdin.read()
    server.should_exit = True
    serving.join(5)


if __name__ == "__main__":
    main(int(sys.argv[1]))
