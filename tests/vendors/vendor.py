"""What the fake vendors share: other URLs and other response formats than the usual server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import mock
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests

from oauth_client import keys, transport
from tests.fake_authorization_server import Answer, _json
from tests.modern_authorization_server import ModernAuthorizationServer

Refusal = tuple[int, dict[str, Any]]


@dataclass
class Vendor(ModernAuthorizationServer):
    """A vendor's server: its URLs, its answers in place of the usual ones, and what a bot then reads.

    `refusals` maps an error code of RFC 6749 to the status and body that this vendor sends. None means that no source
    was found, and nothing is tested.
    """

    key: ClassVar[str]
    paths: ClassVar[dict[str, str]] = {"/authorize": "/authorize", "/token": "/token"}
    refusals: ClassVar[dict[str, Refusal | None]] = {}
    denial: ClassVar[dict[str, str]] = {"error": "access_denied"}
    way_back: ClassVar[dict[str, str]] = {}
    published: ClassVar[dict[str, Any]] = {}
    named_issuer: ClassVar[str] = ""
    granted: ClassVar[str] = ""
    members: ClassVar[dict[str, Any]] = {}
    lifetime_assumed: ClassVar[bool] = False

    client_id: str = "acme-client"
    token_endpoint_auth_method: str = "client_secret_post"
    pushed_only: bool = False
    sends_iss: bool = False
    metadata_path: str = ""
    described_as: str = ""

    @property
    def issuer(self) -> str:
        return self.named_issuer or f"https://{self.host}"

    @property
    def hosts(self) -> set[str]:
        """Every host that this vendor answers at."""
        return {self.host, *(urlsplit(address).netloc for address in self.paths.values() if "://" in address)}

    def address(self, path: str) -> str:
        """The vendor's URL for one of the usual paths."""
        return self.paths[path] if "://" in self.paths[path] else f"https://{self.host}{self.paths[path]}"

    def metadata(self) -> dict[str, Any]:
        return {"issuer": self.issuer, **self.published}

    def authorize(self, url: str) -> str:
        address, _, query = url.partition("?")
        assert address == self.address("/authorize"), address
        answer = dict(parse_qsl(super().authorize(f"https://{self.host}/authorize?{query}")))
        if answer.get("error") == "access_denied":
            answer |= self.denial | ({"error_description": self.described_as} if self.described_as else {})
        return urlencode(self.way_back | answer)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        address, _, query = str(request.url).partition("?")
        usual = {self.address(path): path for path in self.paths}.get(address)
        translated = request.copy()
        translated.url = f"https://{self.host}{usual}?{query}".removesuffix("?") if usual else request.url
        return super().send(translated, *arguments, **options)

    def _answer_without_browser(self, url: str) -> Answer:
        return super()._answer_without_browser(f"{self.address('/authorize')}?{urlsplit(url).query}")

    def _answer_token_request(self, request: requests.PreparedRequest) -> Answer:
        answer = super()._answer_token_request(request)
        wanted = {401: "invalid_client", 400: "invalid_grant"}.get(answer[0])
        refusal = self.refusals.get(wanted) if wanted else None
        return _json(*refusal) if refusal else answer


@contextmanager
def played(vendor: Vendor) -> Iterator[Vendor]:
    """Route all outbound calls of this process to this vendor, at its hosts, and to nothing else."""
    keys.forget_all()
    with mock.patch.object(transport, "adapter_for", lambda url: dict.fromkeys(vendor.hosts, vendor)[_host(url)]):
        yield vendor
    keys.forget_all()


def _host(url: str) -> str:
    return urlsplit(url).netloc
