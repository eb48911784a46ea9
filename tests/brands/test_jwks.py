"""The server's public keys: fetching, caching, limits, and selection by the token's header."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from oauth_client import keys, transport
from tests.brands.id_tokens import (
    EC_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    THIRD_RSA_KEY,
    WEAK_RSA_KEY,
    KeyServer,
    claims,
    jwk,
    refused,
    signed,
    verify,
)
from tests.concurrency import at_once


def test_keys_are_fetched_once(key_server: KeyServer) -> None:
    """E18."""
    verify(signed(claims()))
    verify(signed(claims()))

    assert key_server.asked == [f"{ISSUER}/jwks"]
    assert key_server.accepted == ["application/jwk-set+json, application/json"]


def test_keys_of_two_servers_are_kept_apart(key_server: KeyServer) -> None:
    verify(signed(claims()))
    key_server.keys = [jwk(OTHER_RSA_KEY, "k1")]

    assert refused(signed(claims()), jwks_uri="https://login.rival.example/jwks")[1] == "its signature is wrong"


def test_a_new_key_is_fetched_when_a_token_names_it(key_server: KeyServer, clock: Callable[[float], None]) -> None:
    """E18: key rotation."""
    verify(signed(claims()))
    key_server.keys = [jwk(RSA_KEY, "k1"), jwk(OTHER_RSA_KEY, "k2")]
    clock(61)

    assert verify(signed(claims(), OTHER_RSA_KEY, kid="k2")).subject == "ada"
    assert len(key_server.asked) == 2


def test_unknown_keys_are_asked_for_once_a_minute(key_server: KeyServer, clock: Callable[[float], None]) -> None:
    """E18: tokens with invented kids must not make us hammer the brand."""
    verify(signed(claims()))
    for _ in range(5):
        error, detail = refused(signed(claims(), kid="invented"))
        assert (error, detail[:62]) == (
            "jwks_unavailable",
            "no key of the server matches the ID token's header; we fetched",
        )
    assert len(key_server.asked) == 1

    clock(61)
    assert refused(signed(claims(), kid="invented")) == (
        "invalid_id_token",
        "no keys of the server fit its header; there must be one",
    )
    for _ in range(5):
        assert refused(signed(claims(), kid="invented"))[0] == "jwks_unavailable"
    assert len(key_server.asked) == 2


def test_a_key_change_within_the_minute_says_that_it_passes(
    key_server: KeyServer, clock: Callable[[float], None]
) -> None:
    """E18. The bug: a brand that had just changed its key was said to send wrong ID tokens."""
    verify(signed(claims()))
    key_server.keys = [jwk(OTHER_RSA_KEY, "k2")]
    clock(30)
    error, detail = refused(signed(claims(), OTHER_RSA_KEY, kid="k2"))
    assert error == "jwks_unavailable"
    assert detail.endswith("ask at most once a minute: a new key is seen after that")

    clock(31)
    assert verify(signed(claims(), OTHER_RSA_KEY, kid="k2")).subject == "ada"


def test_how_many_keys_there_are_is_counted_without_that_limit(key_server: KeyServer) -> None:
    """The doctor asks for each algorithm in turn; "none" is an answer there."""
    assert keys.signing_key_counts(f"{ISSUER}/jwks", ["RS256", "ES256"]) == {"RS256": 1, "ES256": 0}


def test_a_withdrawn_key_is_forgotten_after_five_minutes(key_server: KeyServer, clock: Callable[[float], None]) -> None:
    verify(signed(claims()))
    key_server.keys = [jwk(OTHER_RSA_KEY, "k2")]
    clock(301)

    assert refused(signed(claims()))[0] == "invalid_id_token"


def test_old_keys_are_not_used_where_new_ones_cannot_be_had(
    key_server: KeyServer, clock: Callable[[float], None]
) -> None:
    verify(signed(claims()))
    key_server.failure = transport.EndpointTimeout("the server did not answer in time")
    clock(301)

    assert refused(signed(claims())) == ("jwks_unavailable", "the server did not answer in time")


def test_threads_that_wait_for_a_failing_server_do_not_each_ask_in_turn(
    key_server: KeyServer, clock: Callable[[float], None]
) -> None:
    """E18. The bug: a failure was not remembered, and each waiting thread hung for another ten seconds."""
    key_server.failure = transport.EndpointTimeout("the server did not answer in time")
    answers = at_once(8, lambda _: refused(signed(claims())))

    assert set(answers) == {("jwks_unavailable", "the server did not answer in time")}
    assert len(key_server.asked) == 1

    key_server.failure = None
    clock(11)
    assert verify(signed(claims())).subject == "ada"


def test_no_kid_is_accepted_with_a_single_fitting_key(key_server: KeyServer) -> None:
    """E18: oidc-provider-mock sends none."""
    key_server.keys = [jwk(RSA_KEY, None), jwk(EC_KEY, None), jwk(OTHER_RSA_KEY, None, use="enc")]

    assert verify(signed(claims(), kid=None)).subject == "ada"


def test_no_kid_is_refused_with_several_fitting_keys(key_server: KeyServer) -> None:
    """E18."""
    key_server.keys = [jwk(RSA_KEY, "k1"), jwk(OTHER_RSA_KEY, "k2")]

    assert refused(signed(claims(), kid=None)) == (
        "invalid_id_token",
        "2 keys of the server fit its header; there must be one",
    )


@pytest.mark.parametrize(
    "members",
    [{"use": "enc"}, {"alg": "RS512"}, {"kty": "EC"}, {"kid": "other"}, {"kid": None}],
    ids=["for encryption", "of another algorithm", "of another type", "of another name", "without a name"],
)
def test_a_key_for_something_else_is_not_used(members: dict[str, Any], key_server: KeyServer) -> None:
    key_server.keys = [{**jwk(RSA_KEY, "k1"), **members}]

    assert refused(signed(claims()))[1] == "no keys of the server fit its header; there must be one"


@pytest.mark.parametrize("members", [{"use": None}, {"alg": None}, {"use": None, "alg": None, "x5c": None}], ids=str)
def test_null_in_a_key_leaves_open_what_it_is_for(members: dict[str, Any], key_server: KeyServer) -> None:
    """E18. The bug: such a key was for nothing, and "no keys of the server fit"."""
    key_server.keys = [{**jwk(RSA_KEY, "k1"), **members}]

    assert verify(signed(claims())).subject == "ada"


def test_private_members_of_a_key_are_never_read(key_server: KeyServer) -> None:
    """From `d` alone the library would factor the modulus: work of the server's choosing."""
    key_server.keys = [jwk(RSA_KEY, "k1", d="AQAB", p="x", oth=[])]

    assert verify(signed(claims())).subject == "ada"


@pytest.mark.parametrize("members", [{"n": "!"}, {"n": 5}, {"e": None}, {"n": ""}], ids=str)
def test_a_key_that_is_none_is_the_servers_fault(members: dict[str, Any], key_server: KeyServer) -> None:
    key_server.keys = [{**jwk(RSA_KEY, "k1"), **members}]

    assert refused(signed(claims()))[0] in {"jwks_unavailable", "invalid_id_token"}


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (404, b"{}", "no key set; HTTP status 404"),
        (302, b"{}", "no key set; HTTP status 302"),
        (200, b"", "the key set cannot be read: it is empty"),
        (200, b"<html>", "the key set cannot be read: it is not JSON"),
        (200, b"[]", "the key set cannot be read: it is JSON, but not an object"),
        (200, b"{}", "no key set; HTTP status 200"),
        (200, b'{"keys": {}}', "no key set; HTTP status 200"),
        (200, b'{"keys": [], "keys": []}', "the key set cannot be read: it has a member twice"),
        (200, json.dumps({"keys": [{}] * 101}).encode(), "the key set has more than 100 keys"),
    ],
)
def test_what_is_no_key_set_is_refused(status: int, body: bytes, detail: str, key_server: KeyServer) -> None:
    """E18: 100 keys at most; the 64 KB are the transport's."""
    key_server.status, key_server.body = status, body

    assert refused(signed(claims())) == ("jwks_unavailable", detail)


@pytest.mark.parametrize("others", [25, 99])
def test_a_broker_has_more_keys_than_twenty(others: int, key_server: KeyServer) -> None:
    """E18. The bug: a set of 26 keys, one for each tenant, was refused as a whole."""
    key_server.keys = [*[jwk(OTHER_RSA_KEY, f"tenant-{number}") for number in range(others)], jwk(RSA_KEY, "k1")]

    assert verify(signed(claims())).subject == "ada"


def test_nonsense_among_the_keys_is_passed_over(key_server: KeyServer) -> None:
    key_server.keys = [*([None, 5, "x", {}] * 4), jwk(RSA_KEY, "k1"), jwk(EC_KEY, "k1"), {}, {}]

    assert verify(signed(claims())).subject == "ada"


@pytest.mark.parametrize(
    "again",
    [{}, {"use": "sig"}, {"alg": "RS256"}, {"x5c": ["AAAA"], "x5t": "x"}, {"key_ops": ["verify"]}, {"d": "AQAB"}],
    ids=str,
)
@pytest.mark.parametrize("kid", ["k1", None])
def test_the_same_key_twice_is_one_key(again: dict[str, Any], kid: str | None, key_server: KeyServer) -> None:
    """E18. The bug: a key that stood twice in the set, as brokers have it, was "2 keys"."""
    key_server.keys = [jwk(RSA_KEY, kid), jwk(RSA_KEY, kid, **again), jwk(RSA_KEY, kid)]

    assert verify(signed(claims(), kid=kid)).subject == "ada"


@pytest.mark.parametrize("order", [(RSA_KEY, OTHER_RSA_KEY), (OTHER_RSA_KEY, RSA_KEY)], ids=["first", "second"])
def test_of_two_keys_of_one_kid_the_signature_tells_which(order: tuple[Any, Any], key_server: KeyServer) -> None:
    """E18: neither is chosen silently; a token that neither signed is nobody's."""
    key_server.keys = [jwk(key, "k1") for key in order]

    assert verify(signed(claims())).subject == "ada"
    assert verify(signed(claims(), OTHER_RSA_KEY)).subject == "ada"
    assert refused(signed(claims(), THIRD_RSA_KEY)) == ("invalid_id_token", "its signature is wrong")


@pytest.mark.parametrize("position", [0, 1])
def test_a_key_of_the_same_kid_that_cannot_be_used_does_not_hide_the_other(
    position: int, key_server: KeyServer
) -> None:
    """E18: too short by RFC 7518, and no key at all."""
    for unusable in (jwk(WEAK_RSA_KEY, "k1"), {**jwk(RSA_KEY, "k1"), "n": "!"}):
        keys.forget_all()
        key_server.keys = [jwk(RSA_KEY, "k1")]
        key_server.keys.insert(position, unusable)
        assert verify(signed(claims())).subject == "ada"


def test_a_claim_that_is_wrong_is_said_whichever_key_signed(key_server: KeyServer) -> None:
    """E17: the next key is tried for a signature that is another's, and for nothing else."""
    key_server.keys = [jwk(RSA_KEY, "k1"), jwk(OTHER_RSA_KEY, "k1")]

    assert refused(signed(claims(exp=1)))[1] == "it has expired"
    assert refused(signed(claims(exp=1), OTHER_RSA_KEY))[1] == "it has expired"


def test_no_more_than_four_keys_are_tried(key_server: KeyServer) -> None:
    """E18: each costs a verification, of a token that anybody may have written."""
    n = [jwk(RSA_KEY, "k1")["n"][:-3] + end for end in ("AAB", "AAD", "AAF", "AAH")]
    others = [{**jwk(RSA_KEY, "k1"), "n": number} for number in n]
    key_server.keys = [*others[:3], jwk(RSA_KEY, "k1")]
    assert verify(signed(claims())).subject == "ada"

    keys.forget_all()
    key_server.keys = [*others, jwk(RSA_KEY, "k1")]
    assert refused(signed(claims())) == (
        "invalid_id_token",
        "5 different keys of the server have its kid; 4 are tried at most",
    )


def test_without_a_jwks_uri_the_error_says_so(key_server: KeyServer) -> None:
    assert refused(signed(claims()), jwks_uri="") == ("jwks_unavailable", "no jwks_uri is configured")
    assert key_server.asked == []


def test_a_thread_does_not_wait_for_ever_for_an_answer_that_another_waits_for(
    key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E18: a server that hangs costs each callback its patience, and not all of them their thread."""
    monkeypatch.setattr(keys, "_PATIENCE_SECONDS", 0.01)
    verify(signed(claims()))
    with keys._key_sets[f"{ISSUER}/jwks", ()]._lock:
        assert refused(signed(claims())) == ("jwks_unavailable", "another request is still fetching the key set")
    assert verify(signed(claims())).subject == "ada"
