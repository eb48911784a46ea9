"""A certificate authority for servers that tests start on loopback."""

import base64
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


@dataclass(frozen=True)
class ServerCertificate:
    """The two files that a TLS server needs."""

    certificate_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        """The SSL context for a server in this process."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def public_key_digest(self) -> str:
        """The digest of the public key, for Chromium's `--ignore-certificate-errors-spki-list`."""
        certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        public_key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = Hash(SHA256())
        digest.update(public_key)
        return base64.b64encode(digest.finalize()).decode()


class Authority:
    """Issues certificates for loopback names and for the tests' invented hosts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, *names: str, expired_at: datetime | None = None) -> ServerCertificate:
        """Issue a certificate for `names`; without any, for `localhost`, `127.0.0.1` and `::1`."""
        names = names or ("localhost", "127.0.0.1", "::1")
        issued = self._authority.issue_cert(*names, not_after=expired_at)
        base = self._folder / names[0].replace("*", "any")
        files = ServerCertificate(base.with_name(f"{base.name}.crt"), base.with_name(f"{base.name}.key"))
        with files.certificate_file.open("wb") as certificate:
            certificate.writelines(blob.bytes() for blob in issued.cert_chain_pems)
        issued.private_key_pem.write_to_path(str(files.key_file))
        return files
