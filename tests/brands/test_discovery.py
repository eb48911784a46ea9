"""Fetching and checking a server's metadata (OpenID Connect Discovery 1.0, RFC 8414)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from brands.server_rules import complete_from_metadata, default_algorithms
from oauth_client import DiscoveryFailed, ServerMetadata, discover, transport
from oauth_client.discovery import read_metadata
from tests.fake_authorization_server import Answer, mounted
from tests.modern_authorization_server import ModernAuthorizationServer

ISSUER = "https://login.acme.example"


@pytest.fixture
def acme() -> Iterator[ModernAuthorizationServer]:
    fake = ModernAuthorizationServer()
    with mounted(fake):
        yield fake


def read(**changes: Any) -> ServerMetadata:
    document = ModernAuthorizationServer(metadata_changes=changes).metadata()
    return read_metadata(ISSUER, json.dumps(document).encode())


def refused(document: bytes, issuer: str = ISSUER) -> tuple[str, str]:
    with pytest.raises(DiscoveryFailed) as failure:
        read_metadata(issuer, document)
    assert failure.value.__cause__ is None
    return failure.value.field, failure.value.message


def test_a_document_says_where_everything_is(acme: ModernAuthorizationServer) -> None:
    """C6."""
    assert discover(ISSUER) == ServerMetadata(
        issuer=ISSUER,
        authorization_endpoint=f"{ISSUER}/authorize",
        token_endpoint=f"{ISSUER}/token",
        jwks_uri=f"{ISSUER}/jwks",
        revocation_endpoint=f"{ISSUER}/revoke",
        pushed_authorization_request_endpoint=f"{ISSUER}/par",
        authorization_response_iss_parameter_supported=True,
        id_token_signing_alg_values_supported=("RS256", "none"),
        token_endpoint_auth_methods_supported=("client_secret_basic", "private_key_jwt"),
        code_challenge_methods_supported=("S256",),
    )
    assert acme.metadata_requests == [f"{ISSUER}/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    ("issuer", "path"),
    [
        (ISSUER, "/.well-known/openid-configuration"),
        (ISSUER, "/.well-known/oauth-authorization-server"),
        (f"{ISSUER}/", "/.well-known/openid-configuration"),
        (f"{ISSUER}/", "/.well-known/oauth-authorization-server"),
        (f"{ISSUER}/tenant/a", "/tenant/a/.well-known/openid-configuration"),
        (f"{ISSUER}/tenant/a", "/.well-known/oauth-authorization-server/tenant/a"),
        (f"{ISSUER}/tenant/", "/.well-known/oauth-authorization-server/tenant"),
    ],
)
def test_both_well_known_places_are_known(issuer: str, path: str, acme: ModernAuthorizationServer) -> None:
    """OpenID Connect appends to the issuer's path, RFC 8414 section 3.1 inserts before it."""
    acme.metadata_path, acme.metadata_changes = path, {"issuer": issuer}

    assert discover(issuer).issuer == issuer


NOT_SHOWN: list[object] = [
    *("", 7, [], "<b>planted</b>", "https://u:p@login.acme.example", "https://a.example/" + "a" * 3000)
]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (f"{ISSUER}/", f"differs by the last slash: found {ISSUER}/, expected {ISSUER}."),
        ("https://LOGIN.acme.example", f"differs: found https://LOGIN.acme.example, expected {ISSUER}."),
        ("http://login.acme.example", f"differs: found http://login.acme.example, expected {ISSUER}."),
        (f"{ISSUER}/{{tenantid}}/v2.0", f"differs: found {ISSUER}/{{tenantid}}/v2.0, expected {ISSUER}."),
        *[(odd, f"differs: found something else, expected {ISSUER}.") for odd in NOT_SHOWN],
    ],
)
def test_another_issuer_in_the_document_is_refused(named: object, said: str, acme: ModernAuthorizationServer) -> None:
    """C6, H8: exactly the typed one (RFC 8414 section 3.3). Both are shown, for they may differ by one character."""
    acme.metadata_changes = {"issuer": named}

    with pytest.raises(DiscoveryFailed) as failure:
        discover(ISSUER)

    assert (failure.value.field, failure.value.message) == ("issuer", f"The issuer in the metadata {said}")


def test_an_issuer_typed_with_a_slash_too_many_is_told_so(acme: ModernAuthorizationServer) -> None:
    """C6: the bug: the words said that it was another issuer, and not which."""
    with pytest.raises(DiscoveryFailed, match=f"differs by the last slash: found {ISSUER}, expected {ISSUER}/"):
        discover(f"{ISSUER}/")


def html(status: int = 200, body: bytes = b"<!doctype html><title>Welcome</title>", **headers: str) -> Answer:
    return status, {"Content-Type": "text/html"} | headers, body


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(html(), id="HTML"),
        pytest.param(html(404), id="HTML 404"),
        pytest.param(html(500), id="500"),
        pytest.param(html(403), id="403"),
        pytest.param(html(302, b"", Location="/login"), id="redirect to a login page"),
        pytest.param((204, {}, b""), id="204"),
        pytest.param((200, {}, b""), id="empty"),
        pytest.param((200, {"Content-Type": "text/plain"}, b"Not Found"), id="plain text"),
        pytest.param(
            (200, {"Content-Type": "application/json"}, b'{"error": "not_found"}'), id="JSON without an issuer"
        ),
        pytest.param((200, {"Content-Type": "application/json"}, b"[]"), id="JSON that is no object"),
        pytest.param((200, {"Content-Type": "application/json"}, b"\xff\xfe{}"), id="not UTF-8"),
        pytest.param((200, {"Content-Type": "application/json"}, b'{"issuer": null}'), id="issuer null"),
        pytest.param((200, {}, b'{"issuer": "https://login.acme.example/other-tenant"}'), id="another tenant's"),
        pytest.param(transport.ResponseTooLarge("the answer is too large"), id="a page of more than 64 KB"),
        pytest.param(transport.EndpointTimeout("the server did not answer in time"), id="time-out"),
        pytest.param(transport.EndpointUnreachable("no answer"), id="connection closed"),
    ],
)
def test_what_is_no_metadata_at_the_first_address_does_not_keep_us_from_the_second(
    answer: Answer | transport.OutboundError, acme: ModernAuthorizationServer
) -> None:
    """C6. The bug: a server that answers every path with its start page had no metadata for us (RFC 8414)."""
    acme.metadata_path = "/.well-known/oauth-authorization-server"
    acme.well_known_answers = [answer]

    assert discover(ISSUER).token_endpoint == f"{ISSUER}/token"
    assert len(acme.metadata_requests) == 2


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (html(), "The metadata of this issuer cannot be read: it is not JSON."),
        ((200, {}, b'{"error": "x"}'), "The metadata of this issuer cannot be read: it names no issuer."),
        (html(404), "No metadata was found for this issuer. Enter the endpoints yourself."),
        (
            (200, {}, b'{"issuer": "https://rival.example"}'),
            f"The issuer in the metadata differs: found https://rival.example, expected {ISSUER}.",
        ),
    ],
    ids=str,
)
def test_what_says_most_is_told_where_neither_address_has_metadata(
    first: Answer, said: str, acme: ModernAuthorizationServer
) -> None:
    acme.metadata_path = "/nowhere"
    acme.well_known_answers = [first, html(404)]

    with pytest.raises(DiscoveryFailed) as failure:
        discover(ISSUER)

    assert (failure.value.message, acme.well_known_answers) == (said, [])


def test_a_document_of_this_issuer_that_is_wrong_in_itself_is_not_passed_over(acme: ModernAuthorizationServer) -> None:
    """C6, N1: an address that is not allowed is told at its field; no second document makes up for it."""
    acme.metadata_changes = {"token_endpoint": "http://login.acme.example/token"}

    with pytest.raises(DiscoveryFailed) as failure:
        discover(ISSUER)

    assert (failure.value.field, len(acme.metadata_requests)) == ("token_endpoint", 1)


@pytest.mark.parametrize("announced", [["ES256"], ["RS256"], ["RS256", "HS256"], ["none"]], ids=str)
def test_hs256_can_be_chosen_whatever_is_announced(announced: list[str]) -> None:
    """E16. The bug: LINE announces ES256 and signs with the channel secret, and no configuration was accepted."""
    values = {
        "scope": "openid",
        "token_endpoint_auth_method": "client_secret_basic",
        "id_token_signing_alg_values": ["HS256"],
    }

    assert complete_from_metadata(values, read(id_token_signing_alg_values_supported=announced)) == {}
    assert values["id_token_signing_alg_values"] == ["HS256"]


@pytest.mark.parametrize(
    "name",
    [
        *("authorization_endpoint", "token_endpoint", "jwks_uri"),
        *("revocation_endpoint", "pushed_authorization_request_endpoint"),
    ],
)
@pytest.mark.parametrize(
    "value",
    [
        *("http://login.acme.example/x", "https://127.0.0.2.nip/\\@x", "https://10.0.0.1/x", "https://u:p@a.example/"),
        *("https://a.example/#f", "https://a.example:8443/", "javascript:alert(1)", "/token", 7, ["https://a.example"]),
    ],
    ids=str,
)
def test_an_endpoint_that_could_not_be_typed_is_not_believed_either(name: str, value: object) -> None:
    """N1, C6."""
    with pytest.raises(DiscoveryFailed) as failure:
        read(**{name: value})

    assert failure.value.field == name
    assert failure.value.message.startswith(f"The issuer's metadata has a {name} that is not allowed. ")


def test_an_authorization_endpoint_sets_nothing_that_is_ours() -> None:
    """B20."""
    with pytest.raises(DiscoveryFailed, match="must not set redirect_uri"):
        read(authorization_endpoint=f"{ISSUER}/authorize?redirect_uri=https://rival.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization_response_iss_parameter_supported", "true"),
        ("authorization_response_iss_parameter_supported", 1),
        ("id_token_signing_alg_values_supported", "RS256"),
        ("id_token_signing_alg_values_supported", [1]),
        ("token_endpoint_auth_methods_supported", {"a": "b"}),
        ("code_challenge_methods_supported", ["S256"] * 201),
    ],
)
def test_a_member_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(DiscoveryFailed) as failure:
        read(**{name: value})

    wanted = "true or false" if name.endswith("_parameter_supported") else "a list of names"
    assert (failure.value.field, failure.value.message) == (name, f"In the issuer's metadata, {name} must be {wanted}.")


def test_a_list_may_be_as_long_as_that() -> None:
    assert len(read(code_challenge_methods_supported=["S256"] * 200).code_challenge_methods_supported) == 200


def test_an_address_that_is_no_text_is_called_so() -> None:
    with pytest.raises(DiscoveryFailed) as failure:
        read(token_endpoint=5)

    message = "The issuer's metadata has a token_endpoint that is not allowed. A URL must be text."
    assert (failure.value.field, failure.value.message) == ("token_endpoint", message)


@pytest.mark.parametrize("gone", [..., None])
def test_what_a_server_does_not_have_is_empty(gone: object) -> None:
    found = read(
        jwks_uri=gone,
        revocation_endpoint=gone,
        pushed_authorization_request_endpoint=gone,
        authorization_response_iss_parameter_supported=gone,
        id_token_signing_alg_values_supported=gone,
    )

    assert (found.jwks_uri, found.revocation_endpoint, found.pushed_authorization_request_endpoint) == ("", "", "")
    assert not found.authorization_response_iss_parameter_supported
    assert found.id_token_signing_alg_values_supported == ()


@pytest.mark.parametrize(
    "document",
    [b"", b"<html>", b"[]", b"null", b'{"issuer": "a", "issuer": "b"}', b"\xff\xfe", b'{"a":' * 5000],
)
def test_what_is_no_json_object_is_refused(document: bytes) -> None:
    field, message = refused(document)
    assert field == "issuer"
    assert message.startswith("The metadata of this issuer cannot be read: ")


def test_no_document_is_said_in_words(acme: ModernAuthorizationServer) -> None:
    acme.metadata_path = "/nowhere"

    with pytest.raises(DiscoveryFailed) as failure:
        discover(ISSUER)

    message = "No metadata was found for this issuer. Enter the endpoints yourself."
    assert (failure.value.field, failure.value.message) == ("issuer", message)
    assert len(acme.metadata_requests) == 2


@pytest.mark.parametrize(
    "failure",
    [
        *(transport.EndpointBlocked("a"), transport.EndpointTimeout("b")),
        *(transport.EndpointUnreachable("c"), transport.ResponseTooLarge("d")),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_all_failures_of_the_call_look_alike(
    failure: transport.OutboundError, acme: ModernAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N9: an admin does not learn from us what answers at an address."""

    def fail(*_arguments: Any, **_options: Any) -> Any:
        raise failure

    monkeypatch.setattr(ModernAuthorizationServer, "send", fail)
    with pytest.raises(DiscoveryFailed) as refusal:
        discover(ISSUER)

    message = "The metadata of this issuer could not be fetched."
    assert (refusal.value.field, refusal.value.message) == ("issuer", message)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("issuer", ["http://login.acme.example", "https://10.0.0.1", f"{ISSUER}?x=y", "", "x"])
def test_an_issuer_that_is_none_is_not_called(issuer: str, acme: ModernAuthorizationServer) -> None:
    with pytest.raises(DiscoveryFailed) as failure:
        discover(issuer)

    assert (failure.value.field, acme.metadata_requests) == ("issuer", [])


def test_only_what_is_missing_is_filled_in() -> None:
    """C6: what was typed stays, and has to agree."""
    values = {"token_endpoint": f"{ISSUER}/token", "revocation_endpoint": f"{ISSUER}/other"}

    problems = complete_from_metadata(values, read(token_endpoint_auth_methods_supported=...))

    assert problems == {"revocation_endpoint": f"The issuer's metadata says: {ISSUER}/revoke"}
    assert values["authorization_endpoint"] == f"{ISSUER}/authorize"
    assert values["revocation_endpoint"] == f"{ISSUER}/other"


@pytest.mark.parametrize(
    ("values", "metadata", "field", "message"),
    [
        (
            {},
            {"token_endpoint": ...},
            "token_endpoint",
            "The issuer's metadata does not contain this endpoint. Enter it here.",
        ),
        (
            {"jwks_uri": f"{ISSUER}/keys"},
            {"jwks_uri": ...},
            "jwks_uri",
            "The issuer's metadata does not contain this endpoint.",
        ),
        (
            {"token_endpoint_auth_method": "client_secret_post"},
            {},
            "token_endpoint_auth_method",
            "The issuer's metadata lists client_secret_basic, private_key_jwt.",
        ),
        (
            {"scope": "openid", "id_token_signing_alg_values": ["RS256", "ES256"]},
            {},
            "id_token_signing_alg_values",
            "The issuer's metadata lists RS256, none.",
        ),
        (
            {},
            {"code_challenge_methods_supported": ["plain"]},
            "issuer",
            "Its metadata does not list the code challenge method S256 (PKCE), which all our requests use.",
        ),
        (
            {},
            {"token_endpoint_auth_methods_supported": ["<b>planted</b>", "x" * 33]},
            "token_endpoint_auth_method",
            "The issuer's metadata lists none that we could use.",
        ),
    ],
)
def test_what_contradicts_the_metadata_is_named_at_its_field(
    values: dict[str, Any], metadata: dict[str, Any], field: str, message: str
) -> None:
    """C6, H8: and nothing of the server's own text is quoted that is no name of a method."""
    usual = {"token_endpoint_auth_method": "client_secret_basic"}
    assert complete_from_metadata(usual | values, read(**metadata)) == {field: message}


@pytest.mark.parametrize(
    ("supported", "chosen"),
    [
        (["RS256", "ES256"], ["RS256"]),
        (["ES256", "none", "HS256", "EdDSA"], ["ES256", "EdDSA"]),
        (["none", "HS256"], []),
        (..., ["RS256"]),
    ],
)
def test_algorithms_nobody_named_are_the_servers_own_but_none_and_hs256(supported: Any, chosen: list[str]) -> None:
    """E16."""
    assert default_algorithms(read(id_token_signing_alg_values_supported=supported)) == chosen
