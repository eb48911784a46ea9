"""The main job at servers that others wrote: challenge, sign-in, call, refusal, and no refresh token kept."""

from typing import Any

import pytest

from brands.doctor import Verdict, examine
from brands.models import AuthorizationServer, Brand
from infrastructure.crypto import Secret
from tests.cast import Bot, Browser, code_on, heading_of
from tests.peers.others.servers import JupyterHub, Server
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db

PEERS = ["better_auth", "mcp", "authlib", "jupyterhub"]


def server_at(peer: Server, brand: Brand, **changes: Any) -> AuthorizationServer:
    """Register at the peer, and save the server with the settings that docs/servers.md names."""
    values = {"scope": peer.scope, "required_scope": peer.scope, **peer.values, **changes}
    server = AuthorizationServer(
        brand=brand,
        key="orders",
        authorization_endpoint=peer.authorization_endpoint,
        token_endpoint=peer.token_endpoint,
        **values,
    )
    if isinstance(peer, JupyterHub):
        server.callback_id = peer.REDIRECT_PATH
    client = peer.register(server.redirect_uri)
    server.client_id = client.client_id
    server.set_client_secret(Secret(client.client_secret))
    server.full_clean()
    server.save()
    return server


def signed_in(bot: Bot, browser: Browser, peer: Server) -> dict[str, Any]:
    """Go the whole way and return the token's facts."""
    challenge = bot.challenge()
    callback = peer.consumer().sign_in(browser.begin(challenge["url"]))
    page = browser.get(browser.get(callback)["Location"])
    assert bot.complete(code_on(page))[0] == 200, bot.read_challenge(challenge)
    status, token = bot.token()
    assert status == 200, token
    return token


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def test_a_journey_to_a_token_that_opens_the_orders(peer: Server, acme: Brand, acme_bot: Bot, ada: Browser) -> None:
    """E13, E15: and nothing that is stored holds a refresh token of the peer's."""
    server_at(peer, acme)
    token = signed_in(acme_bot, ada, peer)
    assert set(peer.scope.split()) <= set(token["scope"].split())
    answered = peer.ask_for_orders(token["access_token"])
    assert answered.status_code == 200
    sent = [str(answer["refresh_token"]) for answer in peer.token_responses() if answer.get("refresh_token")]
    stored = everything_stored()
    assert [value for value in sent if value in stored] == []


@pytest.mark.parametrize("peer", [name for name in PEERS if name != "jupyterhub"], indirect=True)
def test_a_refusal_is_a_denial(peer: Server, acme: Brand, acme_bot: Bot, ada: Browser) -> None:
    """B14. JupyterHub's page has no button that says no."""
    server_at(peer, acme)
    challenge = acme_bot.challenge()
    page = ada.get(ada.get(peer.consumer("rita").refuse(ada.begin(challenge["url"])))["Location"])
    assert heading_of(page) == "You are not signed in"
    assert acme_bot.read_challenge(challenge)["status"] == "denied"


# The set-up doctor. better-auth looks at the code before the client; JupyterHub looks at the redirect URI only after
# somebody has signed in.
SECRET_NOT_TOLD = {"better_auth"}
REDIRECT_URI_NOT_TOLD = {"jupyterhub"}


def judged(server: AuthorizationServer) -> dict[str, Verdict]:
    return {finding.code: finding.verdict for finding in examine(server)}


@pytest.mark.parametrize(("peer", "name"), [(name, name) for name in PEERS], indirect=["peer"])
def test_the_doctor_proves_what_can_be_proven_and_invents_no_problem(peer: Server, name: str, acme: Brand) -> None:
    found = judged(server_at(peer, acme))
    assert Verdict.PROBLEM not in found.values(), found
    assert ("client_accepted" in found) == (name not in SECRET_NOT_TOLD)
    assert ("redirect_uri_registered" in found) == (name not in REDIRECT_URI_NOT_TOLD)


@pytest.mark.parametrize(("peer", "name"), [(name, name) for name in PEERS], indirect=["peer"])
def test_the_doctor_calls_no_wrong_secret_right(peer: Server, name: str, acme: Brand) -> None:
    server = server_at(peer, acme)
    server.set_client_secret(Secret("mistyped"))
    found = judged(server)
    assert "client_accepted" not in found
    assert ("client_refused" in found) == (name not in SECRET_NOT_TOLD), found


@pytest.mark.parametrize(("peer", "name"), [(name, name) for name in PEERS], indirect=["peer"])
def test_the_doctor_calls_no_other_redirect_uri_right(peer: Server, name: str, acme: Brand) -> None:
    server = server_at(peer, acme)
    server.callback_id = "never-registered"
    found = judged(server)
    assert "redirect_uri_registered" not in found
    named = {"client_or_redirect_uri_refused", "authorization_refused"} & found.keys()
    assert bool(named) == (name not in REDIRECT_URI_NOT_TOLD), found
