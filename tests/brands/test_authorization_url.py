"""The authorization request's URL."""

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest

from infrastructure.crypto import s256_code_challenge
from oauth_client import ServerConfiguration, authorization_url
from tests.fake_authorization_server import FakeAuthorizationServer, mounted

CHALLENGE = s256_code_challenge("v" * 43)


@pytest.fixture
def acme() -> Iterator[FakeAuthorizationServer]:
    with mounted(FakeAuthorizationServer()) as server:
        yield server


def parameters_of(configuration: ServerConfiguration) -> list[tuple[str, str]]:
    url = authorization_url(configuration, state="the-state", nonce="the-nonce", code_challenge=CHALLENGE)
    return sorted(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def test_the_request_carries_what_the_rfc_asks_for_and_nothing_else(acme: FakeAuthorizationServer) -> None:
    """B1, B2, B20: S256 also with a secret; the configured scope; no nonce without openid."""
    assert parameters_of(acme.configuration(token_endpoint_auth_method="client_secret_basic")) == [
        ("client_id", "consumer-delegation"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("redirect_uri", "https://delegation.test/callback/acme-orders"),
        ("response_type", "code"),
        ("scope", "orders.read"),
        ("state", "the-state"),
    ]


def test_a_strict_server_takes_the_request(acme: FakeAuthorizationServer) -> None:
    url = authorization_url(acme.configuration(), state="the-state", nonce="n", code_challenge=CHALLENGE)

    answer = dict(parse_qsl(acme.authorize(url)))

    assert answer == {"code": answer["code"], "state": "the-state", "iss": "https://login.acme.example"}


def test_openid_adds_a_nonce(acme: FakeAuthorizationServer) -> None:
    """E17: the nonce ties the ID token to this authorization request."""
    added = set(parameters_of(acme.configuration(scope="openid orders.read"))) - set(
        parameters_of(acme.configuration())
    )

    assert added == {("nonce", "the-nonce"), ("scope", "openid orders.read")}


@pytest.mark.parametrize("max_age", [0, 300])
def test_prompt_and_max_age_are_sent_where_the_brand_wants_them(max_age: int, acme: FakeAuthorizationServer) -> None:
    """A6: 0, too, which means: sign in now."""
    changed = acme.configuration(prompt="login", max_age=max_age)

    added = set(parameters_of(changed)) - set(parameters_of(acme.configuration()))

    assert added == {("prompt", "login"), ("max_age", str(max_age))}


def test_no_scope_is_sent_where_none_is_configured(acme: FakeAuthorizationServer) -> None:
    assert "scope" not in dict(parameters_of(acme.configuration(scope="")))


def test_extra_parameters_are_added_and_encoded(acme: FakeAuthorizationServer) -> None:
    configuration = acme.configuration(extra_authorization_parameters={"audience": "a&b=c", "uri": "ü", "self": "x"})

    added = set(parameters_of(configuration)) - set(parameters_of(acme.configuration()))

    assert added == {("audience", "a&b=c"), ("uri", "ü"), ("self", "x")}


def test_extra_parameters_cannot_replace_ours(acme: FakeAuthorizationServer) -> None:
    """B20: also where a row was written without the form."""
    ours = ("state", "redirect_uri", "client_id", "nonce", "code_challenge", "response_mode", "request", "REQUEST_URI")
    configuration = acme.configuration(extra_authorization_parameters=dict.fromkeys(ours, "evil"))

    assert parameters_of(configuration) == parameters_of(acme.configuration())


def test_the_endpoints_own_query_is_kept(acme: FakeAuthorizationServer) -> None:
    """RFC 6749 section 3.1."""
    endpoint = "https://login.acme.example/authorize?tenant=a%26b&flag="

    url = authorization_url(
        acme.configuration(authorization_endpoint=endpoint), state="s", nonce="n", code_challenge=CHALLENGE
    )

    assert url.startswith("https://login.acme.example/authorize?tenant=a%26b&flag=&response_type=code&")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8001/authorize", "HTTP://127.0.0.1:8001/authorize"])
def test_a_loopback_endpoint_stays_as_it_is(endpoint: str, acme: FakeAuthorizationServer) -> None:
    """N10: the library's own check would want an environment variable that switches it off everywhere."""
    url = authorization_url(
        acme.configuration(authorization_endpoint=endpoint), state="s", nonce="n", code_challenge=CHALLENGE
    )

    assert url.startswith("http://127.0.0.1:8001/authorize?response_type=code&")


def test_a_host_named_https_keeps_its_name(acme: FakeAuthorizationServer) -> None:
    url = authorization_url(
        acme.configuration(authorization_endpoint="http://https.localhost/http"),
        state="s",
        nonce="n",
        code_challenge="c",
    )

    assert url.startswith("http://https.localhost/http?")
