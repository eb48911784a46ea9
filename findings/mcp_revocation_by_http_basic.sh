#!/usr/bin/env bash
# One would guess that a client which is registered for HTTP Basic, and whose token request with HTTP Basic is taken, can
# revoke its token the same way: the server's metadata lists client_secret_basic among
# revocation_endpoint_auth_methods_supported.
# Seen, with MCP's Python SDK: the revocation endpoint authenticates the client by HTTP Basic, and then answers 400
# invalid_request, "client_secret: Field required". It takes the very same request with the secret in the body as well.
# Why it matters here: a token that a consumer takes back is revoked at the brand (RFC 7009). At such a server it can be
# revoked only by a client that is registered for client_secret_post.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "mcp==2.3.0" "starlette==1.10.0" "uvicorn==0.54.0" "requests==2.34.2"

cat > seen.py <<'PYTHON'
import socket
import threading
import time
from importlib.metadata import version

import requests
import uvicorn
from mcp.server.auth.provider import AccessToken, OAuthAuthorizationServerProvider
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from pydantic import AnyHttpUrl
from starlette.applications import Starlette


class Provider(OAuthAuthorizationServerProvider):
    def __init__(self):
        self.clients, self.revoked = {}, []

    async def get_client(self, client_id):
        return self.clients.get(client_id)

    async def register_client(self, client_info):
        self.clients[client_info.client_id] = client_info

    async def load_access_token(self, token):
        return AccessToken(token=token, client_id=next(iter(self.clients)), scopes=[])

    async def load_refresh_token(self, client, refresh_token):
        return None

    async def revoke_token(self, token):
        self.revoked.append(token.token)


provider = Provider()
with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
origin = f"http://127.0.0.1:{port}"
routes = create_auth_routes(
    provider,
    AnyHttpUrl(origin),
    client_registration_options=ClientRegistrationOptions(enabled=True),
    revocation_options=RevocationOptions(enabled=True),
)
server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.05)

metadata = requests.get(f"{origin}/.well-known/oauth-authorization-server", timeout=10).json()
client = requests.post(
    f"{origin}/register",
    json={"redirect_uris": ["https://client.example/callback"], "token_endpoint_auth_method": "client_secret_basic"},
    timeout=10,
).json()
basic = (client["client_id"], client["client_secret"])
form = {"token": "some-token", "client_id": client["client_id"]}
announced = "client_secret_basic" in metadata["revocation_endpoint_auth_methods_supported"]
alone = requests.post(f"{origin}/revoke", form, auth=basic, timeout=10)
both = requests.post(f"{origin}/revoke", form | {"client_secret": client["client_secret"]}, auth=basic, timeout=10)
server.should_exit = True
print(f"mcp {version('mcp')}: client_secret_basic is announced: {announced}")
print(f"HTTP Basic: {alone.status_code} {alone.text}; with the secret in the body too: {both.status_code}")
seen = (announced, alone.status_code, alone.json()["error_description"], both.status_code, provider.revoked)
raise SystemExit(seen != (True, 400, "client_secret: Field required", 200, ["some-token"]))
PYTHON
venv/bin/python seen.py
