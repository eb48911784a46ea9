"""The public keys that a server signs its ID tokens with (RFC 7517), fetched through the guarded transport (E18)."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import Lock
from time import monotonic
from typing import Any, Final

import jwt

from oauth_client import transport
from oauth_client.answers import NotStrictJSON, read_json_object
from oauth_client.errors import AuthorizationServerError, ErrorCode

# Brokers publish the keys of all their tenants: 26 were seen. The transport's 64 KB bound the work, too.
MAX_KEYS: Final = 100
# Of one `kid`: each is tried, so a token that nobody signed costs so many verifications.
MAX_TRIED_KEYS: Final = 4
# A key that the brand withdrew is believed for this long at most.
KEPT_SECONDS: Final = 300
# A token with an invented `kid` makes us ask once a minute, not once a token.
ASK_AGAIN_SECONDS: Final = 60
# After a failure nobody asks for a moment: threads that waited for a hanging server must not each hang in turn.
FAILURE_KEPT_SECONDS: Final = 10
# A little longer than one call may take; whoever waits longer is not served by waiting.
_PATIENCE_SECONDS: Final = transport.TOTAL_TIMEOUT + 1

_ASKED_A_MOMENT_AGO: Final = (
    "no key of the server's fits the ID token's header; we fetched the keys less than a minute ago and ask at most "
    "once a minute: a new key is seen after that"
)

_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
# Without the private members: from some of those the library would factor a number of the server's choice.
_PUBLIC_MEMBERS: Final = ("kty", "n", "e", "crv", "x", "y")


def signing_keys(jwks_uri: str, algorithm: str, kid: str | None) -> list[jwt.PyJWK]:
    """Return the keys that may have signed a token with this header, each bound to the algorithm; mostly one.

    A key that stands twice in the set is one. Different keys of one `kid` are all returned, up to `MAX_TRIED_KEYS`: it
    is for their signatures to tell. Without `kid` there must be a single key for the algorithm. Raises
    `AuthorizationServerError`: `jwks_unavailable`, also while a key that we have not got may be newer than our last
    look, less than a minute ago (E18); or, where no key or too many fit, `invalid_id_token`.
    """
    if not jwks_uri:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, "no jwks_uri is configured")
    found, is_new = _key_sets[jwks_uri].matching(jwks_uri, algorithm, kid)
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


def signing_key_count(jwks_uri: str, algorithm: str) -> int:
    """Return how many keys may sign with this algorithm. Raises `AuthorizationServerError`: `jwks_unavailable`."""
    return len(_key_sets[jwks_uri].matching(jwks_uri, algorithm, None)[0])


def forget_all() -> None:
    """Drop every key set. For tests: a process that serves never has to."""
    _key_sets.clear()


class _KeySet:
    """What one address last answered. The lock makes threads that wait for the same answer ask once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: list[dict[str, Any]] = []
        self._fetched_at = -float("inf")
        self._asked_at = -float("inf")
        self._failure: AuthorizationServerError | None = None

    def matching(self, jwks_uri: str, algorithm: str, kid: str | None) -> tuple[list[dict[str, Any]], bool]:
        """Return the keys that fit, and whether the server was asked for them just now.

        It is asked where our copy is old, or where none fits and a minute has passed.
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
            raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, "the key set is being waited for")
        try:
            yield
        finally:
            self._lock.release()

    def _fetch(self, jwks_uri: str) -> None:
        if self._failure and monotonic() - self._asked_at < FAILURE_KEPT_SECONDS:
            raise AuthorizationServerError(self._failure.error, self._failure.detail)
        # When the answer came, not when it was asked for: the server may have hung for all of that time.
        try:
            self._keys, self._failure = _fetch_keys(jwks_uri), None
        except AuthorizationServerError as error:
            self._failure = error
            raise
        finally:
            self._asked_at = monotonic()
        self._fetched_at = self._asked_at


_key_sets: Final[defaultdict[str, _KeySet]] = defaultdict(_KeySet)


def _fits(key: dict[str, Any], algorithm: str, kid: str | None) -> bool:
    # Some servers write null for what they leave open.
    return (
        key.get("kty") == _KEY_TYPES[algorithm[:2]]
        and key.get("use") in (None, "sig")
        and key.get("alg") in (None, algorithm)
        and (kid is None or key.get("kid") == kid)
    )


def _different(keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the public members of each key once: what else is said of it (x5c, key_ops) makes it no other key."""
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
        keys = read_json_object(response.content).get("keys")
    except transport.OutboundError as error:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, str(error)) from None
    except NotStrictJSON as error:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, f"the key set cannot be read: {error}") from None
    if response.status_code != HTTPStatus.OK or not isinstance(keys, list):
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, f"no key set; HTTP status {response.status_code}")
    if len(keys) > MAX_KEYS:
        raise AuthorizationServerError(ErrorCode.JWKS_UNAVAILABLE, f"the key set has more than {MAX_KEYS} keys")
    return [key for key in keys if isinstance(key, dict)]
