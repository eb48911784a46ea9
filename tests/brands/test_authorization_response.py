"""Parsing the authorization response at the callback, before any query."""

from collections.abc import Iterator
from urllib.parse import parse_qs, urlencode

import pytest
from django.http import QueryDict

from infrastructure.crypto import Secret
from oauth_client import (
    AuthorizationResponse,
    AuthorizationServerError,
    ErrorCode,
    MalformedAuthorizationResponse,
    ServerConfiguration,
    check_issuer,
    issuer_matches,
    parse_authorization_response,
)
from oauth_client.errors import issuer_mismatch

ISSUER = "https://login.acme.example/"


def parsed(query: str, denial_codes: str = "") -> AuthorizationResponse:
    return parse_authorization_response(QueryDict(query), denial_codes.split())


def reason(query: str) -> str:
    with pytest.raises(MalformedAuthorizationResponse) as malformed:
        parsed(query)
    return str(malformed.value)


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


@pytest.mark.parametrize("error", ["mystery", "access-denied", "invalid_grant", "<script>", "token_endpoint_timeout"])
def test_an_unknown_error_becomes_a_known_one(error: str) -> None:
    """B14: codes are branched on and stored; only we say which there are."""
    response = parsed(f"error={error}&error_description=d&state=s")

    assert (response.error, response.error_description) == ("authorization_request_refused", f"{error} d")


@pytest.mark.parametrize(
    "error",
    [
        *("user_cancelled_login", "user_cancelled_authorize", "USER_CANCELLED_LOGIN"),  # LinkedIn; Apple
        *("oem_cancelled_login", "user_cancelled", "user_denied"),
        *("user_canceled", "User_Canceled_Login", "user_canceled_authorize"),  # in American spelling
    ],
)
def test_a_cancel_is_a_denial_in_whatever_words(error: str) -> None:
    """B14. The bug: the challenge stayed open, and the consumer read that the brand was not answering."""
    response = parsed(f"error={error}&error_description=The+user+cancelled&state=s")

    assert (response.error, response.error_description) == ("access_denied", f"{error} The user cancelled")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *(("ACCESS_DENIED", "access_denied"), ("Access_Denied", "access_denied"), ("Server_Error", "server_error")),
        *(("invalid_target", "invalid_target"), ("request_not_supported", "invalid_request")),
        ("invalid_client", "invalid_client"),
    ],
)
def test_standard_codes_are_heard_in_any_case_of_letters(error: str, code: str) -> None:
    """B14, B23. The bug: a code of RFC 8707 or OpenID Connect was one "that no standard names"."""
    assert parsed(f"error={error}&state=s").error == code


def test_a_description_counts_beside_a_code_in_capitals() -> None:
    assert parsed("error=ACCESS_DENIED&error_description=AADB2C90118&state=s").error == "sign_in_interrupted"


@pytest.mark.parametrize("error", ["17", "SIG-17", "sig-17", "urn:signicat:error:usercancel", "login_required"])
def test_a_servers_own_cancel_codes_are_denials_too(error: str) -> None:
    """B14: as its admin has listed them, also numbers, capitals and registered codes."""
    listed = "17 SIG-17 urn:signicat:error:usercancel login_required"

    assert parsed(f"error={error}&state=s", listed).error == "access_denied"
    assert parsed(f"error={error}&state=s").error != "access_denied"


@pytest.mark.parametrize("error", ["1", "170", "17 ", "SIG", "urn"])
def test_a_part_of_a_listed_code_is_none(error: str) -> None:
    response = parsed(urlencode({"error": error, "state": "s"}), "17 SIG-17 urn:signicat:error:usercancel")

    assert response.error == "authorization_request_refused"


@pytest.mark.parametrize(
    ("error", "description", "code"),
    [
        ("access_denied", "AADB2C90118: The user has forgotten their password.\r\nCorrelation", "sign_in_interrupted"),
        ("access_denied", "AADB2C90091: The user has cancelled entering information.", "access_denied"),
        ("access_denied", "User is not assigned to the client application.", "sign_in_refused"),
        ("access_denied", "AADSTS50105: The signed in user is not assigned to a role", "sign_in_refused"),
        ("access_denied", "AADSTS90094: An administrator has to consent", "sign_in_refused"),
        ("access_denied", "aadsts53003 Access has been blocked by Conditional Access", "sign_in_refused"),
        ("access_denied", "AADSTS53000: Device is not in required device state", "sign_in_refused"),
        ("access_denied", "Policy evaluation failed for this request, please check the policy", "sign_in_refused"),
        ("access_denied", "upstream said admin_policy_enforced", "sign_in_refused"),
        ("admin_policy_enforced", "", "sign_in_refused"),
        ("org_internal", "", "sign_in_refused"),
        ("unauthorized", "user is blocked", "sign_in_refused"),
        ("consent_required", "AADSTS65004: The resource owner denied the request.", "access_denied"),
        ("consent_required", "", "consent_required"),
        ("access_denied", "mitid_user_aborted", "access_denied"),
        ("access_denied", "User did not authorize the request", "access_denied"),
        ("access_denied", "", "access_denied"),
        ("server_error", "AADB2C90118", "server_error"),
        ("redirect_uri_mismatch", "", "redirect_uri_mismatch"),
        ("application_suspended", "", "unauthorized_client"),
    ],
)
def test_a_known_description_says_whose_no_it_is(error: str, description: str, code: str) -> None:
    """B14: a rule of the server's, and a forgotten password, are not the consumer's no; the default is."""
    assert parsed(urlencode({"error": error, "error_description": description, "state": "s"})).error == code


def test_unknown_parameters_are_ignored_however_often_they_come() -> None:
    """B13 (RFC 6749 section 4.1.2). The bug: `scope` or a tracker's parameter twice was a dead link."""
    response = parsed("code=a&state=s&utm=1&utm=2&scope=x&scope=y&session_state=z&session_state=z")

    assert response.code == Secret("a")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "there are no parameters: does the server answer in the fragment (response_mode, response_type)?"),
        ("error=access_denied", "state is missing, error is access_denied"),
        ("error=planted-error", "state is missing"),
        ("code=planted-code", "state is missing"),
        ("state=planted-state", "code and error are missing"),
        ("utm=1", "state is missing, code and error are missing"),
        ("error=USER_CANCELED", "state is missing, error is user_canceled"),
        (
            "form_post",
            "it was a POST, which comes without its cookie: does the server use the response_mode form_post?",
        ),
        (
            "response=planted.planted.planted",
            "it is a signed response (JARM), which is not supported: does the server use a response_mode of JWTs?",
        ),
        ("code=planted-code&amp;state=planted-state", "& is written as &amp;: the server escaped the address for HTML"),
        ("error=access_denied&amp;error_description=x&state=s&state=t", "state is given twice"),
        ("code=planted-code&code=planted-code&state=s", "code is given twice"),
        (f"code={'planted-' * 600}&state=s", "code is longer than 4096 characters"),
        ("code=planted%00&state=s", "code contains characters that are not allowed"),
    ],
)
def test_why_a_response_is_none_is_said_without_what_it_held(query: str, words: str) -> None:
    """B13, H1: for the log, which is all that an admin has."""
    assert reason(query) == words


def test_an_escaped_ampersand_beside_a_plain_one_is_no_parameter_of_the_protocol() -> None:
    """B13: it is never read as one, so that no two readers can take two values from one address."""
    response = parsed("code=a&state=s&amp;state=t&amp;code=b")

    assert (response.state, response.code) == ("s", Secret("a"))


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
        *("code=a&code=b&state=s", "code=a&state=s&state=t", "code=a&state=s&iss=x&iss=x"),
        *(
            "error=a&error=b&state=s",
            "code=a&state=s&state=",
            "error=a&state=s&error_description=b&error_description=c",
        ),
        "error=a&state=s&error_uri=b&error_uri=c",
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

    assert refused.value.error == "issuer_mismatch"
    assert refused.value.detail.endswith(f"found {iss.replace('%3A', ':')}, expected {ISSUER}")


def test_issuers_that_differ_by_the_last_slash_alone_are_said_to() -> None:
    """C2: rightly refused; nobody sees the difference in a form."""
    without = ISSUER.removesuffix("/")
    for found, configured in ((without, ISSUER), (ISSUER, without)):
        with pytest.raises(AuthorizationServerError) as refused:
            check_issuer(configuration(configured), parsed(f"code=c&state=s&iss={found}"))
        assert refused.value.detail == (f"iss differs by the last slash: found {found}, expected {configured}")


@pytest.mark.parametrize("found", ["https://" + "a" * 3000 + "/", "https://a.example/\x1b[31m"])
def test_an_issuer_from_outside_is_cut_and_cleaned(found: str) -> None:
    """H8."""
    long = "https://login.acme.example/" + "t" * 300
    shown = issuer_mismatch(long, found)

    assert (len(shown) < 180, shown.isprintable()) == (True, True)
    assert issuer_mismatch(long, long + "/").startswith("differs by the last slash: found https://login.acme.example/")


@pytest.mark.parametrize("query", ["code=c&state=s", "code=c&state=s&iss="])
def test_a_promised_issuer_that_is_missing_is_refused(query: str) -> None:
    """C2: taking `iss` away is the attack."""
    with pytest.raises(AuthorizationServerError) as refused:
        check_issuer(configuration(), parsed(query))

    assert (refused.value.error, refused.value.detail) == (
        "issuer_mismatch",
        f"iss is missing, configured {ISSUER}",
    )


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

    assert refused.value.error == "issuer_mismatch"
    assert "found https://login.rival.example/" in refused.value.detail


def test_without_a_configured_issuer_there_is_nothing_to_compare() -> None:
    check_issuer(configuration(issuer=""), parsed("code=c&state=s&iss=https://anything.example"))
