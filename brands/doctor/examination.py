"""The input of the doctor's steps, and the exception of a step that got no answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

import msgspec

from brands.doctor.findings import Finding, found
from brands.doctor.table import Verdict
from brands.models import AuthorizationServer
from oauth_client import ClientCredentials, ServerConfiguration, transport
from oauth_client.certificates import CertificateProblem
from oauth_client.dpop import ProofKey, new_proof_key

# Statuses of an address without an endpoint.
NO_PAGE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE})
_NO_COLUMNS: Final = frozenset({"redirect_uri", "client_jwks_uri", "client_secret"})
_CERTIFICATE: Final = {
    CertificateProblem.EXPIRED: "certificate_expired",
    CertificateProblem.UNKNOWN_CA: "certificate_unknown_ca",
    CertificateProblem.OTHER_NAME: "certificate_other_name",
    CertificateProblem.OTHER: "certificate_invalid",
}


class Unanswered(Exception):
    """A step ended because no answer came. The caller decides how much of the reason is shown (N9)."""

    def __init__(
        self, error: transport.OutboundError, field: str, tried: str, verdict: Verdict = Verdict.PROBLEM
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.field = field
        self.tried = tried
        self.verdict = verdict

    def finding(self) -> Finding:
        """Return the finding with its reason: for the operator, or if the reason says nothing about our network."""
        code = {
            transport.EndpointBlocked: "address_blocked",
            transport.EndpointTimeout: "timed_out",
            transport.ResponseTooLarge: "answer_too_large",
        }.get(type(self.error), "unreachable")
        if isinstance(self.error, transport.CertificateNotAccepted):
            code = _CERTIFICATE[self.error.problem]
        return found(code, self.verdict, field=self.field, tried=self.tried, detail=str(self.error))


def label_of(field: str) -> str:
    """Return the name of a form's field, as the form has it."""
    if field in _NO_COLUMNS:
        return field.replace("_", " ").capitalize().replace("uri", "URI")
    name = str(AuthorizationServer._meta.get_field(field).verbose_name)  # type: ignore[union-attr]
    return name[:1].upper() + name[1:]


def _nothing() -> None:
    """Do nothing: the default if nobody waits for the first response."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The input of the steps. They read no database, so that each can run in a thread of its own.

    A step calls `heard` as soon as it has got a first response.
    """

    server: AuthorizationServer
    configuration: ServerConfiguration
    credentials: ClientCredentials
    heard: Callable[[], None] = _nothing

    @classmethod
    def of(cls, server: AuthorizationServer) -> "Examination":
        """Read and decrypt what the steps need from a server. Raises `DecryptionError`."""
        return cls(
            server=server,
            configuration=server.configuration(server.scope),
            credentials=server.reveal_credentials(),
        )

    @classmethod
    def without_secrets(cls, server: AuthorizationServer) -> "Examination":
        """Take what steps need that send no credentials. Nothing is decrypted."""
        credentials = ClientCredentials(client_secret=None, signing_key=None)
        return cls(server=server, configuration=server.configuration(server.scope), credentials=credentials)

    @property
    def proof_key(self) -> ProofKey | None:
        """A new key for the proof of a request, if the server's tokens are bound to keys (DPoP)."""
        return new_proof_key(self.configuration)

    def changed(self, **values: Any) -> "Examination":
        """Return an examination with other values in its configuration."""
        return replace(self, configuration=msgspec.structs.replace(self.configuration, **values))


@dataclass(frozen=True)
class Step:
    """One part of a run, about one field. `unanswered` is the verdict if no answer came: sign-ins may not need one."""

    title: str
    field: str
    run: Callable[[Examination], Iterator[Finding]]
    unanswered: Verdict = Verdict.PROBLEM

    def no_answer(self) -> Finding:
        """Return the finding that a brand's admin reads. It is the same for every reason (N9)."""
        return found("no_answer", self.unanswered, field=self.field, tried=self.title)
