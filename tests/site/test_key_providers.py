"""A key ring in files, wrapped by AWS KMS or by a PKCS#11 token: what is read, what is refused, and in which words.

Real servers and tokens unwrap keys in `tests/key_providers`.
"""

import base64
import errno
import io
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from django.core.management import CommandError, call_command

from delegation_site.environment import Environment
from infrastructure.crypto import InvalidKeyRing, KeyRing, keys_of_setting
from infrastructure.key_providers import aws_kms, unwrapped_ring, wrapped_entry
from infrastructure.key_providers.failures import ProviderFailed

KEYS: Final = {
    "k1": base64.b64decode("9l8GIbXrL3uWnxkKcEgT1nKk1jC1s0pNqQv3y0m0c5A="),
    "k2": base64.b64decode("Zr0C2f0XQmYb7tq1sJ6uPpVdKxw4hN8aLo5iE3gTzUk="),
}
RING: Final = [("k2", KEYS["k2"]), ("k1", KEYS["k1"])]
KMS_KEY: Final = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
WRAPPED: Final = base64.b64encode(b"wrapped by KMS").decode()
PLANTED: Final = "PLANTED-role"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of two keys."""
    tmp_path.chmod(0o700)
    for key_id, key in KEYS.items():
        (tmp_path / key_id).write_bytes(base64.b64encode(key) + b"\n")
        (tmp_path / key_id).chmod(0o400)
    return tmp_path


def failure(setting: str, source: str) -> str:
    """Return the id of the check that says why the ring cannot be unwrapped. What it says holds no key."""
    with pytest.raises(ProviderFailed) as raised:
        unwrapped_ring(setting, source)
    said = f"{raised.value} {raised.value.message} {raised.value.hint}"
    secrets = [*(base64.b64encode(key).decode() for key in KEYS.values()), PLANTED]
    assert [value for value in secrets if value in said] == []
    assert "\n" not in said
    return raised.value.number


def test_the_ring_is_read_from_a_file_for_each_key_newest_first(folder: Path) -> None:
    """K8."""
    assert keys_of_setting(unwrapped_ring("k2, k1", f"file:{folder}")) == RING
    assert KeyRing.from_setting(unwrapped_ring("k2,k1", f"file:{folder}")).newest_id == "k2"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_a_file_that_the_service_alone_can_read_is_accepted(folder: Path, mode: int) -> None:
    """Systemd shows the access list of a credential as a mode that lets the group read."""
    (folder / "k1").chmod(mode)
    assert keys_of_setting(unwrapped_ring("k1", f"file:{folder}")) == [("k1", KEYS["k1"])]


@pytest.mark.parametrize("mode", [0o444, 0o404, 0o420, 0o402, 0o777])
def test_a_file_that_others_can_read_or_change_is_e045(folder: Path, mode: int) -> None:
    """K8: another account of the machine reads the keys, or puts a key there that it knows."""
    (folder / "k1").chmod(mode)
    assert failure("k2,k1", f"file:{folder}") == "E045"


@pytest.mark.parametrize(("mode", "found"), [(0o777, "E045"), (0o770, "E045"), (0o1777, "")])
def test_a_folder_in_which_others_can_replace_a_file_is_e045(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int, found: str
) -> None:
    """K8. In one with the sticky bit, as containers mount it, nobody can."""
    folder.chmod(mode)
    environment = Environment()
    monkeypatch.setenv("ENCRYPTION_KEYS", "k1")
    environment.key_ring("ENCRYPTION_KEYS", f"file:{folder}")
    assert [mistake[1:16] for mistake in environment.mistakes] == ([f"delegation.{found}"] if found else [])


def test_a_file_of_another_user_is_e045(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K8: its owner can change it whatever its mode says."""
    status = list((folder / "k1").stat())
    status[stat.ST_UID] = 12_345
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result(status))
    assert failure("k1", f"file:{folder}") == "E045"


@pytest.mark.parametrize(
    ("setting", "place", "found"),
    [("k3", "", "E042"), ("k1", "/nowhere", "E042"), ("bad", "", "E044"), (f"k1:{WRAPPED}", "", "E040")],
)
def test_a_file_that_holds_no_key_is_named(folder: Path, setting: str, place: str, found: str) -> None:
    """K8."""
    (folder / "bad").write_text("no base64")
    (folder / "bad").chmod(0o400)
    assert failure(setting, f"file:{folder}{place}") == found


def test_a_file_that_this_user_may_not_read_is_e043(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K8. The superuser, who may run these tests, reads everything."""

    def refused(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    assert failure("k1", f"file:{folder}") == "E043"


@pytest.mark.parametrize(
    "source",
    ["vault:secret/keys", "file:", "file:relative", "file", "aws-kms:", "aws-kms:an alias", "pkcs11:", "FILE:/run",
     "pkcs11:token=a;object=b", "pkcs11:token=a;object=b?module-path=/x.so",
     "pkcs11:token=a;object=b?module-path=/x.so&pin-value=1", "pkcs11:token=a;token=b?module-path=/x.so&pin-source=/p"],
)  # fmt: skip
def test_a_source_that_is_not_known_is_e040(source: str) -> None:
    """K8, N10."""
    assert failure("k1:AAAA", source) == "E040"


@pytest.mark.parametrize("setting", ["K1:AAAA", "../k1", "k1:***", "k1:AAAA,k1:AAAB", ":AAAA"])
def test_entries_of_another_form_are_refused_before_a_provider_is_asked(setting: str) -> None:
    """K8: an id is part of a file's path."""
    with pytest.raises(InvalidKeyRing):
        unwrapped_ring(setting, "aws-kms:alias/never-asked")


@pytest.mark.parametrize(
    ("package", "source"), [("boto3", "aws-kms:alias/x"), ("pkcs11", "pkcs11:token=a;object=b?module-path=c")]
)
def test_a_package_that_is_not_installed_is_e041(monkeypatch: pytest.MonkeyPatch, package: str, source: str) -> None:
    """K8: both are extras."""
    for name in ("aws_kms", "hsm"):
        monkeypatch.delitem(sys.modules, f"infrastructure.key_providers.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    assert failure("k1:AAAA", source) == "E041"


def test_a_pkcs11_module_that_is_not_there_is_e042(folder: Path) -> None:
    """K8. The PIN is read first, and its file is as private as a key's."""
    place = f"pkcs11:token=a;object=b?module-path=/nowhere.so&pin-source={folder}/k1"
    assert failure("k1:AAAA", place) == "E042"
    (folder / "k1").chmod(0o444)
    assert failure("k1:AAAA", place) == "E045"


class Wire:
    """What was sent to AWS KMS, and what it answers."""

    def __init__(self, status: int, answer: dict[str, str]) -> None:
        self.sent: list[dict[str, Any]] = []
        self._answer = SimpleNamespace(status_code=status, headers={}, content=msgspec.json.encode(answer), raw=None)

    def send(self, request: Any) -> Any:
        self.sent.append(msgspec.json.decode(request.body) | {"to": request.headers["X-Amz-Target"].decode()})
        return self._answer


@pytest.fixture
def in_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment, no other source of them, and no second try."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ada")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
    monkeypatch.setattr(aws_kms, "_CONFIG", Config(retries={"total_max_attempts": 1}))


def answering(monkeypatch: pytest.MonkeyPatch, status: int, answer: dict[str, str]) -> Wire:
    wire = Wire(status, answer)
    monkeypatch.setattr(URLLib3Session, "send", wire.send)
    return wire


def test_kms_is_told_which_key_it_unwraps(in_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """K8: the encryption context binds a wrapped key to its id, and the KMS key is named, not taken from the blob."""
    wire = answering(monkeypatch, 200, {"Plaintext": base64.b64encode(KEYS["k1"]).decode()})
    assert keys_of_setting(unwrapped_ring(f"k1:{WRAPPED}", f"aws-kms:{KMS_KEY}")) == [("k1", KEYS["k1"])]
    assert wire.sent == [
        {
            "to": "TrentService.Decrypt",
            "KeyId": KMS_KEY,
            "CiphertextBlob": WRAPPED,
            "EncryptionContext": {"application": "consumer-delegation", "encryption-key": "k1"},
        }
    ]


@pytest.mark.parametrize(
    ("code", "found"),
    [("AccessDeniedException", "E043"), ("UnrecognizedClientException", "E043"), ("ExpiredTokenException", "E043"),
     ("InvalidCiphertextException", "E044"), ("IncorrectKeyException", "E044"), ("NotFoundException", "E044"),
     ("DisabledException", "E044"), ("LimitExceededException", "E042")],
)  # fmt: skip
def test_what_kms_refuses_is_named(in_aws: None, monkeypatch: pytest.MonkeyPatch, code: str, found: str) -> None:
    """K8: without its message, which names accounts and roles."""
    answering(monkeypatch, 400, {"__type": code, "message": f"User {PLANTED} is not authorized"})
    assert failure(f"k1:{WRAPPED}", f"aws-kms:{KMS_KEY}") == found


@pytest.mark.parametrize(
    ("error", "found"),
    [(EndpointConnectionError(endpoint_url="https://kms.example"), "E042"), (NoCredentialsError(), "E043")],
)
def test_a_network_that_leads_nowhere_and_missing_credentials_are_named(
    in_aws: None, monkeypatch: pytest.MonkeyPatch, error: Exception, found: str
) -> None:
    """K8."""

    def send(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(URLLib3Session, "send", send)
    assert failure(f"k1:{WRAPPED}", f"aws-kms:{KMS_KEY}") == found
    assert failure(f"k1:{WRAPPED}", "aws-kms:alias/no-region") == "E042"


def wrap_key(*arguments: str) -> str:
    printed = io.StringIO()
    call_command("wrap_key", *arguments, stdout=printed)
    return printed.getvalue().strip()


def test_a_new_key_is_written_to_a_file_and_not_shown(folder: Path, settings: Any) -> None:
    """K8: the command prints what goes into the setting, which for a file is the id alone."""
    settings.ENCRYPTION_KEYS_FROM = f"file:{folder}"
    assert wrap_key("k3") == "k3"
    status = (folder / "k3").stat()
    assert (stat.S_IMODE(status.st_mode), len(base64.b64decode((folder / "k3").read_bytes()))) == (0o400, 32)
    assert KeyRing.from_setting(unwrapped_ring("k3,k2,k1", f"file:{folder}")).newest_id == "k3"


def test_the_first_key_is_wrapped_while_there_is_none(folder: Path, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ""
    assert wrap_key("k3", "--by", f"file:{folder}") == "k3"


def test_a_key_in_use_can_be_wrapped_and_is_never_replaced(folder: Path, settings: Any) -> None:
    """K4, K8: an installation moves to a provider without a rotation; a lost key would be lost data."""
    ring = settings.ENCRYPTION_KEYS
    assert wrap_key("test-old", "--existing", "--by", f"file:{folder}") == "test-old"
    assert unwrapped_ring("test-old", f"file:{folder}") == ring.split(",")[1]
    for wanted, said in [
        (["test-new"], "has a key test-new already"),
        (["k1"], "There is a file"),
        (["k9", "--existing"], "has no key k9"),
        (["../k9"], "An id is"),
    ]:
        with pytest.raises(CommandError, match=said):
            wrap_key(*wanted, "--by", f"file:{folder}")
    assert keys_of_setting(unwrapped_ring("k1", f"file:{folder}")) == [("k1", KEYS["k1"])]


def test_kms_wraps_a_key_for_its_id(in_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """K8."""
    wire = answering(monkeypatch, 200, {"CiphertextBlob": WRAPPED})
    assert wrapped_entry(f"aws-kms:{KMS_KEY}", "k1", KEYS["k1"]) == f"k1:{WRAPPED}"
    assert wire.sent[0]["EncryptionContext"] == {"application": "consumer-delegation", "encryption-key": "k1"}


def test_a_key_that_could_not_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K8. The bug: on a full disk an empty file stayed, and its id could not be used again."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProviderFailed, match="No space left on device"):
        wrapped_entry(f"file:{tmp_path}", "k1", KEYS["k1"])
    assert list(tmp_path.iterdir()) == []
