"""Verify an ID token (OpenID Connect Core section 3.1.3.7)."""

import base64
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import time
from typing import Any, Final

import jwt
from jwt.exceptions import InvalidSubjectError

from infrastructure.crypto import Secret
from oauth_client.configuration import ServerConfiguration
from oauth_client.errors import AuthorizationServerError, ErrorCode, issuer_mismatch
from oauth_client.keys import signing_keys
from oauth_client.step_up import ACR, AuthenticationDemand
from oauth_client.validators import ID_TOKEN_ALGORITHMS

LEEWAY: Final = 60
MAX_SUBJECT_LENGTH: Final = 255
# Of all authentication methods together.
MAX_AMR_LENGTH: Final = 255
# The last second that Python's datetime can represent. A server may send any number.
LAST_MOMENT: Final = 253402300799

# Shown to admins. The messages of PyJWT quote the token, so they are not shown.
_REASONS: Final[dict[type[jwt.PyJWTError], str]] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is from the future",
    jwt.InvalidAudienceError: "aud is not our client_id",
    jwt.InvalidSignatureError: "its signature is wrong",
    InvalidSubjectError: "sub is not a text",
    jwt.InvalidKeyError: "its key is too short or of another kind",
}


@dataclass(frozen=True, slots=True)
class IDTokenClaims:
    """The claims of a verified ID token. `claims` contains all of them, for `subject_claim`.

    `acr`, `amr` and `auth_time` say how the consumer signed in (OpenID Connect Core section 2). They are empty where
    the server does not say, or writes something that bots should not be given.
    """

    issuer: str
    subject: str = field(repr=False)
    auth_time: datetime | None
    claims: dict[str, Any] = field(repr=False)
    acr: str = ""
    amr: tuple[str, ...] = ()

    def meets(self, demand: AuthenticationDemand, began: datetime) -> bool:
        """Whether the sign-in of a request that began at this moment is what an API demands (RFC 9470 section 5).

        `max_age` counts from the authorization request (OpenID Connect Core section 3.1.2.1), and not from now: the
        consumer may need minutes for a second factor or for the consent after it.
        """
        if demand.acr_values and self.acr not in demand.acr_values.split():
            return False
        if demand.max_age is None:
            return True
        return self.auth_time is not None and self.auth_time.timestamp() + demand.max_age + LEEWAY >= began.timestamp()


def verify_id_token(
    configuration: ServerConfiguration,
    id_token: Secret | None,
    *,
    nonce_matches: Callable[[str], bool],
    access_token: Secret,
    client_secret: Secret | None = None,
) -> IDTokenClaims:
    """Verify an ID token, although it came over TLS, and return its claims (E16, E17, A6).

    `nonce_matches` compares a nonce with that of this authorization request. `client_secret` is used only for HS256.
    Raises `AuthorizationServerError` with `invalid_id_token`, also if there is no token, or with `jwks_unavailable` if
    the server's keys cannot be fetched.
    """
    if id_token is None:
        raise _invalid("there is none")
    algorithm, claims = _verified(configuration, id_token, client_secret)
    _check_audiences(configuration, claims)
    _check_nonce(claims.get("nonce"), nonce_matches)
    if "at_hash" in claims:
        _refuse_unless(claims["at_hash"] == _left_half_hash(algorithm, access_token), "at_hash is of another token")
    _refuse_unless(0 < len(claims["sub"]) <= MAX_SUBJECT_LENGTH, "sub is empty or longer than 255 characters")
    return IDTokenClaims(
        issuer=claims["iss"],
        subject=claims["sub"],
        auth_time=_auth_time(configuration, claims),
        claims=claims,
        acr=_acr(claims.get("acr"), access_token),
        amr=_amr(claims.get("amr"), access_token),
    )


def _verified(
    configuration: ServerConfiguration, id_token: Secret, client_secret: Secret | None
) -> tuple[str, dict[str, Any]]:
    """Verify signature, iss, aud, exp, nbf and iat. Return the algorithm and the claims."""
    _refuse_unless(bool(configuration.issuer), "no issuer is configured")
    try:
        header = jwt.get_unverified_header(id_token.reveal())
        algorithm = header.get("alg")
        # Only the configured algorithms count; `none` is never among them. Of the header only alg and kid are read: an
        # attacker could put a key, or the URL of one, into it (jwk, jku, x5u; RFC 8725 section 3.10).
        if algorithm not in configuration.id_token_signing_alg_values or algorithm not in ID_TOKEN_ALGORITHMS:
            raise _invalid(_other_algorithm(algorithm))
        keys = _keys(configuration, algorithm, header.get("kid"), client_secret)
        claims = _decoded(configuration, id_token, algorithm, keys)
        # JSON can escape a lone surrogate, which cannot be hashed or encrypted.
        json.dumps(claims, ensure_ascii=False).encode()
    except jwt.MissingRequiredClaimError as error:
        raise _invalid(f"{error.claim} is missing") from None
    except jwt.InvalidIssuerError:
        # PyJWT's error does not contain the issuer, so decode again. The signature was already verified.
        found = jwt.decode(id_token.reveal(), options={"verify_signature": False}).get("iss")
        raise _invalid(f"iss {issuer_mismatch(configuration.issuer, found)}") from None
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise _invalid(
            next((text for kind, text in _REASONS.items() if isinstance(error, kind)), "unreadable")
        ) from None
    for name in ("exp", "iat"):
        _moment(claims[name], name)
    return algorithm, claims


def _decoded(
    configuration: ServerConfiguration, id_token: Secret, algorithm: str, keys: Sequence[jwt.PyJWK | bytes]
) -> dict[str, Any]:
    """Verify with each key until a signature matches. Return the claims. Raises PyJWT's errors."""
    *others, last = keys
    for key in others:
        with suppress(jwt.InvalidSignatureError, jwt.InvalidKeyError):
            return _decoded(configuration, id_token, algorithm, [key])
    return jwt.decode(
        id_token.reveal(),
        last,
        algorithms=[algorithm],
        audience=configuration.client_id,
        issuer=configuration.issuer,
        leeway=LEEWAY,
        options={"require": ["iss", "sub", "aud", "exp", "iat"], "enforce_minimum_key_length": True},
    )


def _keys(
    configuration: ServerConfiguration, algorithm: str, kid: str | None, client_secret: Secret | None
) -> Sequence[jwt.PyJWK | bytes]:
    """The algorithm decides the kind of key, so that a public key never becomes an HMAC secret."""
    if algorithm != "HS256":
        return signing_keys(configuration.jwks_uri, algorithm, kid)
    if client_secret is None:
        raise _invalid("HS256 needs a client secret")
    return [client_secret.reveal().encode()]


def _check_nonce(nonce: object, nonce_matches: Callable[[str], bool]) -> None:
    """Distinguish a server without nonce support from an ID token of another sign-in, which may be an attack."""
    _refuse_unless(nonce is not None, "nonce is missing: the server did not return the one that we sent")
    is_ours = isinstance(nonce, str) and nonce_matches(nonce)
    _refuse_unless(is_ours, "nonce is not the one that we sent: the ID token is of another sign-in")


def _other_algorithm(algorithm: object) -> str:
    named = algorithm in ID_TOKEN_ALGORITHMS
    return f"it is signed with {algorithm}, which is not configured" if named else "its algorithm is unknown"


def _check_audiences(configuration: ServerConfiguration, claims: dict[str, Any]) -> None:
    """Refuse additional untrusted audiences (OpenID Connect Core with errata set 2, section 3.1.3.7).

    Errata set 2 no longer requires `azp` with several audiences, but step 3 still demands that untrusted audiences are
    refused. We accept them if `azp` is our client_id, or if the configuration names them. An `azp` of another client is
    always refused.
    """
    if "azp" in claims:
        _refuse_unless(claims["azp"] == configuration.client_id, "azp is not our client_id")
        return
    audiences = claims["aud"] if isinstance(claims["aud"], list) else []
    others = set(audiences) - {configuration.client_id, *configuration.trusted_audiences}
    _refuse_unless(not others, "aud has untrusted audiences beside our client_id, and there is no azp")


def _left_half_hash(algorithm: str, access_token: Secret) -> str:
    """Compute at_hash (section 3.1.3.6), which binds the ID token to the access token."""
    # Ed25519 uses SHA-512. PyJWT defines no hash for EdDSA.
    hashing = jwt.get_algorithm_by_name("RS512" if algorithm == "EdDSA" else algorithm)
    digest = hashing.compute_hash_digest(access_token.reveal().encode())
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def _auth_time(configuration: ServerConfiguration, claims: dict[str, Any]) -> datetime | None:
    """If we sent max_age, require auth_time, so that a server that ignored max_age is noticed (A6)."""
    if claims.get("auth_time") is None:
        _refuse_unless(configuration.max_age is None, "auth_time is missing, although max_age was sent")
        return None
    auth_time = _moment(claims["auth_time"], "auth_time")
    _refuse_unless(auth_time <= time() + LEEWAY, "auth_time is in the future")
    if configuration.max_age is not None:
        _refuse_unless(
            auth_time + configuration.max_age + LEEWAY >= time(), "auth_time is longer ago than max_age allows"
        )
    return datetime.fromtimestamp(auth_time, UTC)


def _acr(value: object, access_token: Secret) -> str:
    """Return an authentication class as text; empty for what is none, and for one that repeats the token (P5).

    Some servers number their classes, so a whole number counts as its decimal digits.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    is_class = isinstance(text, str) and ACR.fullmatch(text) and access_token.reveal() not in text
    return str(text) if is_class else ""


def _amr(values: object, access_token: Secret) -> tuple[str, ...]:
    """Return the authentication methods (RFC 8176), as many as fit, without those that are no texts of that form."""
    methods = (
        [_acr(value, access_token) for value in values if isinstance(value, str)] if isinstance(values, list) else []
    )
    kept: list[str] = []
    for method in filter(None, dict.fromkeys(methods)):
        if len(" ".join([*kept, method])) <= MAX_AMR_LENGTH:
            kept.append(method)
    return tuple(kept)


def _moment(value: object, name: str) -> float:
    """Parse a NumericDate (RFC 7519 section 2). PyJWT would also accept strings and booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_MOMENT:
        raise _invalid(f"{name} is not a number of seconds")
    return float(value)


def _refuse_unless(condition: bool, detail: str) -> None:
    if not condition:
        raise _invalid(detail)


def _invalid(detail: str) -> AuthorizationServerError:
    return AuthorizationServerError(ErrorCode.INVALID_ID_TOKEN, detail)
