"""Why a call to a brand's server brought no response."""

from typing import Final

from django.core.exceptions import ValidationError
from requests_hardened.ip_filter import InvalidIPAddress  # type: ignore[import-untyped]  # the package has no types
from urllib3.exceptions import MaxRetryError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from oauth_client.certificates import CertificateProblem, certificate_problem

ADDRESS_NOT_ALLOWED: Final = "the address is not allowed"


class OutboundError(Exception):
    """A call to a brand's server failed. The message contains no address and no text from the server (H5).

    `was_sent` is false only if no byte of the request was written, so that the server cannot have received it.
    """

    was_sent = True


class EndpointBlocked(OutboundError):
    """The URL or its address is not allowed."""

    was_sent = False


class EndpointTimeout(OutboundError):
    """The server did not respond in time. It may have received the request."""


class EndpointUnreachable(OutboundError):
    """No connection, no trusted certificate, or no HTTP response. The server may have received the request."""


class CertificateNotAccepted(EndpointUnreachable):
    """The TLS certificate is not valid for this name. Nothing was sent. The address itself is allowed."""

    def __init__(self, problem: CertificateProblem) -> None:
        super().__init__(f"the server's TLS certificate was not accepted: {problem}")
        self.problem = problem


class ResponseTooLarge(OutboundError):
    """The response is larger than the call allows: 65,536 bytes, or what `send` was given."""


def failure_of(error: Exception) -> OutboundError:
    """Return our error for what a library raised while it connected, sent or read."""
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(cause, InvalidIPAddress | ValidationError):
        return EndpointBlocked(ADDRESS_NOT_ALLOWED)
    if isinstance(cause, PoolTimeoutError | TimeoutError) and not isinstance(cause, NewConnectionError):
        return EndpointTimeout("the server did not answer in time")
    if isinstance(cause, SSLError):
        return _tls_failure(cause)
    return EndpointUnreachable("the server could not be reached, or its answer is not HTTP")


def _tls_failure(error: BaseException) -> EndpointUnreachable:
    problem = certificate_problem(error)
    return CertificateNotAccepted(problem) if problem else EndpointUnreachable("no TLS connection could be made")
