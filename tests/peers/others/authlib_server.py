"""Authlib's Flask server on a loopback port: PKCE required, HTTP Basic percent-decoded, revocation (RFC 7009).

Run by file name in the environment of `requirements.txt` beside it. Prints `READY {origin}` and serves until its input
closes.
"""

import secrets
import sys
import threading
import time
from dataclasses import dataclass, field

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.util import list_to_scope, scope_to_list
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from flask import Flask, Response, jsonify, request
from plain_pages import allowed_by, next_page
from werkzeug.serving import make_server


@dataclass
class Client:
    """Authlib's client interface."""

    client_id: str
    client_secret: str
    redirect_uri: str
    method: str
    scope: str = "orders.read orders.write"

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return list_to_scope([one for one in scope_to_list(scope or "") if one in self.scope.split()])

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(client_secret, self.client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


@dataclass
class Code:
    """Authlib's authorization code interface."""

    code: str
    client_id: str
    redirect_uri: str
    scope: str
    user: str
    code_challenge: str | None
    code_challenge_method: str | None

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Store:
    """Clients, codes and tokens, in memory."""

    clients: dict[str, Client] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    tokens: dict[str, dict[str, object]] = field(default_factory=dict)
    responses: list[dict[str, object]] = field(default_factory=list)


store = Store()


class AuthorizationCodeGrant(grants.AuthorizationCodeGrant):
    """The code grant, for all client authentication methods that the tests register."""

    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post", "none"]

    def save_authorization_code(self, code: str, request: object) -> None:
        payload = request.payload
        store.codes[code] = Code(
            code,
            request.client.client_id,
            payload.redirect_uri,
            payload.scope,
            request.user,
            payload.data.get("code_challenge"),
            payload.data.get("code_challenge_method"),
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found = store.codes.get(code)
        return found if found and found.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del store.codes[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> str:
        return authorization_code.user


class Revocation(RevocationEndpoint):
    """The revocation endpoint (RFC 7009)."""

    def query_token(self, token_string: str, token_type_hint: str) -> dict[str, object] | None:
        return store.tokens.get(token_string)

    def revoke_token(self, token: dict[str, object], request: object) -> None:
        store.tokens.pop(str(token["access_token"]), None)


class Token(dict):
    """A token row, as the revocation endpoint needs it."""

    def check_client(self, client: Client) -> bool:
        return self["client_id"] == client.client_id


def save_token(token: dict[str, object], request: object) -> None:
    store.tokens[str(token["access_token"])] = Token(token, client_id=request.client.client_id, user=request.user)
    store.responses.append(dict(token))


def application() -> Flask:
    """Authlib's endpoints, the sign-in page, the orders, and the tests' view of its state."""
    app = Flask("authlib-peer")
    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
    server = AuthorizationServer(app, query_client=store.clients.get, save_token=save_token)
    server.register_grant(AuthorizationCodeGrant, [CodeChallenge(required=True)])
    server.register_endpoint(Revocation)

    @app.route("/authorize", methods=["GET", "POST"])
    def authorize() -> Response | str:
        try:
            grant = server.get_consent_grant(end_user=None)
        except OAuth2Error as error:
            return server.handle_error_response(None, error)
        if page := next_page(request.form):
            return page
        return server.create_authorization_response(grant=grant, grant_user=allowed_by(request.form))

    @app.post("/token")
    def token() -> Response:
        return server.create_token_response()

    @app.post("/revoke")
    def revoke() -> Response:
        return server.create_endpoint_response("revocation")

    @app.post("/test/register")
    def register() -> Response:
        wanted = request.get_json()
        client = Client(
            wanted["client_id"], wanted["client_secret"], wanted["redirect_uri"], wanted["token_endpoint_auth_method"]
        )
        store.clients[client.client_id] = client
        return jsonify({})

    @app.get("/orders")
    def orders() -> tuple[Response, int]:
        found = store.tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if not found or "orders.read" not in str(found["scope"]).split():
            return jsonify({"error": "invalid_token"}), 401
        return jsonify({"customer": found["user"], "orders": []}), 200

    @app.get("/test/token-responses")
    def responses() -> Response:
        return jsonify(store.responses)

    return app


def main(port: int) -> None:
    server = make_server("127.0.0.1", port, application(), threaded=True)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    time.sleep(0.05)
    print(f"READY http://localhost:{port}", flush=True)
    sys.stdin.read()
    server.shutdown()
    serving.join(5)


if __name__ == "__main__":
    main(int(sys.argv[1]))
