"""The *Discover* button of a server's form: what its metadata says, beside what a save would store (C6, N9)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib.admin.utils import label_for_field
from django.core.exceptions import ValidationError
from django.forms.utils import ErrorDict
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.sign_in import RecentSignInForm, recent_sign_in_needed, signed_in_recently
from brands.audited_changes import actor_of
from brands.doctor.bounded import AnotherRun, NotAnswered, look_up_within_bounds
from brands.doctor.examination import Examination, Unanswered
from brands.models import AuthorizationServer, Brand
from brands.server_rules import (
    DPOP,
    ENDPOINTS,
    FIELDS_FROM_METADATA,
    ISS_PARAMETER,
    SUBJECT_ENDPOINTS,
    complete_from_metadata,
    default_algorithms,
    discovery_problem,
    fill_in_subject_endpoint,
    issuer_of_address,
    needs_discovery,
)
from brands.unsaved_secrets import UnsavedSecretForm
from infrastructure import rate_limits
from oauth_client import DiscoveryFailed, ServerMetadata, discover
from oauth_client.dpop import ALGORITHM

# The name of the button.
DISCOVER: Final = "_discover"
_METHOD: Final = "token_endpoint_auth_method"
_ALGORITHMS: Final = "id_token_signing_alg_values"
_COULD_NOT_BE_FETCHED: Final = (
    "The metadata of this issuer could not be fetched. Look at the address, or enter the endpoints yourself."
)
_NAME: Final = re.compile(r"[\x21-\x7e]{1,200}")
_MOST_NAMES: Final = 40
# Those that prove who we are, in the order in which one is proposed.
_PROPOSED: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")


@dataclass(frozen=True)
class Row:
    """One line of the table: what was found, what would be stored, and how the two compare."""

    label: str
    found: str
    stored: str
    note: str = ""


def fetch_metadata(issuer: str, actor: str, brand: Brand | None) -> ServerMetadata | DiscoveryFailed:
    """Fetch an issuer's metadata for an admin, perhaps in the brand's private networks (N14).

    Blocks for up to 20 seconds: call it outside a transaction. Counted for each admin, and bounded like a run of the
    doctor: whatever is wrong inside our network is one sentence after one time (N9).
    """
    try:
        rate_limits.count(rate_limits.METADATA_LOOKUPS_PER_ADMIN, actor)
        return _fetch(issuer, brand)
    except rate_limits.RateLimited as limit:
        return DiscoveryFailed("issuer", f"Too many look-ups of metadata: wait {limit.retry_after} seconds.")
    except AnotherRun:
        return DiscoveryFailed("issuer", "Other look-ups and checks are running: try again in a minute.")


def wanted_metadata(request: HttpRequest, brand: Brand | None) -> ServerMetadata | DiscoveryFailed | None:
    """Fetch what a posted form of a brand's server asks for; None if it asks for nothing.

    Call it on behalf of somebody who may save the form: the address is of their choice (N9, G10).
    """
    values = {name: value.strip() for name, value in request.POST.items() if isinstance(value, str)}
    values["issuer"] = issuer_of_address(values.get("issuer", ""))
    wanted = values["issuer"] if DISCOVER in request.POST else needs_discovery(values)
    if not wanted or not signed_in_recently(request):
        return None
    return fetch_metadata(values["issuer"], actor_of(request.user), brand)


def _fetch(issuer: str, brand: Brand | None) -> ServerMetadata | DiscoveryFailed:
    def look_up() -> ServerMetadata | DiscoveryFailed:
        try:
            return discover(issuer)
        except DiscoveryFailed as failure:
            if failure.unanswered:
                raise Unanswered(failure.unanswered, "issuer", "") from None
            return failure

    examination = Examination.of(AuthorizationServer(brand=brand, issuer=issuer))
    try:
        return look_up_within_bounds(examination, "The published metadata", "issuer", look_up)
    except NotAnswered as told:
        return DiscoveryFailed("issuer", f"{_COULD_NOT_BE_FETCHED}{told}")


def propose(values: dict[str, Any], metadata: ServerMetadata) -> None:
    """Choose, for a new server, client authentication and algorithms that it supports, in place of our defaults."""
    supported = metadata.token_endpoint_auth_methods_supported
    if supported and values.get(_METHOD) not in supported:
        values[_METHOD] = next((name for name in _PROPOSED if name in supported), values.get(_METHOD))
    values[_ALGORITHMS] = default_algorithms(metadata) or values.get(_ALGORITHMS)


@dataclass(frozen=True)
class _Comparison:
    """A form beside metadata: `typed` is what the form held, `stored` what its fields hold now."""

    typed: Mapping[str, Any]
    stored: Mapping[str, Any]
    metadata: ServerMetadata
    labels: Mapping[str, str]

    def rows(self) -> Iterator[Row]:
        yield Row(self.labels["issuer"], self.metadata.issuer, self.metadata.issuer, "The same.")
        for name in ENDPOINTS:
            yield Row(self.labels[name], *self._endpoint(name))
        for name in SUBJECT_ENDPOINTS:
            if getattr(self.metadata, name) or self.stored.get(name):
                yield Row(self.labels[name], *self._subject_endpoint(name))
        yield self._row(_METHOD, self.metadata.token_endpoint_auth_methods_supported, [self.stored.get(_METHOD) or ""])
        wanted = str(self.typed.get("scope") or "").split()
        if "openid" in wanted:
            algorithms = self.stored.get(_ALGORITHMS) or []
            yield self._row(_ALGORITHMS, self.metadata.id_token_signing_alg_values_supported, algorithms)
        yield self._row("scope", self.metadata.scopes_supported, wanted)
        yield self._pkce()
        if self.metadata.dpop_signing_alg_values_supported or self.stored.get(DPOP):
            yield self._dpop()
        yield self._iss()

    def _endpoint(self, name: str) -> tuple[str, str, str]:
        found, value = getattr(self.metadata, name), self.stored.get(name) or ""
        if name in (self.typed.get("ignored_metadata") or ()):
            note = "It stays empty, because it is ticked as not to be used."
        elif value == found:
            note = ("The same." if self.typed.get(name) else "Filled in now.") if found else ""
        elif found:
            note = "They differ. To use what was found, empty the field and press Discover again."
        else:
            note = "The server does not publish it."
        return found or "-", value or "-", note

    def _subject_endpoint(self, name: str) -> tuple[str, str, str]:
        found, value, note = self._endpoint(name)
        if value == "-" and found != "-" and not note.startswith("It stays empty"):
            wanted = str(self.typed.get("scope") or "").split()
            note = "Not used: one of the two is enough."
            if "openid" in wanted or not wanted:
                note = "Not filled in: it is for a scope without openid."
        return found, value, note

    def _row(self, name: str, announced: tuple[str, ...], chosen: list[str]) -> Row:
        note = _not_announced(set(chosen) - {"HS256"}, announced)
        if not note and name != "scope" and self.typed.get(name) != self.stored.get(name):
            note = "Chosen now."
        return Row(self.labels[name], _listed(announced), _listed(chosen), note)

    def _pkce(self) -> Row:
        announced = self.metadata.code_challenge_methods_supported
        note = _not_announced({"S256"}, announced)
        if not announced:
            note = "The server does not say. A trial sign-in tells whether it works."
        return Row("Protection of the code (PKCE)", _listed(announced), "S256, always", note)

    def _dpop(self) -> Row:
        announced, is_on = self.metadata.dpop_signing_alg_values_supported, bool(self.stored.get(DPOP))
        note = "The server supports it. Switch it on only if your server wants it." if announced else ""
        if is_on:
            note = _not_announced({ALGORITHM}, announced) if announced else "The server does not announce it."
        return Row(self.labels[DPOP], _listed(announced), "yes" if is_on else "no", note)

    def _iss(self) -> Row:
        announced, stored = getattr(self.metadata, ISS_PARAMETER), bool(self.stored.get(ISS_PARAMETER))
        note = "Switched on now." if stored and not self.typed.get(ISS_PARAMETER) else ""
        return Row(self.labels[ISS_PARAMETER], "yes" if announced else "not announced", "yes" if stored else "no", note)


def _not_announced(wanted: set[str], announced: tuple[str, ...]) -> str:
    missing = sorted(wanted - set(announced)) if announced else []
    return f"The server does not announce {', '.join(missing)}." if missing else ""


def _listed(names: tuple[str, ...] | list[str]) -> str:
    """Join the names that look like protocol values: no other text of the server is shown (H8)."""
    plain = [name for name in names if _NAME.fullmatch(name)]
    return ", ".join(plain[:_MOST_NAMES]) + (", ..." if len(plain) > _MOST_NAMES else "") or "-"


class IssuerInput(forms.TextInput):
    """A text field with a button beside it that shows what the server publishes, and saves nothing."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        button = '<button type="submit" class="button" name="{}" value="1" formaction="#discovered">Discover</button>'
        field = super().render(name, value, attrs, renderer)
        return format_html('<span class="with-button">{}' + button + "</span>", field, DISCOVER)


class DiscoveringForm(UnsavedSecretForm, RecentSignInForm):
    """The form of an authorization server that comes back, unsaved, with what the server publishes."""

    # The issuer's metadata, if the posted form asks for it. The admin fetches it before it makes the form.
    metadata: ServerMetadata | DiscoveryFailed | None = None
    # Whether *Discover* was pressed: nothing is saved then, and `discovered` has what was found.
    discovers = False
    discovered: list[Row] | None = None

    def is_valid(self) -> bool:
        return super().is_valid() and not self.discovers

    def full_clean(self) -> None:
        super().full_clean()
        if self.is_bound and self.discovers:
            self._discover()

    def _discover(self) -> None:
        """Fill in what was found. Of the errors keep only those that matter to it: others may not be typed yet."""
        kept = {name: self.errors[name] for name in ("issuer", "client_secret") if name in self.errors}
        self._errors = ErrorDict(kept)
        if not self.signed_in_recently:
            self.add_error(None, recent_sign_in_needed("press Discover again"))
        elif isinstance(self.metadata, ServerMetadata):
            self._fill_in(self.metadata)
        elif self.metadata is not None:
            name, message = discovery_problem(self.metadata)
            self.add_error(name, ValidationError(message, "metadata"))
        elif "issuer" not in self.errors:
            message = "Type the issuer of your server, or the address of its metadata."
            self.add_error("issuer", ValidationError(message, "required"))

    def _fill_in(self, metadata: ServerMetadata) -> None:
        typed = {name: self.cleaned_data.get(name, self[name].data) for name in self.fields}
        values = dict(typed)
        if self.instance.pk is None and not {_METHOD, _ALGORITHMS} & set(self.changed_data):
            propose(values, metadata)
        problems = complete_from_metadata(values, metadata)
        fill_in_subject_endpoint(values, metadata)
        self._show({name: values[name] for name in (*FIELDS_FROM_METADATA, *SUBJECT_ENDPOINTS, _METHOD, "issuer")})
        for name, message in problems.items():
            self.add_error(name, ValidationError(message, "metadata"))
        names = (*FIELDS_FROM_METADATA, *SUBJECT_ENDPOINTS, _METHOD, DPOP, "issuer", "scope")
        labels = {name: self._label(name) for name in names}
        self.discovered = list(_Comparison(typed, values, metadata, labels).rows())
        self.keep_for(values)

    def _show(self, values: Mapping[str, Any]) -> None:
        """Put values into the fields, as if they had been typed."""
        posted: Any = self.data
        self.data = data = posted.copy()
        for name, value in values.items():
            data.setlist(
                self.add_prefix(name), value if isinstance(value, list) else ["on" if value is True else value]
            )
        for name in (name for name, value in values.items() if value is False):
            del data[self.add_prefix(name)]

    def _label(self, name: str) -> str:
        return str(self.fields[name].label or label_for_field(name, AuthorizationServer))
