"""The APIs that a token is for: `resource` in every request of ours (RFC 8707)."""

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.core.exceptions import ValidationError
from django.http import QueryDict

from brands.models import AuthorizationServer
from infrastructure.crypto import Secret, s256_code_challenge
from oauth_client import (
    AuthorizationServerError,
    ClientCredentials,
    ServerConfiguration,
    authorization_url,
    exchange_code,
    parse_authorization_response,
    pushed_authorization_url,
    validators,
)
from tests.fake_authorization_server import PLANTED_SECRET, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

ORDERS, INVOICES = "https://api.acme.example/orders", "urn:acme:invoices"
PLANTED = ClientCredentials(Secret(PLANTED_SECRET))
VERIFIER = "v" * 43
REQUEST = {"state": "the-state", "nonce": "the-nonce", "code_challenge": s256_code_challenge(VERIFIER)}


@pytest.fixture
def acme() -> Iterator[ModernAuthorizationServer]:
    """A server that binds audiences. It requires the same resources in both requests."""
    with mounted(ModernAuthorizationServer(pushed_only=False, resource=[ORDERS, INVOICES])) as server:
        assert isinstance(server, ModernAuthorizationServer)
        yield server


def exchange(configuration: ServerConfiguration, query: str) -> Secret:
    code = Secret(dict(parse_qsl(query))["code"])
    return exchange_code(configuration, code=code, code_verifier=Secret(VERIFIER), credentials=PLANTED).access_token


def resources_in(query: str) -> list[str]:
    return [value for name, value in parse_qsl(query) if name == "resource"]


def test_both_requests_name_every_resource(acme: ModernAuthorizationServer) -> None:
    """B23. The bug: the token request named none, and the token was for no API of the brand's."""
    url = authorization_url(acme.configuration(), **REQUEST)

    granted = exchange(acme.configuration(), acme.authorize(url))

    assert resources_in(urlsplit(url).query) == [ORDERS, INVOICES]
    assert acme.token_requests[0].parameters["resource"] == f"{ORDERS} {INVOICES}"
    assert granted == Secret(acme.issued_access_tokens[0])


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_a_pushed_request_names_every_resource(method: str, acme: ModernAuthorizationServer) -> None:
    """B21, B23: a form as a dictionary would have held the last one alone. Client id and secret stand there once."""
    acme.pushed_only, acme.token_endpoint_auth_method = True, method

    query = acme.authorize(pushed_authorization_url(acme.configuration(), PLANTED, **REQUEST))

    assert acme.pushes[0].parameters["resource"] == f"{ORDERS} {INVOICES}"
    assert exchange(acme.configuration(), query) == Secret(acme.issued_access_tokens[0])


def test_a_resource_is_sent_character_for_character(acme: ModernAuthorizationServer) -> None:
    """RFC 8707 section 2: servers compare strings."""
    odd = "https://API.acme.example:8443/a%2Fb/?x=1&y=(2)"

    url = authorization_url(acme.configuration(resource=[odd]), **REQUEST)

    assert resources_in(urlsplit(url).query) == [odd]


def test_without_a_resource_nothing_is_sent(acme: ModernAuthorizationServer) -> None:
    acme.resource = []

    exchange(acme.configuration(), acme.authorize(authorization_url(acme.configuration(), **REQUEST)))

    assert "resource" not in acme.authorization_requests[0]
    assert "resource" not in acme.token_requests[0].parameters


def test_a_resource_that_the_server_refuses_ends_the_authorization_request_in_words(
    acme: ModernAuthorizationServer,
) -> None:
    """RFC 8707 section 2: `invalid_target`."""
    query = acme.authorize(authorization_url(acme.configuration(resource=[ORDERS]), **REQUEST))

    assert parse_authorization_response(QueryDict(query)).error == "invalid_target"


def test_a_resource_that_the_token_endpoint_refuses_is_named_as_the_cause(acme: ModernAuthorizationServer) -> None:
    """The bug: `token_request_refused`, "with a code of its own", whose remedy is another one."""
    query = acme.authorize(authorization_url(acme.configuration(), **REQUEST))
    acme.next_token_answer = (400, {"Content-Type": "application/json"}, b'{"error": "invalid_target"}')

    with pytest.raises(AuthorizationServerError) as refused:
        exchange(acme.configuration(), query)

    assert refused.value.error == "invalid_target"


def test_a_resource_that_the_server_refuses_when_pushed_is_the_same_error(acme: ModernAuthorizationServer) -> None:
    """RFC 8707 section 2, B21. The bug: it was called a code that no standard names, and the field was not named."""
    acme.pushed_only = True
    acme.next_push_answer = (400, {"Content-Type": "application/json"}, b'{"error": "invalid_target"}')

    with pytest.raises(AuthorizationServerError) as refused:
        pushed_authorization_url(acme.configuration(), PLANTED, **REQUEST)

    assert refused.value.error == "invalid_target"
    assert "*Resource*" in refused.value.meaning.remedy


def test_a_resource_that_only_the_token_request_changes_gets_no_token(acme: ModernAuthorizationServer) -> None:
    query = acme.authorize(authorization_url(acme.configuration(), **REQUEST))

    with pytest.raises(AuthorizationServerError, match="invalid_grant"):
        exchange(acme.configuration(resource=[ORDERS]), query)


@pytest.mark.parametrize(
    "resource",
    [
        *(ORDERS, INVOICES, "https://api.acme.example", "https://api.acme.example/?tenant=a", "api://orders"),
        *("https://[2001:db8::1]/", "urn:x:y#"[:-1], "https://api.acme.example/" + "a" * 900),
    ],
)
def test_an_absolute_uri_is_a_resource(resource: str) -> None:
    validators.validate_resources([resource])


@pytest.mark.parametrize(
    "resources",
    [
        *(["orders"], ["/orders"], ["//api.acme.example"], [""], ["https:"], ["https://"], ["https:///orders"]),
        *(
            [f"{ORDERS}#"],
            [f"{ORDERS}#part"],
            ["https://a b.example/"],
            ["https://api.acme.example/\n"],
            ["https://ä/"],
        ),
        *(["https://user:pw@api.acme.example/"], ["https://api.acme.example/%zz"], ["https://[::1/"], ["https://\\a/"]),
        *([ORDERS, ORDERS], [ORDERS] * 11, ["https://api.acme.example/" + "a" * 1000], [1], [None], [[ORDERS]]),
        *(ORDERS, None, {"resource": ORDERS}),
    ],
    ids=str,
)
def test_what_is_no_list_of_absolute_uris_is_refused(resources: object) -> None:
    """B23: what a server could read in another way than we do is not sent."""
    with pytest.raises(ValidationError) as refused:
        validators.validate_resources(resources)

    assert refused.value.code == "invalid_resource"


@pytest.mark.parametrize("name", ["resource", "RESOURCE", "prompt", "max_age", "scope"])
def test_a_parameter_with_a_field_of_its_own_is_sent_there(name: str) -> None:
    """B20: `resource` as an extra parameter would stand in one of the two requests, and once."""
    message = f"{name} is not allowed here: use the field of that name."

    with pytest.raises(ValidationError) as refused:
        validators.validate_extra_authorization_parameters({name: ORDERS})

    assert refused.value.messages == [message]


def test_an_extra_parameter_of_an_old_row_sets_no_resource(acme: ModernAuthorizationServer) -> None:
    """B20: by SQL, or stored before it was reserved."""
    extra = {"resource": "https://rival.example"}
    url = authorization_url(acme.configuration(extra_authorization_parameters=extra), **REQUEST)

    assert resources_in(urlsplit(url).query) == [ORDERS, INVOICES]


def test_an_address_that_no_server_would_read_is_not_sent(acme: ModernAuthorizationServer) -> None:
    """B20: nginx and Apache read a request line of some 8 KB."""
    scope = " ".join(f"https://api.acme.example/auth/orders.{number}" for number in range(180))

    with pytest.raises(AuthorizationServerError) as refused:
        authorization_url(acme.configuration(scope=scope), **REQUEST)

    assert refused.value.error == "authorization_request_refused"
    assert refused.value.detail.endswith("servers accept at most 8000")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scope": "a%" * 2000}, "scope"),
        ({"resource": [f"urn:{number}:" + "%aa" * 300 for number in range(10)]}, "resource"),
    ],
    ids=["scope", "resource"],
)
def test_a_request_that_is_too_long_is_said_at_its_field(
    fields: dict[str, object], field: str, acme: ModernAuthorizationServer
) -> None:
    """B20: before any consumer meets it; a pushed one may be as long as that (B21)."""
    server = AuthorizationServer(**{**acme.fields(), **fields})

    with pytest.raises(ValidationError) as refused:
        server.clean()
    server.pushed_authorization_request_endpoint = "https://login.acme.example/par"
    server.clean()

    assert list(refused.value.message_dict) == [field]
    assert "pushed requests" in refused.value.message_dict[field][0]
