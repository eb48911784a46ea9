"""What a step of the doctor gets, and how it says that no answer came."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from brands.doctor.findings import Finding, Verdict, found
from brands.models import AuthorizationServer
from oauth_client import ClientCredentials, ServerConfiguration, transport

_CERTIFICATE: Final = {
    transport.CertificateProblem.EXPIRED: "certificate_expired",
    transport.CertificateProblem.UNKNOWN_CA: "certificate_unknown_ca",
    transport.CertificateProblem.OTHER_NAME: "certificate_other_name",
    transport.CertificateProblem.OTHER: "certificate_invalid",
}


class Unanswered(Exception):
    """A step ended because no answer came. Whoever runs the step decides how much of the reason is told (N9)."""

    def __init__(
        self, error: transport.OutboundError, field: str, tried: str, verdict: Verdict = Verdict.PROBLEM
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.field = field
        self.tried = tried
        self.verdict = verdict

    def told(self) -> Finding:
        """Return the finding with its reason: for the operator, and for reasons that tell nothing of our network."""
        code = {
            transport.EndpointBlocked: "address_blocked",
            transport.EndpointTimeout: "timed_out",
            transport.ResponseTooLarge: "answer_too_large",
        }.get(type(self.error), "unreachable")
        if isinstance(self.error, transport.CertificateNotAccepted):
            code = _CERTIFICATE[self.error.problem]
        return found(code, self.verdict, field=self.field, tried=self.tried, detail=str(self.error))


def _nothing() -> None:
    """Nobody waits for the first answer."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the steps need. They read no database, so that each can run in a thread of its own.

    `heard` is called as soon as a first answer came.
    """

    server: AuthorizationServer
    configuration: ServerConfiguration
    credentials: ClientCredentials
    heard: Callable[[], None] = _nothing

    @classmethod
    def of(cls, server: AuthorizationServer) -> "Examination":
        """Raises `DecryptionError`."""
        return cls(
            server=server,
            configuration=server.configuration(server.scope),
            credentials=server.reveal_credentials(),
        )

    def changed(self, **values: Any) -> "Examination":
        """Return one with other values in its configuration."""
        return replace(self, configuration=msgspec.structs.replace(self.configuration, **values))


@dataclass(frozen=True)
class Step:
    """One part of a run, about one field. `unanswered` is the verdict if no answer came: sign-ins may not need one."""

    title: str
    field: str
    run: Callable[[Examination], Iterator[Finding]]
    unanswered: Verdict = Verdict.PROBLEM

    def no_answer(self) -> Finding:
        """Return what a brand's admin reads: the same for each reason (N9)."""
        return found("no_answer", self.unanswered, field=self.field, tried=self.title)
