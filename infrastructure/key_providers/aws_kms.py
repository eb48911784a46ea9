"""Keys wrapped by a key of AWS KMS, which never leaves it (K8).

boto3 finds credentials, region and endpoint as AWS's own tools do. The encryption context names the key's id, and KMS
authenticates it: a wrapped key that is given another id is refused.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)

from infrastructure.key_providers.failures import NOT_PERMITTED, NOT_REACHED, NOT_THIS_KEY, ProviderFailed

# A process that starts may wait half a minute, as its service manager starts it again.
_CONFIG: Final = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"})
_PARTS_OF_AN_ARN: Final = 6
_REFUSALS: Final = frozenset({
    "AccessDeniedException", "ExpiredTokenException", "IncompleteSignature", "InvalidClientTokenId",
    "InvalidSignatureException", "MissingAuthenticationTokenException", "UnrecognizedClientException",
})  # fmt: skip
_OF_THE_KEY: Final = frozenset({
    "DisabledException", "IncorrectKeyException", "InvalidArnException", "InvalidCiphertextException",
    "InvalidKeyUsageException", "KMSInvalidStateException", "NotFoundException",
})  # fmt: skip


def unwrap(place: str, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
    """Decrypt each key, one call for each. Raises `ProviderFailed`."""
    with _in_words():
        client = _client(place)
        return {key_id: _decrypted(client, place, key_id, blob) for key_id, blob in wrapped.items()}


def wrap(place: str, key_id: str, key: bytes) -> bytes:
    """Encrypt a key with the key of KMS that `place` names. Raises `ProviderFailed`."""
    with _in_words(key_id):
        answer = _client(place).encrypt(KeyId=place, Plaintext=key, EncryptionContext=_context(key_id))
    return bytes(answer["CiphertextBlob"])


def _decrypted(client: Any, place: str, key_id: str, blob: bytes) -> bytes:
    with _in_words(key_id):
        # KMS refuses what another key than this one has encrypted.
        answer = client.decrypt(KeyId=place, CiphertextBlob=blob, EncryptionContext=_context(key_id))
    return bytes(answer["Plaintext"])


def _client(place: str) -> Any:
    parts = place.split(":")
    region = parts[3] if place.startswith("arn:") and len(parts) >= _PARTS_OF_AN_ARN else None
    return boto3.client("kms", region_name=region, config=_CONFIG)


def _context(key_id: str) -> dict[str, str]:
    return {"application": "consumer-delegation", "encryption-key": key_id}


@contextmanager
def _in_words(key_id: str = "") -> Iterator[None]:
    """Turn what boto3 raises into `ProviderFailed`. Its messages are left out: they name accounts and roles."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        hint = "Give the service a role of its machine, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        raise ProviderFailed(NOT_PERMITTED, f"AWS KMS: no credentials ({type(error).__name__}).", hint) from None
    except NoRegionError:
        hint = "Set AWS_REGION, or name the key by its ARN in ENCRYPTION_KEYS_FROM."
        raise ProviderFailed(NOT_REACHED, "AWS KMS: no region is set.", hint) from None
    except ClientError as error:
        raise _refused(error.response["Error"]["Code"], key_id) from None
    except (BotoCoreError, ValueError) as error:  # botocore raises ValueError for an endpoint that is no address
        hint = "Check the network, AWS_REGION and AWS_ENDPOINT_URL_KMS; then start the service again."
        raise ProviderFailed(NOT_REACHED, f"AWS KMS gave no answer ({type(error).__name__}).", hint) from None


def _refused(code: str, key_id: str) -> ProviderFailed:
    said = f"AWS KMS answered {code} for the key {key_id}."
    if code in _REFUSALS:
        hint = (
            "Allow kms:Decrypt (for wrap_key kms:Encrypt) on the KMS key of ENCRYPTION_KEYS_FROM to the service's role."
        )
        return ProviderFailed(NOT_PERMITTED, said, hint)
    if code in _OF_THE_KEY:
        hint = (
            "ENCRYPTION_KEYS_FROM must name the KMS key that wrapped it, enabled, and ENCRYPTION_KEYS "
            "its entry as wrap_key printed it, with its id."
        )
        return ProviderFailed(NOT_THIS_KEY, said, hint)
    return ProviderFailed(NOT_REACHED, said, "Start the service again; if it stays, see the status of AWS KMS.")
