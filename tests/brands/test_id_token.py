"""Who signed in, as the server's signature proves it. The list is the conformance suite's for relying parties."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from requests.adapters import BaseAdapter

from brands import transport
from brands.oauth import AuthorizationServerError, IDTokenClaims, ServerConfiguration, keys, verify_id_token
from delegation_site.crypto import Secret

ISSUER = "https://login.acme.example"
CLIENT_ID = "consumer-delegation"
CLIENT_SECRET = Secret("a client secret that is long enough for HS256")
ACCESS_TOKEN = Secret("access-token-4Zq8vW")
NONCE = "nonce-of-this-attempt"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "EdDSA"]


def jwk(key: Any, kid: str | None = "k1", **members: Any) -> dict[str, Any]:
    """Return the public key as a key set has it."""
    algorithm: Any = jwt.algorithms.RSAAlgorithm
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = jwt.algorithms.ECAlgorithm
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = jwt.algorithms.OKPAlgorithm
    named = {"kid": kid} if kid is not None else {}
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **named, **members}


@dataclass
class KeyServer(BaseAdapter):
    """The wire below the JWKS request: an answer, and a count of who asked."""

    keys: list[Any] = field(default_factory=lambda: [jwk(RSA_KEY, "k1")])
    status: int = 200
    body: bytes | None = None
    failure: transport.OutboundError | None = None
    asked: list[str] = field(default_factory=list)

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        self.asked.append(str(request.url))
        if self.failure:
            raise self.failure
        response = requests.Response()
        response.status_code = self.status
        response.raw = BytesIO(json.dumps({"keys": self.keys}).encode() if self.body is None else self.body)
        response.request = request
        return response

    def close(self) -> None:
        """Hold nothing open."""


@pytest.fixture
def key_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    server = KeyServer()
    monkeypatch.setattr(transport, "adapter_for", lambda _url: server)
    keys.forget_all()
    yield server
    keys.forget_all()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that lets seconds pass for the key sets' clock."""
    passed = [0.0]
    real = time.monotonic
    monkeypatch.setattr(keys, "monotonic", lambda: real() + passed[0])

    def let_pass(seconds: float) -> None:
        passed[0] += seconds

    return let_pass


def configuration(**changes: Any) -> ServerConfiguration:
    return ServerConfiguration(
        **{
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "client_id": CLIENT_ID,
            "redirect_uri": "https://delegation.test/callback/acme-orders",
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/jwks",
            "scope": "openid orders.read",
            **changes,
        }
    )


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good ID token with some changed; `...` takes a claim away."""
    now = int(time.time())
    usual = {"iss": ISSUER, "sub": "ada", "aud": CLIENT_ID, "exp": now + 300, "iat": now, "nonce": NONCE, **changes}
    return {name: value for name, value in usual.items() if value is not ...}


def signed(
    payload: dict[str, Any], key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "k1", **header: Any
) -> str:
    named = {"kid": kid} if kid is not None else {}
    return jwt.encode(payload, key, algorithm=algorithm, headers={**named, **header})


def verify(id_token: str, client_secret: Secret | None = None, **configured: Any) -> IDTokenClaims:
    return verify_id_token(
        configuration(**configured),
        Secret(id_token),
        nonce_matches=lambda nonce: nonce == NONCE,
        access_token=ACCESS_TOKEN,
        client_secret=client_secret,
    )


def refused(id_token: str, client_secret: Secret | None = None, **configured: Any) -> tuple[str, str]:
    with pytest.raises(AuthorizationServerError) as refusal:
        verify(id_token, client_secret, **configured)
    assert refusal.value.__cause__ is None
    return refusal.value.error.value, refusal.value.detail


@pytest.mark.usefixtures("key_server")
def test_a_good_id_token_says_who_signed_in() -> None:
    said = claims(email="ada@acme.example")

    assert verify(signed(said)) == IDTokenClaims(issuer=ISSUER, subject="ada", auth_time=None, claims=said)


@pytest.mark.usefixtures("key_server")
def test_claims_do_not_show_the_consumer() -> None:
    """H1: an exception report prints what it holds."""
    shown = repr(verify(signed(claims(sub="planted-subject", email="planted@acme.example"))))

    assert "planted" not in shown


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_configured_algorithm_is_verified(algorithm: str, key_server: KeyServer) -> None:
    """E16; at_hash takes the algorithm's own hash (OpenID Connect Core section 3.1.3.6)."""
    key = {"ES256": EC_KEY, "EdDSA": ED_KEY}.get(algorithm, RSA_KEY)
    key_server.keys = [jwk(key)]
    size = {"256": "sha256", "384": "sha384"}.get(algorithm[2:], "sha512")
    digest = hashlib.new(size, ACCESS_TOKEN.reveal().encode()).digest()
    at_hash = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()

    said = claims(at_hash=at_hash)

    assert verify(signed(said, key, algorithm), id_token_signing_alg_values=[algorithm]).claims == said
    assert refused(
        signed(claims(at_hash=at_hash[:-1] + "_"), key, algorithm), id_token_signing_alg_values=[algorithm]
    ) == (
        "invalid_id_token",
        "at_hash is of another token",
    )


def test_hs256_is_verified_with_the_client_secret_where_it_was_chosen(key_server: KeyServer) -> None:
    """E16."""
    id_token = signed(claims(), CLIENT_SECRET.reveal(), "HS256")

    assert verify(id_token, CLIENT_SECRET, id_token_signing_alg_values=["HS256"]).subject == "ada"
    assert key_server.asked == []


@pytest.mark.parametrize(
    ("secret", "detail"),
    [
        (None, "HS256 needs a client secret"),
        (Secret("another secret that is long enough for HS256"), "its signature is wrong"),
        (Secret("short"), "its key is too short or of another kind"),
    ],
)
def test_hs256_with_another_secret_is_refused(secret: Secret | None, detail: str) -> None:
    id_token = signed(claims(), CLIENT_SECRET.reveal(), "HS256")

    assert refused(id_token, secret, id_token_signing_alg_values=["HS256"]) == ("invalid_id_token", detail)


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize("configured", [["RS256"], ["RS256", "none"], ["none"], []])
def test_an_unsigned_token_is_refused_whatever_is_configured(configured: list[str]) -> None:
    """E16: two servers advertise `none`."""
    unsigned = jwt.encode(claims(), "", algorithm="none", headers={"kid": "k1"})

    for spelling in (b'"none"', b'"None"', b'"NONE"', b'""', b"null", b'["RS256"]'):
        header, payload, _ = unsigned.split(".")
        changed = base64.urlsafe_b64decode(header + "==").replace(b'"none"', spelling)
        id_token = f"{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}.{payload}."
        assert refused(id_token, id_token_signing_alg_values=configured)[0] == "invalid_id_token"


@pytest.mark.usefixtures("key_server")
def test_a_public_key_is_no_hmac_secret() -> None:
    """RFC 8725 section 2.1: RS256 turned into HS256, signed with the server's public key."""
    public = json.dumps(jwk(RSA_KEY)).encode()
    # By hand: the library refuses to sign with what looks like a public key.
    unsigned = signed(claims(), CLIENT_SECRET.reveal(), "HS256").rpartition(".")[0]
    signature = base64.urlsafe_b64encode(hmac.digest(public, unsigned.encode(), "sha256")).rstrip(b"=").decode()
    id_token = f"{unsigned}.{signature}"

    assert refused(id_token) == ("invalid_id_token", "its algorithm is not one of the configured ones")
    assert refused(id_token, CLIENT_SECRET, id_token_signing_alg_values=["RS256", "HS256"]) == (
        "invalid_id_token",
        "its signature is wrong",
    )


@pytest.mark.usefixtures("key_server")
def test_an_algorithm_that_was_not_configured_is_refused() -> None:
    assert refused(signed(claims(), algorithm="RS512")) == (
        "invalid_id_token",
        "its algorithm is not one of the configured ones",
    )


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize(
    "header",
    [
        {"jwk": jwk(OTHER_RSA_KEY)},
        {"jku": "https://rival.example/jwks"},
        {"x5u": "https://rival.example/cert", "x5c": ["AAAA"]},
    ],
    ids=["jwk", "jku", "x5u"],
)
def test_a_key_in_the_header_is_ignored(header: dict[str, Any], key_server: KeyServer) -> None:
    """E18: the attacker signs with the key that he sends along."""
    assert refused(signed(claims(), OTHER_RSA_KEY, **header)) == ("invalid_id_token", "its signature is wrong")
    assert set(key_server.asked) == {f"{ISSUER}/jwks"}


WRONG_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"iss": ...}, "iss is missing"),
    ({"iss": f"{ISSUER}/"}, "iss is not the configured issuer"),
    ({"iss": "https://login.rival.example"}, "iss is not the configured issuer"),
    ({"iss": [ISSUER]}, "iss is not the configured issuer"),
    ({"aud": ...}, "aud is missing"),
    ({"aud": []}, "aud is missing"),
    ({"aud": "rival"}, "aud is not our client_id"),
    ({"aud": ["rival"]}, "aud is not our client_id"),
    ({"aud": [CLIENT_ID, "rival"]}, "azp is not our client_id"),
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
    ({"nonce": ...}, "nonce is not ours"),
    ({"nonce": "of-another-attempt"}, "nonce is not ours"),
    ({"nonce": None}, "nonce is not ours"),
    ({"nonce": [NONCE]}, "nonce is not ours"),
    ({"at_hash": "AAAA"}, "at_hash is of another token"),
    ({"at_hash": None}, "at_hash is of another token"),
    ({"sub": ...}, "sub is missing"),
    ({"sub": 17}, "sub is not a text"),
    ({"sub": ""}, "sub is empty or longer than 255 characters"),
    ({"sub": "a" * 256}, "sub is empty or longer than 255 characters"),
]


@pytest.mark.usefixtures("key_server")
@pytest.mark.parametrize(("changes", "detail"), WRONG_CLAIMS, ids=str)
def test_a_wrong_claim_is_refused_with_its_reason(changes: dict[str, Any], detail: str) -> None:
    """E17."""
    payload = claims(**changes)
    # The library will not write some of these; a hostile server would.
    id_token = jwt.api_jws.encode(json.dumps(payload).encode(), RSA_KEY, algorithm="RS256", headers={"kid": "k1"})

    assert refused(id_token) == ("invalid_id_token", detail)


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
@pytest.mark.parametrize("id_token", ["", "x", "a.b", "a.b.c", "a.b.c.d.e", "e30.e30.", "\u00e4.b.c"])
def test_what_is_no_jwt_is_refused(id_token: str) -> None:
    assert refused(id_token)[0] == "invalid_id_token"


@pytest.mark.usefixtures("key_server")
def test_a_changed_payload_is_refused() -> None:
    header, _, signature = signed(claims()).split(".")
    payload = signed(claims(sub="eve")).split(".")[1]

    assert refused(f"{header}.{payload}.{signature}") == ("invalid_id_token", "its signature is wrong")


def test_an_rsa_key_that_is_too_short_is_refused(key_server: KeyServer) -> None:
    """RFC 7518 section 3.3: 2048 bits."""
    key_server.keys = [jwk(WEAK_RSA_KEY)]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        id_token = signed(claims(), WEAK_RSA_KEY)

    assert refused(id_token) == ("invalid_id_token", "its key is too short or of another kind")


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


def test_keys_are_fetched_once(key_server: KeyServer) -> None:
    """E18."""
    verify(signed(claims()))
    verify(signed(claims()))

    assert key_server.asked == [f"{ISSUER}/jwks"]


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
        assert refused(signed(claims(), kid="invented")) == (
            "invalid_id_token",
            "no keys of the server fit its header; there must be one",
        )
    assert len(key_server.asked) == 1

    clock(61)
    for _ in range(5):
        assert refused(signed(claims(), kid="invented"))[0] == "invalid_id_token"
    assert len(key_server.asked) == 2


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
        (200, json.dumps({"keys": [{}] * 21}).encode(), "the key set has more than 20 keys"),
    ],
)
def test_what_is_no_key_set_is_refused(status: int, body: bytes, detail: str, key_server: KeyServer) -> None:
    """E18: 20 keys at most; the 64 KB are the transport's."""
    key_server.status, key_server.body = status, body

    assert refused(signed(claims())) == ("jwks_unavailable", detail)


def test_twenty_keys_and_some_nonsense_are_a_key_set(key_server: KeyServer) -> None:
    key_server.keys = [*([None, 5, "x", {}] * 4), jwk(RSA_KEY, "k1"), jwk(EC_KEY, "k1"), {}, {}]

    assert verify(signed(claims())).subject == "ada"


def test_without_a_jwks_uri_the_error_says_so(key_server: KeyServer) -> None:
    assert refused(signed(claims()), jwks_uri="") == ("jwks_unavailable", "no jwks_uri is configured")
    assert key_server.asked == []


def test_the_signature_is_verified_before_the_nonce_is_looked_at(key_server: KeyServer) -> None:
    """What is not signed by the server is not compared with anything of ours."""
    asked: list[str] = []

    def nonce_matches(nonce: str) -> bool:
        asked.append(nonce)
        return True

    with pytest.raises(AuthorizationServerError):
        verify_id_token(
            configuration(),
            Secret(signed(claims(), OTHER_RSA_KEY)),
            nonce_matches=nonce_matches,
            access_token=ACCESS_TOKEN,
        )

    assert asked == []
    assert key_server.asked == [f"{ISSUER}/jwks"]
