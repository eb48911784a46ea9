"""What the browser brings to the callback, read before anything is looked up."""

from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest
from django.http import QueryDict

from brands.oauth import (
    AuthorizationResponse,
    AuthorizationServerError,
    ErrorCode,
    MalformedAuthorizationResponse,
    ServerConfiguration,
    check_issuer,
    issuer_matches,
    parse_authorization_response,
)
from delegation_site.crypto import Secret

ISSUER = "https://login.acme.example/"


def parsed(query: str) -> AuthorizationResponse:
    return parse_authorization_response(QueryDict(query))


def configuration(issuer: str = ISSUER, *, promised: bool = True) -> ServerConfiguration:
    return ServerConfiguration(
        authorization_endpoint="https://login.acme.example/authorize",
        token_endpoint="https://login.acme.example/token",
        client_id="consumer-delegation",
        redirect_uri="https://delegation.test/callback/acme-orders",
        issuer=issuer,
        authorization_response_iss_parameter_supported=promised,
    )


def test_a_success_has_state_and_code() -> None:
    assert parsed("code=the-code&state=the-state&iss=https%3A%2F%2Flogin.acme.example%2F&session_state=x") == (
        AuthorizationResponse(state="the-state", code=Secret("the-code"), iss=ISSUER, error=None, error_description="")
    )


def test_a_response_shows_neither_state_nor_code() -> None:
    """H1."""
    shown = repr(parsed("code=planted-code&state=planted-state"))

    assert "planted" not in shown


def test_a_denial_is_read() -> None:
    """B14."""
    assert parsed("error=access_denied&error_description=No+thanks&state=the-state") == AuthorizationResponse(
        state="the-state", code=None, iss=None, error=ErrorCode.ACCESS_DENIED, error_description="No thanks"
    )


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable", "login_required", "invalid_scope"])
def test_a_known_error_keeps_its_code(error: str) -> None:
    assert parsed(f"error={error}&state=s").error == error


@pytest.mark.parametrize("error", ["mystery", "Access_Denied", "invalid_grant", "<script>", "token_endpoint_timeout"])
def test_an_unknown_error_becomes_a_known_one(error: str) -> None:
    """B14: codes are branched on and stored; only we say which there are."""
    response = parsed(f"error={error}&error_description=d&state=s")

    assert (response.error, response.error_description) == ("authorization_request_refused", f"{error} d")


def test_an_error_description_is_cut_and_cleaned() -> None:
    """B14, H8: line breaks, escape sequences and direction marks write false lines into a log."""
    response = parsed("state=s&error=server_error&error_description=" + "a%0d%0ab%1b[31m%E2%80%AEc%00 d" + "x" * 5000)

    assert response.error_description.startswith("a b [31m c dxxx")
    assert len(response.error_description) == 200
    assert response.error_description.isprintable()


def test_a_code_beside_an_error_is_dropped() -> None:
    """RFC 6749 section 4.1.2.1: an error has no code; whoever put one there wants it exchanged."""
    response = parsed("error=access_denied&code=planted&state=s")

    assert (response.code, response.error) == (None, "access_denied")


@pytest.mark.parametrize(
    "query",
    [
        *("code=a&code=b&state=s", "code=a&state=s&state=t", "code=a&state=s&iss=x&iss=x", "code=a&state=s&x=1&x=2"),
        *("error=a&error=b&state=s", "code=a&state=s&state="),
    ],
)
def test_a_parameter_given_twice_is_refused(query: str) -> None:
    """B13: two parsers would read two values (RFC 6749 section 3.1)."""
    with pytest.raises(MalformedAuthorizationResponse):
        parsed(query)


@pytest.mark.parametrize(
    "query", ["", "code=a", "state=s", "code=&state=s", "code=a&state=", "error=access_denied", "x=1"]
)
def test_a_response_without_state_or_without_code_and_error_is_refused(query: str) -> None:
    """B13."""
    with pytest.raises(MalformedAuthorizationResponse):
        parsed(query)


@pytest.mark.parametrize("name", ["code", "state", "iss"])
def test_long_and_odd_values_are_refused(name: str) -> None:
    """B13: 4,096 characters, the printable ones of ASCII (RFC 6749 appendix A)."""
    good = {"code": "c", "state": "s", name: "a" * 4096}
    assert parsed("&".join(f"{key}={value}" for key, value in good.items())).error is None

    for odd in ("a" * 4097, "a%00", "a%0A", "%C3%A4", "%E2%80%AE"):
        with pytest.raises(MalformedAuthorizationResponse):
            parsed("&".join(f"{key}={value}" for key, value in {**good, name: odd}.items()))


def test_the_protocol_code_needs_no_query_dict() -> None:
    class Plain:
        values = parse_qs("code=c&state=s")

        def __iter__(self) -> Iterator[str]:
            return iter(self.values)

        def getlist(self, key: str, /) -> list[str]:
            return self.values[key]

    assert parse_authorization_response(Plain()).code == Secret("c")


def test_the_right_issuer_passes() -> None:
    check_issuer(configuration(), parsed(f"code=c&state=s&iss={ISSUER}"))
    check_issuer(configuration(promised=False), parsed(f"code=c&state=s&iss={ISSUER}"))
    check_issuer(configuration(promised=False), parsed("code=c&state=s"))


@pytest.mark.parametrize("promised", [True, False])
@pytest.mark.parametrize(
    "iss", ["https://login.acme.example", "https://LOGIN.acme.example/", "https://login.rival.example/", "https%3A//x"]
)
def test_another_issuer_is_refused_whether_promised_or_not(iss: str, promised: bool) -> None:
    """C2: the exact string, trailing slash included (RFC 9207 section 2.4)."""
    with pytest.raises(AuthorizationServerError) as refused:
        check_issuer(configuration(promised=promised), parsed(f"code=c&state=s&iss={iss}"))

    assert (refused.value.error, refused.value.detail) == ("issuer_mismatch", "iss is not the configured issuer")


@pytest.mark.parametrize("query", ["code=c&state=s", "code=c&state=s&iss="])
def test_a_promised_issuer_that_is_missing_is_refused(query: str) -> None:
    """C2: taking `iss` away is the attack."""
    with pytest.raises(AuthorizationServerError) as refused:
        check_issuer(configuration(), parsed(query))

    assert (refused.value.error, refused.value.detail) == ("issuer_mismatch", "iss is missing")


def test_that_an_error_has_no_issuer_is_only_noted() -> None:
    """C3: a real server promises `iss` and leaves it out of errors."""
    response = parsed("error=access_denied&state=s")

    check_issuer(configuration(), response)
    assert not issuer_matches(configuration(), response)


@pytest.mark.parametrize("promised", [True, False])
def test_an_error_of_another_issuer_is_refused(promised: bool) -> None:
    """C2: it says nothing about what this server answered (RFC 9207 section 2.4)."""
    with pytest.raises(AuthorizationServerError) as refused:
        check_issuer(
            configuration(promised=promised), parsed("error=access_denied&state=s&iss=https://login.rival.example/")
        )

    assert (refused.value.error, refused.value.detail) == ("issuer_mismatch", "iss is not the configured issuer")


def test_without_a_configured_issuer_there_is_nothing_to_compare() -> None:
    check_issuer(configuration(issuer=""), parsed("code=c&state=s&iss=https://anything.example"))
