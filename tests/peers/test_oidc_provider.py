"""The peer itself, by hand: what it insists on is what makes it worth testing against."""

import jwt
import pytest
import requests

from tests.peers import by_hand
from tests.peers.by_hand import CALLBACK, VERIFIER, answer_of
from tests.peers.oidc_provider import SCOPE, OidcProvider, RegisteredClient

pytestmark = pytest.mark.xdist_group("oidc_provider")


@pytest.fixture
def client(oidc_provider: OidcProvider) -> RegisteredClient:
    return oidc_provider.register(CALLBACK)


def signed_in(provider: OidcProvider, client: RegisteredClient, login: str = "ada") -> dict[str, str]:
    return answer_of(provider.sign_in(by_hand.authorization_url(provider, client, SCOPE), login))


def exchange(
    provider: OidcProvider, client: RegisteredClient, *, form_encoded: bool = True, verifier: str = VERIFIER
) -> requests.Response:
    code = signed_in(provider, client)["code"]
    return by_hand.exchange(
        provider, client, code, form_encoded=form_encoded, verifier=verifier, ca_file=provider.ca_file
    )


def test_the_code_flow_by_hand_yields_a_token_that_opens_the_orders(
    oidc_provider: OidcProvider, client: RegisteredClient
) -> None:
    tokens = exchange(oidc_provider, client).json()

    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3600)
    orders = by_hand.ask_for_orders(oidc_provider, tokens["access_token"], ca_file=oidc_provider.ca_file)
    assert orders.json()["customer"] == "ada"


def test_the_answer_names_its_issuer(oidc_provider: OidcProvider, client: RegisteredClient) -> None:
    answer = signed_in(oidc_provider, client)
    assert answer.keys() == {"code", "state", "iss"}
    assert answer["iss"] == oidc_provider.issuer


def test_a_refresh_token_comes_and_can_be_looked_up(oidc_provider: OidcProvider, client: RegisteredClient) -> None:
    tokens = exchange(oidc_provider, client).json()
    assert tokens["refresh_token"]
    assert tokens in oidc_provider.token_responses()


def test_the_id_token_is_signed_with_a_published_key(oidc_provider: OidcProvider, client: RegisteredClient) -> None:
    id_token = exchange(oidc_provider, client).json()["id_token"]
    keys = requests.get(oidc_provider.jwks_uri, verify=oidc_provider.ca_file, timeout=60).json()
    key = jwt.PyJWKSet.from_dict(keys)["peer-1"]

    claims = jwt.decode(id_token, key, ["RS256"], audience=client.client_id, issuer=oidc_provider.issuer)

    assert (claims["sub"], claims["nonce"]) == ("ada", "some-nonce")


def test_http_basic_without_form_encoding_is_refused(oidc_provider: OidcProvider, client: RegisteredClient) -> None:
    response = exchange(oidc_provider, client, form_encoded=False)
    assert response.status_code in {400, 401}
    assert response.json()["error"] in {"invalid_client", "invalid_request"}


def test_a_wrong_verifier_is_refused(oidc_provider: OidcProvider, client: RegisteredClient) -> None:
    response = exchange(oidc_provider, client, verifier="x" * 43)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    "changes", [{"code_challenge_method": "plain"}, {"code_challenge": "", "code_challenge_method": ""}]
)
def test_anything_but_s256_is_refused(
    oidc_provider: OidcProvider, client: RegisteredClient, changes: dict[str, str]
) -> None:
    address = by_hand.authorization_url(oidc_provider, client, SCOPE, **changes)
    assert answer_of(oidc_provider.sign_in(address))["error"] == "invalid_request"


def test_a_consumer_may_refuse(oidc_provider: OidcProvider, client: RegisteredClient) -> None:
    answer = answer_of(oidc_provider.refuse(by_hand.authorization_url(oidc_provider, client, SCOPE)))
    assert (answer["error"], answer["iss"]) == ("access_denied", oidc_provider.issuer)


def test_a_client_may_have_short_lived_tokens(oidc_provider: OidcProvider) -> None:
    client = oidc_provider.register(CALLBACK, access_token_lifetime=2)
    assert exchange(oidc_provider, client).json()["expires_in"] == 2


def test_a_revoked_token_opens_nothing(oidc_provider: OidcProvider) -> None:
    client = oidc_provider.register(CALLBACK, token_endpoint_auth_method="client_secret_post")
    credentials = {"client_id": client.client_id, "client_secret": client.client_secret}
    form = {
        "grant_type": "authorization_code",
        "code": signed_in(oidc_provider, client)["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    ca_file = oidc_provider.ca_file
    token = requests.post(oidc_provider.token_endpoint, form | credentials, verify=ca_file, timeout=60).json()

    revocation = {"token": token["access_token"]} | credentials
    requests.post(oidc_provider.revocation_endpoint, revocation, verify=ca_file, timeout=60)

    assert by_hand.ask_for_orders(oidc_provider, token["access_token"], ca_file=ca_file).status_code == 401
