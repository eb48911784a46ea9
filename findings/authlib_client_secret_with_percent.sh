#!/usr/bin/env bash
# One would guess that Authlib's client can sign in with HTTP Basic at Authlib's own server, whatever the client secret.
# Seen: with a secret that holds a percent sign before two hex digits, the server answers 401 invalid_client. The client
# writes id and secret into the header as they are; the server percent-decodes both (RFC 6749 section 2.3.1 asks the client
# to form-encode them). The same secret sent percent-encoded by hand is taken.
# Why it matters here: the two ways to write HTTP Basic are a setting for each server (`basic_encoding`), and a secret that
# an admin copies from a console may hold any character. Percent-encoding is right at this server, raw is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "Authlib==1.9.10" "Flask==3.1.3" "Werkzeug==3.1.9" "requests==2.34.2"

cat > seen.py <<'PYTHON'
import base64
import logging
import os
import threading
from importlib.metadata import version
from urllib.parse import quote

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "true"
import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6749 import grants
from flask import Flask
from werkzeug.serving import make_server

CLIENT_ID, SECRET = "acme", "ten%20percent"
logging.getLogger("werkzeug").setLevel("ERROR")


class Client:
    client_id = CLIENT_ID

    def get_allowed_scope(self, scope):
        return "orders.read"

    def check_client_secret(self, given):
        return given == SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


app = Flask("server")
server = AuthorizationServer(app, query_client={CLIENT_ID: Client()}.get, save_token=lambda token, request: None)
server.register_grant(grants.ClientCredentialsGrant)
app.add_url_rule("/token", "token", server.create_token_response, methods=["POST"])
http = make_server("127.0.0.1", 0, app)
threading.Thread(target=http.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{http.server_port}/token"

try:
    OAuth2Session(CLIENT_ID, SECRET, token_endpoint_auth_method="client_secret_basic").fetch_token(
        address, grant_type="client_credentials", scope="orders.read"
    )
    own_client = "200"
except OAuthError as error:
    own_client = error.error
encoded = base64.b64encode(f"{CLIENT_ID}:{quote(SECRET, safe='')}".encode()).decode()
answer = requests.post(
    address, {"grant_type": "client_credentials", "scope": "orders.read"}, headers={"Authorization": f"Basic {encoded}"}, timeout=10
)
http.shutdown()
by_hand = answer.status_code
print(f"Authlib {version('authlib')}: its own client gets {own_client}; percent-encoded by hand: {by_hand}")
raise SystemExit((own_client, by_hand) != ("invalid_client", 200))
PYTHON
venv/bin/python seen.py
