"""The claims of an ID token (OpenID Connect Core section 3.1.3.7)."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from oauth_client import IDTokenClaims
from tests.brands.id_tokens import (
    ACCESS_TOKEN,
    CLIENT_ID,
    ISSUER,
    NONCE,
    RSA_KEY,
    claims,
    refused,
    signed,
    verify,
)


@pytest.mark.usefixtures("key_server")
def test_a_good_id_token_says_who_signed_in() -> None:
    said = claims(email="ada@acme.example")

    assert verify(signed(said)) == IDTokenClaims(issuer=ISSUER, subject="ada", auth_time=None, claims=said)


@pytest.mark.usefixtures("key_server")
def test_claims_do_not_show_the_consumer() -> None:
    """H1: an exception report prints what it holds."""
    shown = repr(verify(signed(claims(sub="planted-subject", email="planted@acme.example"))))

    assert "planted" not in shown


@pytest.mark.usefixtures("key_server")
def test_an_authentication_class_that_repeats_the_token_is_none() -> None:
    """P34, P5: bots that cannot read tokens are told the class and the methods."""
    value = ACCESS_TOKEN.reveal()
    said = verify(signed(claims(acr=f"urn:{value}", amr=[value, "otp", f"x{value}x"])))

    assert (said.acr, said.amr) == ("", ("otp",))


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize("acr", [10**400, -1.5, True, None, {}, "\u2028", "a\nb", 'a"b', "a\\b", "x" * 129])
def test_an_authentication_class_of_another_form_is_none(acr: Any) -> None:
    """P34."""
    assert verify(signed(claims(acr=acr))).acr == ""


UNTRUSTED = "aud has untrusted audiences beside our client_id, and there is no azp"
WRONG_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"iss": ...}, "iss is missing"),
    ({"iss": f"{ISSUER}/"}, f"iss differs by the last slash: found {ISSUER}/, expected {ISSUER}"),
    ({"iss": "https://login.rival.example"}, f"iss differs: found https://login.rival.example, expected {ISSUER}"),
    ({"iss": "<b>planted</b>"}, f"iss differs: found something else, expected {ISSUER}"),
    ({"iss": f"{ISSUER}/\nplanted"}, f"iss differs: found something else, expected {ISSUER}"),
    ({"iss": [ISSUER]}, f"iss differs: found something else, expected {ISSUER}"),
    ({"aud": ...}, "aud is missing"),
    ({"aud": []}, "aud is missing"),
    ({"aud": "rival"}, "aud is not our client_id"),
    ({"aud": ["rival"]}, "aud is not our client_id"),
    ({"aud": [CLIENT_ID, "rival"]}, UNTRUSTED),
    ({"aud": [CLIENT_ID, "rival"], "azp": None}, "azp is not our client_id"),
    ({"aud": [CLIENT_ID, "rival"], "azp": "rival"}, "azp is not our client_id"),
    ({"azp": "rival"}, "azp is not our client_id"),
    ({"exp": ...}, "exp is missing"),
    ({"exp": 1}, "it has expired"),
    ({"exp": str(2**33)}, "exp is not a number of seconds"),
    ({"exp": True}, "it has expired"),
    ({"exp": 10**400}, "exp is not a number of seconds"),
    ({"exp": [1]}, "unreadable"),
    ({"iat": ...}, "iat is missing"),
    ({"iat": True}, "iat is not a number of seconds"),
    ({"nbf": 2**33}, "it is from the future"),
    ({"nonce": ...}, "nonce is missing: the server did not return the one that we sent"),
    ({"nonce": None}, "nonce is missing: the server did not return the one that we sent"),
    ({"nonce": "of-another-attempt"}, "nonce is not the one that we sent: the ID token is of another sign-in"),
    ({"nonce": ""}, "nonce is not the one that we sent: the ID token is of another sign-in"),
    ({"nonce": [NONCE]}, "nonce is not the one that we sent: the ID token is of another sign-in"),
    ({"at_hash": "AAAA"}, "at_hash is of another token"),
    ({"at_hash": None}, "at_hash is of another token"),
    ({"sub": ...}, "sub is missing"),
    ({"sub": 17}, "sub is not a text"),
    ({"sub": ""}, "sub is empty or longer than 255 characters"),
    ({"sub": "a" * 256}, "sub is empty or longer than 255 characters"),
    # Half a character, which JSON can escape: no digest can be made of it, and the sign-in ended as a fault of ours.
    ({"sub": "\ud800"}, "unreadable"),
    ({"nonce": "\ud800"}, "unreadable"),
    ({"customer_number": "\ud800"}, "unreadable"),
]


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize(("changes", "detail"), WRONG_CLAIMS, ids=str)
def test_a_wrong_claim_is_refused_with_its_reason(changes: dict[str, Any], detail: str) -> None:
    """E17."""
    payload = claims(**changes)
    # The library will not write some of these; a hostile server would.
    id_token = jwt.api_jws.encode(json.dumps(payload).encode(), RSA_KEY, algorithm="RS256", headers={"kid": "k1"})

    assert refused(id_token) == ("invalid_id_token", detail)


def test_no_id_token_says_nothing_about_anybody() -> None:
    """E16: reading the answer has refused it already; whoever verifies does not rely on that."""
    assert refused(None) == ("invalid_id_token", "there is none")


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize("subject", ["a", "a" * 255])
def test_a_subject_has_one_to_255_characters(subject: str) -> None:
    """E17, OpenID Connect Core section 2."""
    assert verify(signed(claims(sub=subject))).subject == subject


@pytest.mark.usefixtures("key_server")
def test_without_a_configured_issuer_no_id_token_is_anybodys() -> None:
    assert refused(signed(claims()), issuer="") == ("invalid_id_token", "no issuer is configured")


@pytest.mark.usefixtures("key_server")
def test_an_audience_may_be_a_list_with_us_alone() -> None:
    assert verify(signed(claims(aud=[CLIENT_ID]))).subject == "ada"
    assert verify(signed(claims(aud=[CLIENT_ID, "orders-api"], azp=CLIENT_ID))).subject == "ada"


@pytest.mark.usefixtures("key_server")
def test_clocks_may_differ_by_a_minute() -> None:
    """E17: 60 s of leeway."""
    now = int(time.time())

    assert verify(signed(claims(exp=now - 50, iat=now + 50))).subject == "ada"
    assert refused(signed(claims(exp=now - 70))) == ("invalid_id_token", "it has expired")
    assert refused(signed(claims(iat=now + 70))) == ("invalid_id_token", "it is from the future")


@pytest.mark.usefixtures("key_server")
def test_without_a_configured_issuer_nothing_is_believed() -> None:
    assert refused(signed(claims()), issuer="") == ("invalid_id_token", "no issuer is configured")


@pytest.mark.usefixtures("key_server")
def test_auth_time_is_read_where_it_is_sent() -> None:
    at = int(time.time()) - 1000

    assert verify(signed(claims(auth_time=at))).auth_time == datetime.fromtimestamp(at, UTC)


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize(
    ("age", "max_age", "detail"),
    [
        (0, 0, ""),
        (250, 200, ""),
        (270, 200, "auth_time is longer ago than max_age allows"),
        (70, 0, "auth_time is longer ago than max_age allows"),
        (-70, 200, "auth_time is in the future"),
        (None, 200, "auth_time is missing, although max_age was sent"),
        (None, 0, "auth_time is missing, although max_age was sent"),
    ],
)
def test_a_fresh_sign_in_is_checked_where_it_was_asked_for(age: int | None, max_age: int, detail: str) -> None:
    """A6: a server that ignores max_age would hand over a session that somebody left open."""
    auth_time = ... if age is None else int(time.time()) - age
    id_token = signed(claims(auth_time=auth_time))

    if detail:
        assert refused(id_token, max_age=max_age) == ("invalid_id_token", detail)
    else:
        assert verify(id_token, max_age=max_age).auth_time is not None


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize("auth_time", ["1700000000", True, -1, 10**18, [1]])
def test_an_auth_time_that_is_no_moment_is_refused(auth_time: object) -> None:
    assert refused(signed(claims(auth_time=auth_time))) == ("invalid_id_token", "auth_time is not a number of seconds")


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize(
    ("said", "trusted"),
    [
        ({"aud": [CLIENT_ID, "https://api.acme.example"]}, ["https://api.acme.example"]),
        ({"aud": ["https://api.acme.example", CLIENT_ID, "project"]}, ["project", "https://api.acme.example", "other"]),
        ({"aud": [CLIENT_ID, "https://api.acme.example"], "azp": CLIENT_ID}, []),
        ({"aud": [CLIENT_ID, CLIENT_ID]}, []),
        ({"aud": [CLIENT_ID]}, []),
        ({"aud": CLIENT_ID, "azp": CLIENT_ID}, []),
    ],
    ids=str,
)
def test_audiences_beside_us_are_accepted_where_somebody_vouches_for_them(
    said: dict[str, Any], trusted: list[str]
) -> None:
    """E17: OpenID Connect Core with errata set 2, section 3.1.3.7: `azp` may be missing, trust may not."""
    assert verify(signed(claims(**said)), trusted_audiences=trusted).subject == "ada"


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ({"aud": [CLIENT_ID, "https://api.acme.example", "rival"]}, UNTRUSTED),
        ({"aud": ["https://api.acme.example"]}, "aud is not our client_id"),
        ({"aud": [CLIENT_ID, "https://api.acme.example"], "azp": "rival"}, "azp is not our client_id"),
        (
            {"aud": [CLIENT_ID, "https://api.acme.example"], "azp": "https://api.acme.example"},
            "azp is not our client_id",
        ),
        ({"aud": [CLIENT_ID, "https://API.acme.example"]}, UNTRUSTED),
    ],
    ids=str,
)
def test_a_trusted_audience_vouches_for_nobody_else(said: dict[str, Any], detail: str) -> None:
    """E17: a token that was issued to another client is no proof of who signed in here."""
    assert refused(signed(claims(**said)), trusted_audiences=["https://api.acme.example"])[1] == detail
