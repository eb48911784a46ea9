"""Step-up for one action (RFC 9470) against npm oidc-provider, and an API that asks it how somebody signed in."""

from typing import Any

import pytest
from pytest_django import Settings

from brands.models import Brand
from tests.brand_api import CALLING, make_operation
from tests.cast import Bot, Browser, code_on, declare_api, heading_of, make_bot
from tests.peers.oidc_provider import OidcProvider
from tests.peers.test_beyond import server_at

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("oidc_provider")]


@pytest.fixture(params=[False, True], ids=["in the address", "pushed"])
def bot(request: pytest.FixtureRequest, acme: Brand, oidc_provider: OidcProvider, settings: Settings) -> Bot:
    """acme-bot, which may pay and change the address, and cannot read tokens."""
    settings.OUTBOUND_CA_FILE, settings.ALLOW_LOCAL_ENDPOINTS = str(oidc_provider.ca_file), True
    endpoint = oidc_provider.pushed_authorization_request_endpoint if request.param else ""
    server = server_at(oidc_provider, acme, prompt="", pushed_authorization_request_endpoint=endpoint)
    api = declare_api(server, base_url=oidc_provider.issuer)
    make_operation(api, "payments.pay", path="/payments")
    make_operation(api, "address.change", path="/address")
    return make_bot(acme, *CALLING)


def sign_in(bot: Bot, ada: Browser, peer: OidcProvider, challenge: dict[str, Any], login: str) -> Any:
    """Sign in with a new browser at the peer. Return the last page."""
    (server,) = {row.authorization_server for row in Brand.objects.get().apis.all()}
    callback = peer.consumer(login).sign_in(ada.begin(challenge["url"]), redirect_uri=server.redirect_uri)
    return ada.get(ada.get(callback)["Location"])


def call(bot: Bot, operation: str) -> tuple[int, dict[str, Any]]:
    return bot.in_chat("POST", f"/calls/{operation}", {})


@pytest.mark.parametrize(
    ("operation", "weak", "strong", "demand"),
    [
        ("payments.pay", "ada", "ada+otp", {"acr_values": "urn:peer:otp"}),
        ("address.change", "ada+old", "ada", {"max_age": 0}),
    ],
)
def test_a_weaker_sign_in_is_refused_and_the_right_one_passes(
    operation: str, weak: str, strong: str, demand: dict[str, Any], bot: Bot, ada: Browser, oidc_provider: OidcProvider
) -> None:
    """P30, P32, P33: in words for the bot; the server ignores what it was asked for, as it may."""
    assert bot.complete(code_on(sign_in(bot, ada, oidc_provider, bot.challenge(), weak)))[0] == 200
    status, problem = call(bot, operation)
    assert (status, problem["code"]) == (409, "step_up_required")
    assert {name: problem[name] for name in ("acr_values", "max_age") if name in problem} == demand

    challenge = bot.challenge()
    assert {name: value for name, value in challenge.items() if name in demand} == demand
    assert heading_of(sign_in(bot, ada, oidc_provider, challenge, weak)) == "A stronger sign-in is needed"
    facts = bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "assurance_not_met")
    assert bot.status() == ("authorized", None)

    assert call(bot, operation)[1]["code"] == "step_up_required"
    page = sign_in(bot, ada, oidc_provider, bot.challenge(), strong)
    status, confirmed = bot.complete(code_on(page))
    facts = confirmed["access_token"]
    told = facts["acr"] == demand["acr_values"] if "acr_values" in demand else facts["auth_time"] is not None
    assert (status, told) == (200, True)
    status, answer = call(bot, operation)
    assert (status, answer["response"]["body"]) == (200, {"customer": "ada"})
