"""The OpenID Connect part of the fake authorization server: ID tokens and their signing keys."""

import base64
import hashlib
import time
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa


@lru_cache(maxsize=1)
def _private_key() -> rsa.RSAPrivateKey:
    """One key for all servers of the process, because creating one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class FakeOpenIdProvider:
    """What `FakeAuthorizationServer` adds if its `openid` is on."""

    host: str
    subject: str
    client_id: str
    client_secret: str
    signs_with_secret: bool

    @property
    def issuer(self) -> str:
        return f"https://{self.host}"

    def id_token(self, access_token: str, nonce: str | None, **changes: Any) -> str:
        """Sign an ID token with some claims changed. A claim with the value `...` is left out."""
        now = int(time.time())
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        claims = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": self.client_id,
            "exp": now + 300,
            "iat": now,
            "auth_time": now,
            "nonce": nonce,
            "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not ...}
        if self.signs_with_secret:
            return jwt.encode(kept, self.client_secret, algorithm="HS256")
        return jwt.encode(kept, _private_key(), algorithm="RS256", headers={"kid": "fake-1"})

    def jwks(self) -> dict[str, Any]:
        key = jwt.algorithms.RSAAlgorithm.to_jwk(_private_key().public_key(), as_dict=True)
        return {"keys": [{**key, "kid": "fake-1", "use": "sig", "alg": "RS256"}]}
