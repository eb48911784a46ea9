"""A brand's server at a private address, for real: two machines, a private CA, and connections that stay open."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.brands.private_host import NAMES
from tests.machine import missing
from tests.test_house import ROOT
from tests.tls import Authority

UNSHARE = ("unshare", "--net", "--mount")


@pytest.fixture
def _namespaces() -> None:
    """Only root can have network namespaces and interfaces."""
    is_here = os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip") and shutil.which("nsenter")
    command = [*UNSHARE, "ip", "link", "add", "ours", "type", "veth", "peer", "name", "theirs"]
    if not is_here or subprocess.run(command, check=False, capture_output=True).returncode:
        missing("no network namespaces (root, iproute2): the test with a server at a private address did not run")


@pytest.mark.usefixtures("_namespaces")
def test_a_server_at_a_private_address_is_called_for_its_brand_alone(tmp_path: Path, tls_authority: Authority) -> None:
    """N1, N2, N14: Rival's call of the same address is refused, while Acme's connection is open."""
    certificate = tls_authority.issue(*NAMES[1:])
    shutil.copy(certificate.certificate_file, tmp_path / "server.crt")
    shutil.copy(certificate.key_file, tmp_path / "server.key")
    shutil.copy(tls_authority.ca_file, tmp_path / "ca.pem")
    command = [*UNSHARE, sys.executable, "-m", "tests.brands.private_host", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert found == {
        "acme": [1, 1],
        "rival, beside the open connection": ["EndpointBlocked", "EndpointBlocked"],
        "acme again": 1,
        "acme, IPv6": 2,
        "another port": "EndpointBlocked",
        "an address that is not allowed beside one that is": "EndpointBlocked",
        "our own machine": "EndpointBlocked",
        "our database": "EndpointBlocked",
        "without the private CA": "CertificateNotAccepted",
    }
