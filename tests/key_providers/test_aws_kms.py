"""A ring that AWS KMS unwraps: moto's server answers as KMS does, over real HTTP."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import requests

from tests.installation import Installation
from tests.key_providers.rotation import refusal, refused, rotate, swapped
from tests.long_poll import until
from tests.served import COMMAND, KEY, installation_at_a_free_port, prepared, serving, wait_for


@dataclass
class Kms:
    """A server that answers as AWS KMS does, and two keys in it."""

    address: str
    process: "subprocess.Popen[bytes]"
    key: str = ""
    other_key: str = ""

    @property
    def settings(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "acme", "AWS_SECRET_ACCESS_KEY": "acme", "AWS_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL_KMS": self.address, "ENCRYPTION_KEYS_FROM": f"aws-kms:{self.key}",
        }  # fmt: skip

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kms]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kms = Kms(f"http://127.0.0.1:{port}", process)
    try:
        wait_for(f"127.0.0.1:{port}", process)
        client = boto3.client(
            "kms", endpoint_url=kms.address, region_name="eu-central-1",
            aws_access_key_id="acme", aws_secret_access_key="acme",
        )  # fmt: skip
        kms.key, kms.other_key = (client.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
        for name, value in kms.settings.items():
            monkeypatch.setenv(name, value)
        yield kms
    finally:
        kms.stop()


def test_keys_that_kms_wraps_are_rotated_while_values_stay_readable(tmp_path: Path, kms: Kms) -> None:
    """K4, K8: and no key is in the setting, under another id, of another KMS key or changed."""
    first, second = rotate(Installation(tmp_path, KEY, kms.settings))
    source = f"aws-kms:{kms.key}"
    damaged = "E044 AWS KMS answered InvalidCiphertextException for the key"
    assert refused(swapped(first, "k9"), source) == f"{damaged} k9."
    assert refused(f"{second[:-8]}AAAAAAA=", source) == f"{damaged} k2."
    # AWS itself says IncorrectKeyException.
    other = refused(second, f"aws-kms:{kms.other_key}")
    assert other == "E043 AWS KMS answered AccessDeniedException for the key k2."
    gone = refused(second, source.replace("key/", "key/0000"))
    assert gone == "E044 AWS KMS answered NotFoundException for the key k2."


def test_an_installation_moves_to_kms_with_the_key_that_it_has(tmp_path: Path, kms: Kms) -> None:
    """K8: its ring is wrapped once. A start while KMS is away says so, and ends."""
    installation = Installation(tmp_path, KEY, kms.settings | {"ENCRYPTION_KEYS_FROM": ""})
    entry = installation.manage("wrap_key", "key-1", "--existing", "--by", f"aws-kms:{kms.key}")
    installation.encryption_keys, installation.settings = entry, kms.settings
    assert installation.python("from django.conf import settings; print(settings.ENCRYPTION_KEYS)") == KEY
    kms.stop()
    assert "(delegation.E042) AWS KMS gave no answer (EndpointConnectionError)." in refusal(installation)


def test_processes_go_on_and_are_forked_anew_without_kms(tmp_path: Path, kms: Kms) -> None:
    """K8: the ring is unwrapped once, before gunicorn forks, and no request asks KMS."""
    installation = installation_at_a_free_port(tmp_path, THREADS="4")
    bot = prepared(installation, ["completed"])
    installation.settings |= kms.settings | {"ENCRYPTION_KEYS_FROM": ""}
    wrapped = installation.manage("wrap_key", "key-1", "--existing", "--by", f"aws-kms:{kms.key}")
    installation.encryption_keys, installation.settings = wrapped, installation.settings | kms.settings
    base = installation.settings["PUBLIC_BASE_URL"]

    def read() -> Any:
        answer = requests.get(
            f"{base}/api/v1/conversations/web:0/token", headers={"Authorization": f"Bearer {bot['key']}"}, timeout=60
        )
        return answer.status_code, answer.json().get("access_token")

    with serving(installation, COMMAND):
        assert read() == (200, "token-0")
        kms.stop()
        (arbiter,) = [one for one in psutil.Process().children() if "gunicorn" in " ".join(one.cmdline())]
        (worker,) = arbiter.children()
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: [one.pid for one in arbiter.children()] not in ([], [worker.pid]))
        assert read() == (200, "token-0")


def test_a_provider_is_loaded_only_where_it_is_configured(tmp_path: Path) -> None:
    """K8: boto3 takes twenty megabytes."""
    installation = Installation(tmp_path, KEY)
    code = "import delegation_site.wsgi; print([name in sys.modules for name in ('boto3', 'botocore', 'pkcs11')])"
    assert installation.python(code) == "[False, False, False]"
