"""A ring that a PKCS#11 token unwraps: SoftHSM is a token in software."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pkcs11
import pytest
import requests
from pkcs11 import KeyType, MechanismFlag

from tests.installation import Installation
from tests.key_providers.rotation import refusal, refused, rotate, swapped
from tests.machine import missing
from tests.served import KEY, installation_at_a_free_port, prepared, serving

MODULE: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN: Final = "87654321"
LABELS: Final = ("ring", "another")


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a new token with two AES keys."""
    if not shutil.which("softhsm2-util") or not MODULE.exists():
        missing("softhsm2 is not installed: keys in a PKCS#11 token were not tried")
    configuration, tokens, pin = (tmp_path / name for name in ("softhsm2.conf", "tokens", "pin"))
    tokens.mkdir()
    configuration.write_text(f"directories.tokendir = {tokens}\n")
    pin.write_text(f"{PIN}\n")
    pin.chmod(0o400)
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    command = ["softhsm2-util", "--init-token", "--free", "--label", "delegation", "--so-pin", "12345678", "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True)
    library = pkcs11.lib(str(MODULE))
    with library.get_token(token_label="delegation").open(rw=True, user_pin=PIN) as session:
        uses = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
        for label in LABELS:
            session.generate_key(KeyType.AES, 256, label=label, store=True, capabilities=uses)
    library.finalize()
    place = f"token=delegation;object=ring?module-path={MODULE}&pin-source=file:{pin}"
    return {"SOFTHSM2_CONF": str(configuration), "ENCRYPTION_KEYS_FROM": f"pkcs11:{place}"}


def test_keys_that_a_token_wraps_are_rotated_while_values_stay_readable(tmp_path: Path, token: dict[str, str]) -> None:
    """K4, K8: under another id, changed, by another object, or without a token or PIN, a start is refused."""
    installation = Installation(tmp_path, KEY, token)
    first, second = rotate(installation)
    source = token["ENCRYPTION_KEYS_FROM"]
    (tmp_path / "wrong-pin").write_text("11111111")
    (tmp_path / "wrong-pin").chmod(0o400)
    of_the_key = "E044 The PKCS#11 token cannot unwrap the key"
    assert refused(swapped(first, "k9"), source) == f"{of_the_key} k9."
    assert refused(f"{second[:-8]}AAAAAAA=", source) == f"{of_the_key} k2."
    assert refused("k2:AAAA", source) == f"{of_the_key} k2."
    assert refused(second, source.replace("=ring", "=another")) == f"{of_the_key} k2."
    gone = refused(second, source.replace("=ring", "=gone"))
    assert gone == "E044 The PKCS#11 token delegation has no single key gone (NoSuchKey)."
    absent = refused(second, source.replace("=delegation", "=rival"))
    assert absent == "E042 The PKCS#11 token rival cannot be used (NoSuchToken)."
    installation.settings["ENCRYPTION_KEYS_FROM"] = source.replace("/pin", "/wrong-pin")
    printed = refusal(installation)
    assert "(delegation.E043) The PKCS#11 token delegation refused the PIN (PinIncorrect)." in printed
    assert [secret for secret in (PIN, "11111111") if secret in printed] == []


def test_gunicorn_forks_after_it_has_left_the_token(tmp_path: Path, token: dict[str, str]) -> None:
    """K8: workers use the ring that was unwrapped, and the token is not needed any more."""
    installation = installation_at_a_free_port(tmp_path, WORKERS="2")
    bot = prepared(installation, ["completed"])
    installation.settings |= token | {"ENCRYPTION_KEYS_FROM": ""}
    installation.encryption_keys = installation.manage(
        "wrap_key", "key-1", "--existing", "--by", token["ENCRYPTION_KEYS_FROM"]
    )
    installation.settings |= token
    with serving(installation):
        shutil.rmtree(tmp_path / "tokens")
        url = f"{installation.settings['PUBLIC_BASE_URL']}/api/v1/conversations/web:0/token"
        answers = [requests.get(url, headers={"Authorization": f"Bearer {bot['key']}"}, timeout=60) for _ in range(8)]
    assert {(answer.status_code, answer.json()["access_token"]) for answer in answers} == {(200, "token-0")}
