"""The ID token: who signed in, said by the server and verified with its keys (OpenID Connect Core section 3.1.3.7)."""

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
from oauth_client.errors import AuthorizationServerError, ErrorCode, other_issuer
from oauth_client.keys import signing_keys
from oauth_client.validators import ID_TOKEN_ALGORITHMS

LEEWAY: Final = 60
MAX_SUBJECT_LENGTH: Final = 255
# The last second that Python's datetime knows; a server may send any number.
LAST_MOMENT: Final = 253402300799

# What an admin reads; the library's own messages quote the token.
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
    """What a verified ID token says. `claims` holds all of it, for `subject_claim`."""

    issuer: str
    subject: str = field(repr=False)
    auth_time: datetime | None
    claims: dict[str, Any] = field(repr=False)


def verify_id_token(
    configuration: ServerConfiguration,
    id_token: Secret | None,
    *,
    nonce_matches: Callable[[str], bool],
    access_token: Secret,
    client_secret: Secret | None = None,
) -> IDTokenClaims:
    """Verify an ID token although it came over TLS, and return its claims (E16, E17, A6).

    `nonce_matches` tells whether a nonce is the one of this attempt; `client_secret` is the key for HS256 only. Raises
    `AuthorizationServerError` with `invalid_id_token`, where there is none as well, or `jwks_unavailable` where the
    server's keys cannot be had.
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
        issuer=claims["iss"], subject=claims["sub"], auth_time=_auth_time(configuration, claims), claims=claims
    )


def _verified(
    configuration: ServerConfiguration, id_token: Secret, client_secret: Secret | None
) -> tuple[str, dict[str, Any]]:
    """Return algorithm and claims once signature, iss, aud, exp, nbf and iat hold."""
    _refuse_unless(bool(configuration.issuer), "no issuer is configured")
    try:
        header = jwt.get_unverified_header(id_token.reveal())
        algorithm = header.get("alg")
        # The configured list decides, and `none` is in no list. Of the header, only alg and kid are looked at: a key in
        # it, or the address of one (jwk, jku, x5u), would be the attacker's (RFC 8725 section 3.10).
        if algorithm not in configuration.id_token_signing_alg_values or algorithm not in ID_TOKEN_ALGORITHMS:
            raise _invalid(_other_algorithm(algorithm))
        keys = _keys(configuration, algorithm, header.get("kid"), client_secret)
        claims = _decoded(configuration, id_token, algorithm, keys)
        # JSON can escape half a character (a lone surrogate); no digest and no ciphertext could be made of it.
        json.dumps(claims, ensure_ascii=False).encode()
    except jwt.MissingRequiredClaimError as error:
        raise _invalid(f"{error.claim} is missing") from None
    except jwt.InvalidIssuerError:
        # Read once more, since the library names neither; the signature was right, or this error had not come.
        found = jwt.decode(id_token.reveal(), options={"verify_signature": False}).get("iss")
        raise _invalid(f"iss {other_issuer(configuration.issuer, found)}") from None
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
    """Return the claims, verified with the first key whose signature it is. Raises what the library does."""
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
    """Return the keys; which kind is decided by the algorithm, so that a public key never becomes an HMAC secret."""
    if algorithm != "HS256":
        return signing_keys(configuration.jwks_uri, algorithm, kid)
    if client_secret is None:
        raise _invalid("HS256 needs a client secret")
    return [client_secret.reveal().encode()]


def _check_nonce(nonce: object, nonce_matches: Callable[[str], bool]) -> None:
    """Tell a server that does not know nonces from an ID token of another sign-in, which may be an attack."""
    _refuse_unless(nonce is not None, "nonce is missing: the server did not return the one that we sent")
    is_ours = isinstance(nonce, str) and nonce_matches(nonce)
    _refuse_unless(is_ours, "nonce is not the one that we sent: the ID token is of another sign-in")


def _other_algorithm(algorithm: object) -> str:
    named = algorithm in ID_TOKEN_ALGORITHMS
    return f"it is signed with {algorithm}, which is not configured" if named else "its algorithm is none that we know"


def _check_audiences(configuration: ServerConfiguration, claims: dict[str, Any]) -> None:
    """Refuse audiences beside us that nobody vouches for (OpenID Connect Core with errata set 2, section 3.1.3.7).

    Errata set 2 takes back that `azp` has to be there with several audiences, and keeps step 3: additional audiences
    that we do not trust are a reason to refuse. So we trust them where `azp` says that the token was issued to us, or
    where the configuration names them. An `azp` that is there and is not us is refused in any case.
    """
    if "azp" in claims:
        _refuse_unless(claims["azp"] == configuration.client_id, "azp is not our client_id")
        return
    audiences = claims["aud"] if isinstance(claims["aud"], list) else []
    others = set(audiences) - {configuration.client_id, *configuration.trusted_audiences}
    _refuse_unless(not others, "aud names others beside our client_id, no azp says that it is ours, none is trusted")


def _left_half_hash(algorithm: str, access_token: Secret) -> str:
    """Return what at_hash has to be (section 3.1.3.6): it ties the ID token to the access token."""
    # Ed25519 signs with SHA-512 inside; the library knows no hash for EdDSA.
    hashing = jwt.get_algorithm_by_name("RS512" if algorithm == "EdDSA" else algorithm)
    digest = hashing.compute_hash_digest(access_token.reveal().encode())
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def _auth_time(configuration: ServerConfiguration, claims: dict[str, Any]) -> datetime | None:
    """A6: where we asked for a fresh sign-in, a server that ignored it must not go unnoticed."""
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


def _moment(value: object, name: str) -> float:
    """Return a NumericDate (RFC 7519 section 2): the library also takes texts and booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_MOMENT:
        raise _invalid(f"{name} is not a number of seconds")
    return float(value)


def _refuse_unless(condition: bool, detail: str) -> None:
    if not condition:
        raise _invalid(detail)


def _invalid(detail: str) -> AuthorizationServerError:
    return AuthorizationServerError(ErrorCode.INVALID_ID_TOKEN, detail)
