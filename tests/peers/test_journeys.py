"""The main job against servers that others wrote: that they read the standards otherwise than we do is the point."""

from datetime import timedelta
from typing import Any

import pytest
import requests
import time_machine
from django.utils import timezone
from pytest_django import Settings

from brands.doctor import Verdict, examine
from brands.models import AuthorizationServer, Brand
from conversations.models import AccessToken
from infrastructure.crypto import Secret
from tests.brand_api import CALLING
from tests.cast import Bot, Browser, code_on, declare_api, declare_operation, heading_of, make_bot
from tests.peers.oidc_provider import OidcProvider
from tests.peers.sample_brand import SampleBrand
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db


def server_at(peer: OidcProvider | SampleBrand, brand: Brand, **values: Any) -> AuthorizationServer:
    """Register at a peer under the redirect URI of a new authorization server, and save it."""
    server = AuthorizationServer(
        brand=brand,
        key="orders",
        issuer=peer.issuer,
        authorization_endpoint=peer.authorization_endpoint,
        token_endpoint=peer.token_endpoint,
        jwks_uri=peer.jwks_uri,
        scope="openid orders.read",
        required_scope="orders.read",
        **values,
    )
    client = peer.register(server.redirect_uri)
    server.client_id = client.client_id
    server.set_client_secret(Secret(client.client_secret))
    server.full_clean()
    server.save()
    return server


@pytest.fixture
def at_oidc_provider(oidc_provider: OidcProvider, acme: Brand, settings: Settings) -> AuthorizationServer:
    """Return Acme's server at oidc-provider: strict PKCE, form-encoded Basic, and `iss` on the way back."""
    settings.OUTBOUND_CA_FILE = str(oidc_provider.ca_file)
    return server_at(oidc_provider, acme, authorization_response_iss_parameter_supported=True)


@pytest.fixture
def at_sample_brand(sample_brand: SampleBrand, acme: Brand) -> AuthorizationServer:
    """Return Acme's server at allauth.idp.oidc: raw Basic, and a consent page with tick boxes."""
    return server_at(sample_brand, acme, basic_encoding="raw")


def orders(peer: OidcProvider | SampleBrand, token: dict[str, Any]) -> requests.Response:
    """Call the brand's API as the bot does."""
    headers = {"Authorization": f"{token['token_type']} {token['access_token']}"}
    return requests.get(peer.orders_url, headers=headers, timeout=60, verify=str(getattr(peer, "ca_file", True)))


@pytest.mark.xdist_group("oidc_provider")
def test_a_journey_with_oidc_provider(
    acme_bot: Bot, ada: Browser, at_oidc_provider: AuthorizationServer, oidc_provider: OidcProvider
) -> None:
    """E15, E16, C2: challenge, sign-in, completion, call, expiry, re-challenge; and no refresh token anywhere."""
    challenge = acme_bot.challenge()
    page = ada.get(ada.get(oidc_provider.sign_in(ada.begin(challenge["url"])))["Location"])
    acme_bot.complete(code_on(page))
    status, first = acme_bot.token()
    assert (status, first["assurance"]) == (200, "completion_code")
    assert orders(oidc_provider, first).status_code == 200
    with time_machine.travel(timezone.now() + timedelta(seconds=first["expires_in"] + 1), tick=False):
        status, problem = acme_bot.token()
        assert (status, problem["code"], problem["reason"]) == (409, "rechallenge_required", "expired")
    acme_bot.in_chat("DELETE", "/token")
    second = acme_bot.challenge()
    acme_bot.complete(code_on(ada.get(ada.get(oidc_provider.sign_in(ada.begin(second["url"])))["Location"])))
    status, token = acme_bot.token()
    assert (status, token["access_token"] == first["access_token"]) == (200, False)
    sent = [answer["refresh_token"] for answer in oidc_provider.token_responses() if "refresh_token" in answer]
    assert sent, "the peer was expected to send a refresh token"
    stored = everything_stored()
    assert [value for value in sent if value in stored] == []


@pytest.mark.xdist_group("oidc_provider")
def test_a_rechallenge_at_oidc_provider_by_somebody_else_is_refused(
    acme_bot: Bot, ada: Browser, at_oidc_provider: AuthorizationServer, oidc_provider: OidcProvider
) -> None:
    """A7."""
    first = acme_bot.challenge()
    acme_bot.complete(code_on(ada.get(ada.get(oidc_provider.sign_in(ada.begin(first["url"]), "ada"))["Location"])))
    acme_bot.in_chat("DELETE", "/token")
    second = acme_bot.challenge()
    page = ada.get(ada.get(oidc_provider.sign_in(ada.begin(second["url"]), "rita"))["Location"])
    assert heading_of(page) == "That was another account"
    assert acme_bot.read_challenge(second)["error"] == "subject_mismatch"


@pytest.mark.xdist_group("oidc_provider")
def test_a_refusal_at_oidc_provider_is_denied(
    acme_bot: Bot, ada: Browser, at_oidc_provider: AuthorizationServer, oidc_provider: OidcProvider
) -> None:
    """B14."""
    challenge = acme_bot.challenge()
    page = ada.get(ada.get(oidc_provider.refuse(ada.begin(challenge["url"])))["Location"])
    assert heading_of(page) == "You are not signed in"
    assert acme_bot.read_challenge(challenge)["status"] == "denied"


@pytest.mark.xdist_group("oidc_provider")
def test_a_wrong_client_secret_at_oidc_provider_is_named(
    acme_bot: Bot, ada: Browser, at_oidc_provider: AuthorizationServer, oidc_provider: OidcProvider
) -> None:
    at_oidc_provider.set_client_secret(Secret("wrong"))
    at_oidc_provider.save()
    challenge = acme_bot.challenge()
    page = ada.get(ada.get(oidc_provider.sign_in(ada.begin(challenge["url"])))["Location"])
    assert heading_of(page) == "Acme cannot sign you in right now"
    assert acme_bot.read_challenge(challenge)["last_error"] == "invalid_client"


@pytest.mark.xdist_group("sample_brand")
def test_a_journey_with_allauth(
    acme_bot: Bot, ada: Browser, at_sample_brand: AuthorizationServer, sample_brand: SampleBrand
) -> None:
    challenge = acme_bot.challenge()
    page = ada.get(ada.get(sample_brand.sign_in(ada.begin(challenge["url"])))["Location"])
    acme_bot.complete(code_on(page))
    status, token = acme_bot.token()
    assert (status, token["scope"]) == (200, "openid orders.read")
    assert orders(sample_brand, token).json()["customer"] == "ada"
    acme_bot.in_chat("DELETE", "/token?reason=signed_out")
    assert acme_bot.status() == ("rechallenge_required", "signed_out")


@pytest.mark.xdist_group("sample_brand")
def test_an_unticked_scope_at_allauth_is_named_and_another_try_works(
    acme_bot: Bot, ada: Browser, at_sample_brand: AuthorizationServer, sample_brand: SampleBrand
) -> None:
    """E13."""
    challenge = acme_bot.challenge()
    url = ada.begin(challenge["url"])
    page = ada.get(ada.get(sample_brand.sign_in(url, untick=frozenset({"orders.read"})))["Location"])
    assert heading_of(page) == "One permission was missing"
    assert acme_bot.read_challenge(challenge)["last_error"] == "insufficient_scope"
    page = ada.get(ada.get(sample_brand.sign_in(ada.begin(challenge["url"])))["Location"])
    assert acme_bot.complete(code_on(page))[0] == 200


# The set-up doctor. allauth looks at the redirect URI only after somebody has signed in.


def judged(server: AuthorizationServer) -> dict[str, Verdict]:
    server.authorization_response_iss_parameter_supported = True
    return {finding.code: finding.verdict for finding in examine(server)}


@pytest.mark.xdist_group("sample_brand")
def test_the_doctor_invents_no_problem_at_allauth(at_sample_brand: AuthorizationServer) -> None:
    assert judged(at_sample_brand) == {
        "metadata_agrees": Verdict.GOOD,
        "keys_found": Verdict.GOOD,
        "client_accepted": Verdict.GOOD,
        "redirect_uri_not_proven": Verdict.NOTE,
    }


@pytest.mark.xdist_group("sample_brand")
def test_the_doctor_calls_nothing_right_that_is_wrong_at_allauth(at_sample_brand: AuthorizationServer) -> None:
    """The bug: it was said that allauth takes a redirect URI that nobody had registered."""
    at_sample_brand.callback_id = "never-registered"
    at_sample_brand.set_client_secret(Secret("mistyped"))
    found = judged(at_sample_brand)
    assert found["client_refused"] == Verdict.PROBLEM
    assert found["redirect_uri_not_proven"] == Verdict.NOTE


@pytest.mark.xdist_group("sample_brand")
def test_a_journey_with_calls_at_allauth(
    acme: Brand, ada: Browser, at_sample_brand: AuthorizationServer, sample_brand: SampleBrand
) -> None:
    """P1, P5, P9: a bot that cannot read tokens calls the API, which says by itself that the token has ended."""
    bot = make_bot(acme, *CALLING)
    declare_operation(declare_api(at_sample_brand, base_url=f"{sample_brand.issuer}/api"))
    status, challenge = bot.in_chat("POST", "/calls/orders.list", {"challenge": {}})
    assert status == 202
    page = ada.get(ada.get(sample_brand.sign_in(ada.begin(challenge["url"])))["Location"])
    assert bot.complete(code_on(page))[0] == 200
    status, answer = bot.in_chat("POST", "/calls/orders.list", {})
    assert (status, answer["response"]["body"]["customer"]) == (200, "ada")
    assert bot.token()[0] == 403
    form = {"token": AccessToken.objects.get().reveal_access_token().reveal()}
    credentials = (at_sample_brand.client_id, at_sample_brand.reveal_credentials().client_secret)
    assert credentials[1]
    revocation = requests.post(
        sample_brand.revocation_endpoint, form, auth=(credentials[0], credentials[1].reveal()), timeout=60
    )
    assert revocation.status_code == 200
    status, problem = bot.in_chat("POST", "/calls/orders.list", {})
    assert (status, problem["code"], problem["reason"]) == (409, "rechallenge_required", "rejected")
