"""Why a server's TLS certificate was not accepted, in words for admins."""

import ssl
from enum import StrEnum
from typing import Final


class CertificateProblem(StrEnum):
    """Why a server's TLS certificate was not accepted."""

    EXPIRED = "it has expired"
    OTHER_NAME = "it is for another name"
    UNKNOWN_CA = "its CA is not known here"
    OTHER = "it is not valid"


# Verification results of OpenSSL (X509_V_ERR_*): expired; the issuer is missing, or is the certificate itself; the name
# or the address differs.
_PROBLEMS: Final = {
    10: CertificateProblem.EXPIRED,
    **dict.fromkeys((2, 18, 19, 20, 21), CertificateProblem.UNKNOWN_CA),
    **dict.fromkeys((62, 64), CertificateProblem.OTHER_NAME),
}


def certificate_problem(error: BaseException | None) -> CertificateProblem | None:
    """Find the refused certificate behind an error; None if there is none, as with a server that speaks no TLS."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__context__
    return None if error is None else _PROBLEMS.get(error.verify_code, CertificateProblem.OTHER)
