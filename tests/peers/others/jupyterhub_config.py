"""JupyterHub as an authorization server: one client, any name with one password, no proxy and no notebook.

Run by `jupyterhub_server.py` beside it, which sets ports, redirect URI and secret in the environment.
"""

import os
from pathlib import Path

from jupyterhub.proxy import Proxy
from traitlets.config import get_config

PORT = int(os.environ["PEER_PORT"])


class NoProxy(Proxy):
    """Browsers reach the hub directly, so nothing is routed."""

    should_start = False

    async def add_route(self, routespec: str, target: str, data: object) -> None: ...

    async def delete_route(self, routespec: str) -> None: ...

    async def get_all_routes(self) -> dict[str, object]:
        return {}


c = get_config()
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.cookie_secret_file = str(Path(os.environ["PEER_FOLDER"]) / "cookie_secret")
c.JupyterHub.db_url = "sqlite:///:memory:"
c.JupyterHub.log_level = "ERROR"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = os.environ["PEER_PASSWORD"]
c.Authenticator.allow_all = True
c.JupyterHub.oauth_token_expires_in = 3600
c.JupyterHub.services = [
    {
        "name": "acme",
        "oauth_client_id": "service-acme",
        "api_token": os.environ["PEER_CLIENT_SECRET"],
        "oauth_redirect_uri": os.environ["PEER_REDIRECT_URI"],
        "oauth_client_allowed_scopes": ["read:users!user", "list:servers!user"],
        "oauth_no_confirm": False,
    }
]
c.JupyterHub.load_roles = [{"name": "user", "scopes": ["self", "access:services!service=acme"]}]
