"""A17: the userinfo endpoint (OpenID Connect Core 5.3) or introspection (RFC 7662) says whose a token is."""

import json
import traceback
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from brands.models import AuthorizationServer
from infrastructure.crypto import Secret
from oauth_client import (
    Account,
    AuthorizationServerError,
    ClientCredentials,
    ServerConfiguration,
    TokenResponse,
    identify,
    transport,
)
from oauth_client.validators import validate_subject_member
from tests.fake_authorization_server import PLANTED_SECRET, Answer, FakeAuthorizationServer, mounted

TOKEN = "planted-access-token-7Yq"
TOKENS = TokenResponse(Secret(TOKEN), "orders.read", False, timezone.now(), False, None)
CREDENTIALS = ClientCredentials(Secret(PLANTED_SECRET))
JSON = {"Content-Type": "application/json"}
ENDPOINTS = ["userinfo_endpoint", "introspection_endpoint"]


@pytest.fixture
def acme() -> Iterator[FakeAuthorizationServer]:
    with mounted(FakeAuthorizationServer(issued_access_tokens=[TOKEN])) as server:
        yield server


def asking(acme: FakeAuthorizationServer, endpoint: str, **changes: Any) -> ServerConfiguration:
    path = {"userinfo_endpoint": "/userinfo", "introspection_endpoint": "/introspect"}[endpoint]
    return acme.configuration(**{endpoint: acme.issuer + path} | changes)


def asked(acme: FakeAuthorizationServer, endpoint: str = "userinfo_endpoint", **changes: Any) -> Account:
    return identify(asking(acme, endpoint, **changes), TOKENS, CREDENTIALS, lambda _nonce: True)


def said(acme: FakeAuthorizationServer, account: dict[str, Any], member: str = "id") -> str:
    """Return what the account is recognised by."""
    acme.account = account
    identifier = asked(acme, subject_member=member).identifier
    assert identifier is not None
    return identifier.reveal()


def refused(
    acme: FakeAuthorizationServer, answer: Answer | transport.OutboundError, endpoint: str, member: str = "sub"
) -> AuthorizationServerError:
    acme.next_subject_answers = [answer]
    with pytest.raises(AuthorizationServerError) as refusal:
        asked(acme, endpoint, subject_member=member)
    assert TOKEN not in "".join(traceback.format_exception(refusal.value))
    return refusal.value


def test_the_userinfo_request_has_the_token_and_no_credentials_of_ours(acme: FakeAuthorizationServer) -> None:
    """RFC 6750 section 2.1; N8: this host need not know the client secret."""
    asked(acme)
    (request,) = acme.subject_requests
    assert request.url == "https://login.acme.example/userinfo"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.parameters == {}


def test_the_introspection_request_authenticates_us(acme: FakeAuthorizationServer) -> None:
    """RFC 7662 section 2.1."""
    asked(acme, "introspection_endpoint")
    (request,) = acme.subject_requests
    assert request.headers["Authorization"].startswith("Basic ")
    assert request.parameters == {"token": TOKEN, "token_type_hint": "access_token"}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_both_endpoints_of_one_host_name_one_account_alike(endpoint: str, acme: FakeAuthorizationServer) -> None:
    identifier = asked(acme, endpoint).identifier
    assert identifier is not None
    assert json.loads(identifier.reveal()) == ["login.acme.example", "sub", "ada"]


def test_nobody_is_asked_beside_an_id_token_or_without_an_endpoint(acme: FakeAuthorizationServer) -> None:
    """E19."""
    assert identify(acme.configuration(), TOKENS, CREDENTIALS, lambda _nonce: True) == Account()
    with pytest.raises(AuthorizationServerError, match="invalid_id_token"):
        asked(acme, scope="openid orders.read")
    assert acme.subject_requests == []


@pytest.mark.parametrize("number", [0, 1, -7, 583231, 2**64, 10**254])
def test_a_whole_number_is_its_decimal_digits(number: int, acme: FakeAuthorizationServer) -> None:
    """A server that begins to write the same number as a text names the same account."""
    assert said(acme, {"id": number}) == said(acme, {"id": str(number)})


def test_accounts_differ_by_every_character(acme: FakeAuthorizationServer) -> None:
    """A17: nothing is folded, cut or rounded."""
    ids: list[Any] = ["ada", "Ada", "ada ", "ádá", "a\u0301da", 12, 120, 2**53, 2**53 + 1, "012", "12.0", "שרה"]
    assert len({said(acme, {"id": value}) for value in ids}) == len(ids)


def test_an_account_is_of_its_host_and_its_member(acme: FakeAuthorizationServer) -> None:
    """A17: Rita cannot choose the user name that is Ada's number."""
    account = {"id": 7, "login": "7", "data": {"id": 7}}
    of_other_host = FakeAuthorizationServer("login.rival.example", issued_access_tokens=[TOKEN])
    with mounted(of_other_host):
        elsewhere = said(of_other_host, account)
    with mounted(acme):
        found = [said(acme, account, member) for member in ("id", "login", "/data/id", "/id")]
    assert len({elsewhere, *found}) == 5


@pytest.mark.parametrize(
    ("member", "account"),
    [
        ("id", {"id": "ada"}),
        ("/data/id", {"data": {"id": "ada"}}),
        ("/a~1b/~0c", {"a/b": {"~c": "ada"}}),
        ("https://acme.example/user", {"https://acme.example/user": "ada"}),
        ("a.b", {"a.b": "ada", "a": {"b": "rita"}}),
    ],
)
def test_a_member_is_a_name_or_a_json_pointer(
    member: str, account: dict[str, Any], acme: FakeAuthorizationServer
) -> None:
    """RFC 6901 section 4. A full stop is part of a name."""
    assert json.loads(said(acme, account, member)) == ["login.acme.example", member, "ada"]


# Answers of which nothing can be taken, and the code that a bot reads.
BAD: dict[str, tuple[Answer | transport.OutboundError, str]] = {
    "nothing": ((200, JSON, b""), "invalid_subject_response"),
    "html": ((200, {"Content-Type": "text/html"}, b"<h1>Ada</h1>"), "invalid_subject_response"),
    "html that says json": ((200, JSON, b"<h1>Ada</h1>"), "invalid_subject_response"),
    "a signed answer": ((200, {"Content-Type": "application/jwt"}, b"e30.e30.x"), "invalid_subject_response"),
    "no content type": ((200, {}, b'{"active": true, "sub": "ada"}'), "invalid_subject_response"),
    "another charset": (
        (200, {"Content-Type": "application/json; charset=utf-16"}, b'{"active": true, "sub": "ada"}'),
        "invalid_subject_response",
    ),
    "a list": ((200, JSON, b'[{"active": true, "sub": "ada"}]'), "invalid_subject_response"),
    "a text": ((200, JSON, b'"ada"'), "invalid_subject_response"),
    "the member twice": ((200, JSON, b'{"active": true, "sub": "ada", "sub": "rita"}'), "invalid_subject_response"),
    "cut off": ((200, JSON, b'{"active": true, "sub": "a'), "invalid_subject_response"),
    "nested without end": ((200, JSON, b'{"a":' * 60_000), "invalid_subject_response"),
    "a number without end": (
        (200, JSON, b'{"active": true, "sub": ' + b"9" * 5000 + b"}"),
        "invalid_subject_response",
    ),
    "no member": ((200, JSON, b'{"active": true, "name": "Ada"}'), "invalid_subject_response"),
    "an empty object": ((200, JSON, b"{}"), "invalid_subject_response"),
    "an error with 200": ((200, JSON, b'{"active": true, "sub": "ada", "error": "no"}'), "subject_request_refused"),
    "a redirect": ((302, {"Location": "https://rival.example/user"}, b""), "invalid_subject_response"),
    "a redirect that repeats the request": (
        (307, {"Location": "https://rival.example/"}, b""),
        "invalid_subject_response",
    ),
    "not modified": ((304, JSON, b""), "invalid_subject_response"),
    "created": ((201, JSON, b'{"active": true, "sub": "ada"}'), "invalid_subject_response"),
    "no content": ((204, {}, b""), "invalid_subject_response"),
    "partial": ((206, JSON, b'{"active": true, "sub": "ada"}'), "invalid_subject_response"),
    "forbidden": ((403, JSON, b'{"sub": "ada"}'), "subject_request_refused"),
    "not found": ((404, {"Content-Type": "text/html"}, b"<h1>404</h1>"), "subject_request_refused"),
    "too many requests": ((429, {}, b""), "subject_endpoint_busy"),
    "unavailable": ((503, {"Retry-After": "9"}, b""), "subject_endpoint_busy"),
    "an error of the server": ((500, JSON, b'{"active": true, "sub": "ada"}'), "subject_endpoint_busy"),
    "slow": (transport.EndpointTimeout("the server did not answer in time"), "subject_endpoint_timeout"),
    "huge": (transport.ResponseTooLarge("the answer is too large"), "invalid_subject_response"),
    "away": (transport.EndpointUnreachable("the server could not be reached"), "subject_endpoint_unreachable"),
    "inside our network": (transport.EndpointBlocked("the address is not allowed"), "subject_endpoint_unreachable"),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_answer_has_a_stable_code_and_is_not_asked_for_twice(
    bad: str, endpoint: str, acme: FakeAuthorizationServer
) -> None:
    """A17, N4, N7."""
    answer, error = BAD[bad]
    assert refused(acme, answer, endpoint).error == error
    assert len(acme.subject_requests) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "written",
    [
        *("null", "true", "false", "1.0", "1e3", "1e999", "[]", '["ada"]', "{}", '{"id": "ada"}', '""', '" "', '"\\t"'),
        *('"a\\u0000da"', '"ada\\n"', '"\\ud800"', '"\\u202eada"', '"\\u200b"', f'"{"a" * 256}"', "1" + "0" * 255),
        *('"consumer-delegation"', f'"{TOKEN}"', f'"Bearer {TOKEN}"', '"planted%2Daccess-token-7Yq"'),
    ],
)
def test_what_names_no_account_is_refused_and_not_repeated(
    written: str, endpoint: str, acme: FakeAuthorizationServer
) -> None:
    """A17: neither a value without a meaning of its own, nor the client's id, nor the token in any form."""
    body = f'{{"active": true, "sub": {written}}}'.encode()
    refusal = refused(acme, (200, JSON, body), endpoint)
    assert refusal.error == "invalid_subject_response"
    assert refusal.detail.removeprefix("sub ").removeprefix("there is no sub") in {
        "",
        "is neither a whole number nor a text of 1 to 255 characters",
        "has a character that cannot be printed",
        "is our client id: it names no account",
        "repeats the access token",
    }


@pytest.mark.parametrize("written", ["false", "null", '"true"', "1", "[]"])
def test_a_token_that_is_not_active_names_nobody(written: str, acme: FakeAuthorizationServer) -> None:
    """A17, RFC 7662 section 2.2: exactly `true`."""
    answer = (200, JSON, f'{{"active": {written}, "sub": "ada"}}'.encode())
    assert refused(acme, answer, "introspection_endpoint").error == "invalid_subject_response"
    assert refused(acme, (200, JSON, b'{"sub": "ada"}'), "introspection_endpoint").error == "invalid_subject_response"


@pytest.mark.parametrize("member", ["/data/id", "/data/id/of"])
@pytest.mark.parametrize("data", ['"ada"', "null", "[]", '[{"id": "ada"}]', "7", '{"id": null}'])
def test_a_pointer_into_something_else_than_an_object_finds_nothing(
    data: str, member: str, acme: FakeAuthorizationServer
) -> None:
    refusal = refused(acme, (200, JSON, f'{{"data": {data}}}'.encode()), "userinfo_endpoint", member)
    assert (refusal.error, refusal.detail) == ("invalid_subject_response", f"there is no {member}")


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (
            'Bearer realm="acme", error="insufficient_scope", scope="profile"',
            "HTTP status 401, error insufficient_scope",
        ),
        ('Bearer error="invalid_token", error_description="planted"', "HTTP status 401, error invalid_token"),
        ('Bearer error="planted-words"', "HTTP status 401"),
        ("", "HTTP status 401"),
    ],
)
def test_a_refusal_of_the_token_names_no_word_of_the_server_but_the_code(
    header: str, detail: str, acme: FakeAuthorizationServer
) -> None:
    """H8, RFC 6750 section 3.1. The code says that a scope is missing, which an admin can add."""
    refusal = refused(acme, (401, {"WWW-Authenticate": header}, TOKEN.encode()), "userinfo_endpoint")
    assert (refusal.error, refusal.detail) == ("subject_request_refused", detail)


def test_introspection_tells_that_our_client_is_not_taken(acme: FakeAuthorizationServer) -> None:
    """The code is not that of the token endpoint, as whose failure it would count."""
    acme.client_secret = "another"
    with pytest.raises(AuthorizationServerError) as refusal:
        asked(acme, "introspection_endpoint")
    said = (refusal.value.error, refusal.value.detail)
    assert said == ("subject_request_refused", "HTTP status 401, error invalid_client")


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=UTF-8", "application/vnd.github+json", "APPLICATION/JSON"]
)
def test_json_by_another_name_is_json(media_type: str, acme: FakeAuthorizationServer) -> None:
    """RFC 6839: general APIs have types of their own."""
    acme.next_subject_answers = [(200, {"Content-Type": media_type}, b'{"sub": "ada"}')]
    assert asked(acme).identifier is not None


def test_asking_takes_five_seconds_at_most(acme: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A17: a consumer waits, and the exchange has taken ten seconds already."""
    left: list[float] = []
    original = acme.send

    def send(*arguments: Any, **options: Any) -> Any:
        left.append(transport._block_deadline.get() - monotonic())
        return original(*arguments, **options)

    monkeypatch.setattr(acme, "send", send)
    asked(acme)
    assert [seconds <= 5 for seconds in left] == [True]


@pytest.mark.parametrize(
    "member", ["sub", "id", "uuid", "account_id", "username", "/data/id", "/a~1b", "https://a.example/id"]
)
def test_a_member_that_may_be_an_accounts_id_can_be_declared(member: str) -> None:
    validate_subject_member(member)


@pytest.mark.parametrize(
    "member",
    [
        *("", " ", "a b", "id\n", "/", "//", "/data/", "/a//b", "/a/b/c/d/e/f", "x" * 129, "ïd", "id\x00"),
        *("client_id", "aud", "jti", "exp", "active", "scope", "email", "name", "preferred_username", "phone_number"),
        *("/data/email", "/token/client_id"),
    ],
)
def test_a_member_that_tells_no_accounts_apart_cannot_be_declared(member: str) -> None:
    """A17: with `client_id` all consumers would be one account; a name or address can be changed to another's."""
    with pytest.raises(ValidationError):
        validate_subject_member(member)


@pytest.mark.parametrize(
    ("openid", "given", "refused_fields"),
    [
        (False, ["userinfo_endpoint"], []),
        (False, ["introspection_endpoint"], []),
        (False, ENDPOINTS, ["introspection_endpoint"]),
        (True, [], []),
        (True, ["userinfo_endpoint"], ["userinfo_endpoint"]),
        (True, ENDPOINTS, ENDPOINTS),
    ],
)
def test_a_server_has_one_source_that_says_who_signed_in(
    openid: bool, given: list[str], refused_fields: list[str]
) -> None:
    """A17: two could name one account in two ways. The message is at the field, and says what to do."""
    login = FakeAuthorizationServer(openid=openid)
    server = AuthorizationServer(**login.fields(), **dict.fromkeys(given, f"{login.issuer}/x"))
    errors: dict[str, Any] = {}
    try:
        server.clean()
    except ValidationError as error:
        errors = error.message_dict
    assert list(errors) == refused_fields
    assert all("empty" in message for messages in errors.values() for message in messages)
