"""npm oidc-provider with resource indicators on (RFC 8707): only a token for the API's own audience opens it."""

import pytest
from pytest_django import Settings

from brands.models import Brand
from tests.cast import Bot, Browser, code_on
from tests.peers import by_hand
from tests.peers.fixtures import RESOURCE
from tests.peers.oidc_provider import OidcProvider
from tests.peers.test_journeys import server_at

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("pushed", [False, True], ids=["in the address", "pushed"])
def test_a_token_for_the_configured_resource_opens_the_orders(
    pushed: bool, acme: Brand, acme_bot: Bot, ada: Browser, oidc_provider_of_resources: OidcProvider, settings: Settings
) -> None:
    """B23. The bug: without `resource` in the token request, too, the token was for no API at all."""
    peer = oidc_provider_of_resources
    settings.OUTBOUND_CA_FILE = str(peer.ca_file)
    endpoint = peer.pushed_authorization_request_endpoint if pushed else ""
    server = server_at(peer, acme, resource=[RESOURCE], pushed_authorization_request_endpoint=endpoint)
    challenge = acme_bot.challenge()
    callback = peer.consumer().sign_in(ada.begin(challenge["url"]), redirect_uri=server.redirect_uri)
    assert acme_bot.complete(code_on(ada.get(ada.get(callback)["Location"])))[0] == 200
    status, token = acme_bot.token()
    assert status == 200, token
    assert by_hand.ask_for_orders(peer, token["access_token"], ca_file=peer.ca_file).json()["customer"] == "ada"
