"""The sample brand itself, by hand: where it reads the standards in another way than oidc-provider."""

import pytest
import requests

from tests.peers import by_hand
from tests.peers.by_hand import CALLBACK, answer_of
from tests.peers.oidc_provider import RegisteredClient
from tests.peers.sample_brand import SampleBrand

SCOPE = "openid orders.read"

pytestmark = pytest.mark.xdist_group("sample_brand")


@pytest.fixture
def client(sample_brand: SampleBrand) -> RegisteredClient:
    return sample_brand.register(CALLBACK)


def test_the_endpoints_are_the_published_ones(sample_brand: SampleBrand) -> None:
    published = requests.get(f"{sample_brand.issuer}/.well-known/openid-configuration", timeout=60).json()
    endpoints = ("issuer", "authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri")
    assert {name: published[name] for name in endpoints} == {name: getattr(sample_brand, name) for name in endpoints}


def test_the_code_flow_by_hand_yields_a_token_that_opens_the_orders(
    sample_brand: SampleBrand, client: RegisteredClient
) -> None:
    answer = answer_of(sample_brand.sign_in(by_hand.authorization_url(sample_brand, client, SCOPE), "rita"))

    tokens = by_hand.exchange(sample_brand, client, answer["code"], form_encoded=False).json()

    assert tokens["scope"] == SCOPE
    assert by_hand.ask_for_orders(sample_brand, tokens["access_token"]).json()["customer"] == "rita"


def test_orders_are_for_those_with_a_token_and_the_scheme_is_told(sample_brand: SampleBrand) -> None:
    """RFC 6750 section 3.1: without a token no error code."""
    answer = requests.get(f"{sample_brand.issuer}/api/orders", timeout=60)
    assert (answer.status_code, answer.headers["WWW-Authenticate"], answer.json()) == (401, 'Bearer realm="orders"', {})


def test_a_consumer_may_untick_a_scope(sample_brand: SampleBrand, client: RegisteredClient) -> None:
    address = by_hand.authorization_url(sample_brand, client, SCOPE)
    answer = answer_of(sample_brand.sign_in(address, untick=frozenset({"orders.read"})))

    tokens = by_hand.exchange(sample_brand, client, answer["code"], form_encoded=False).json()

    assert tokens["scope"] == "openid"
    assert by_hand.ask_for_orders(sample_brand, tokens["access_token"]).status_code == 403


def test_a_consumer_may_refuse(sample_brand: SampleBrand, client: RegisteredClient) -> None:
    answer = answer_of(sample_brand.refuse(by_hand.authorization_url(sample_brand, client, SCOPE)))
    assert answer["error"] == "access_denied"
