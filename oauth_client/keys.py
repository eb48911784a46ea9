"""Fetch and cache the keys with which a server signs its ID tokens (RFC 7517), through the guarded transport (E18)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import Lock
from time import monotonic
from typing import Any, Final

import jwt

from oauth_client import transport
from oauth_client.addresses import PrivateNetwork, allowed_networks
from oauth_client.answers import NotStrictJSON, read_json_object
from oauth_client.errors import AuthorizationServerError, ErrorCode, unanswered

# Brokers publish the keys of all their tenants; 26 were seen. The transport's 64 KB also limits the work.
MAX_KEYS: Final = 100
# With the same `kid`. Each is tried, so this limits the verifications that a forged token costs.
MAX_TRIED_KEYS: Final = 4
# A key that the brand withdrew is accepted no longer than this.
KEPT_SECONDS: Final = 300
# Limits fetches for unknown `kid`s: forged tokens must not cause one request each.
ASK_AGAIN_SECONDS: Final = 60
# After a failure the server is not asked again at once: waiting threads must not each hang in turn.
FAILURE_KEPT_SECONDS: Final = 10
# A little longer than one call may take. Waiting longer would not help.
_PATIENCE_SECONDS: Final = transport.TOTAL_TIMEOUT + 1

_ASKED_A_MOMENT_AGO: Final = (
    "no key of the server matches the ID token's header; we fetched the keys less than a minute ago and ask at most "
    "once a minute: a new key is seen after that"
)

_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
# Without the private members: from some of them the library would factor a number that the server chose.
_PUBLIC_MEMBERS: Final = ("kty", "n", "e", "crv", "x", "y")


def signing_keys(jwks_uri: str, algorithm: str, kid: str | None) -> list[jwt.PyJWK]:
    """Return the keys that may have signed a token with this header, usually one, each bound to the algorithm.

    Identical keys count once. Different keys with the same `kid` are all returned, up to `MAX_TRIED_KEYS`, and the
    signature decides. Without `kid` there must be exactly one key for the algorithm. Raises `AuthorizationServerError`:
    `invalid_id_token` if no key or too many match; `jwks_unavailable` if the keys cannot be fetched, or if none matches
    and the last fetch was less than a minute ago, because the key may be newer (E18).
    """
    if not jwks_uri:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, "no jwks_uri is configured")
    found, is_new = _key_sets[jwks_uri, allowed_networks()].matching(jwks_uri, algorithm, kid)
    matching = _different(found)
    if not matching and not is_new:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, _ASKED_A_MOMENT_AGO)
    if not matching or (kid is None and len(matching) > 1):
        raise AuthorizationServerError(
            ErrorCode.INVALID_ID_TOKEN,
            f"{len(matching) or 'no'} keys of the server fit its header; there must be one",
        )
    if len(matching) > MAX_TRIED_KEYS:
        detail = f"{len(matching)} different keys of the server have its kid; {MAX_TRIED_KEYS} are tried at most"
        raise AuthorizationServerError(ErrorCode.INVALID_ID_TOKEN, detail)
    usable = [key for members in matching if (key := _read(members, algorithm))]
    if not usable:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, "the key cannot be used")
    return usable


def signing_key_counts(jwks_uri: str, algorithms: Iterable[str]) -> dict[str, int]:
    """Fetch the keys now, whatever copy there is, and count those for each algorithm.

    Raises `AuthorizationServerError` with `jwks_unavailable`.
    """
    keys = _fetch_keys(jwks_uri)
    return {name: sum(_fits(key, name, None) for key in keys) for name in algorithms}


def forget_all() -> None:
    _key_sets.clear()


class _KeySet:
    """The cached key set of one URL. The lock lets threads that wait for the same keys share one fetch."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: list[dict[str, Any]] = []
        self._fetched_at = -float("inf")
        self._asked_at = -float("inf")
        self._failure: AuthorizationServerError | None = None

    def matching(self, jwks_uri: str, algorithm: str, kid: str | None) -> tuple[list[dict[str, Any]], bool]:
        """Return the matching keys, and whether they were fetched just now.

        Keys are fetched if the copy is old, or if none matches and a minute has passed.
        """
        with self._held():
            is_new = monotonic() - self._fetched_at > KEPT_SECONDS
            if is_new:
                self._fetch(jwks_uri)
            matching = [key for key in self._keys if _fits(key, algorithm, kid)]
            if matching or is_new or monotonic() - self._asked_at < ASK_AGAIN_SECONDS:
                return matching, is_new
            self._fetch(jwks_uri)
            return [key for key in self._keys if _fits(key, algorithm, kid)], True

    @contextmanager
    def _held(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, "another request is still fetching the key set")
        try:
            yield
        finally:
            self._lock.release()

    def _fetch(self, jwks_uri: str) -> None:
        if self._failure and monotonic() - self._asked_at < FAILURE_KEPT_SECONDS:
            raise AuthorizationServerError(self._failure.error, self._failure.detail)
        # Timestamps are taken after the response: the server may have used the whole timeout.
        try:
            self._keys, self._failure = _fetch_keys(jwks_uri), None
        except AuthorizationServerError as error:
            self._failure = error
            raise
        finally:
            self._asked_at = monotonic()
        self._fetched_at = self._asked_at


# With the private networks of the call: a brand gets no copy of keys that it could not have fetched itself (N14).
_key_sets: Final[defaultdict[tuple[str, tuple[PrivateNetwork, ...]], _KeySet]] = defaultdict(_KeySet)


def _fits(key: dict[str, Any], algorithm: str, kid: str | None) -> bool:
    # Some servers write null for an absent member.
    return (
        key.get("kty") == _KEY_TYPES[algorithm[:2]]
        and key.get("use") in (None, "sig")
        and key.get("alg") in (None, algorithm)
        and (kid is None or key.get("kid") == kid)
    )


def _different(keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove duplicates by public members: other members (x5c, key_ops) do not make a different key."""
    public: list[dict[str, Any]] = [{name: key[name] for name in _PUBLIC_MEMBERS if name in key} for key in keys]
    return [key for number, key in enumerate(public) if key not in public[:number]]


def _read(members: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        return jwt.PyJWK(members, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None


def _fetch_keys(jwks_uri: str) -> list[dict[str, Any]]:
    try:
        response = transport.get(jwks_uri, accept="application/jwk-set+json, application/json")
    except transport.OutboundError as error:
        raise unanswered(ErrorCode.JWKS_UNAVAILABLE, error, "jwks_uri") from None
    if response.status_code != HTTPStatus.OK:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, f"no key set; HTTP status {response.status_code}")
    try:
        keys = read_json_object(response.content).get("keys")
    except NotStrictJSON as error:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, f"the key set cannot be read: {error}") from None
    if not isinstance(keys, list):
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, f"no key set; HTTP status {response.status_code}")
    if len(keys) > MAX_KEYS:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, f"the key set has more than {MAX_KEYS} keys")
    return [key for key in keys if isinstance(key, dict)]
