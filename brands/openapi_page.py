"""The admin's page that imports operations from an OpenAPI document: choose it, tick operations, declare them.

Nothing of the document is stored. Between the two steps the browser keeps it, signed, so that what was ticked is what
was shown, and an address is fetched once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import ngettext

from brands.audited_changes import actor_of, save_audited
from brands.doctor.bounded import AnotherRun, NotAnswered, look_up_within_bounds
from brands.doctor.examination import Examination, Unanswered
from brands.models import BrandAPI, Operation
from brands.openapi_documents import (
    MAX_DOCUMENT_BYTES,
    NotReadable,
    Proposal,
    base_url_of,
    proposals_of,
    read_document,
)
from brands.scoped_admin import BrandScopedAdmin, own_row_or_404
from infrastructure import rate_limits
from oauth_client import transport
from oauth_client.validators import validate_endpoint

_SALT: Final = "brands.openapi_page"
_KEPT_FOR: Final = 3600
# A form of more than a megabyte is refused (DATA_UPLOAD_MAX_MEMORY_SIZE). Compressed, documents are far below.
_MOST_KEPT: Final = 900_000
_NOT_FETCHED: Final = "The document could not be fetched. Look at the address, or choose a file."


class DocumentForm(forms.Form):
    """A file or an address."""

    file = forms.FileField(
        label="File",
        required=False,
        help_text="JSON or YAML, at most 1 MB.",
        widget=forms.FileInput(attrs={"accept": ".json,.yaml,.yml,application/json,application/yaml"}),
    )
    address = forms.CharField(
        label="Or its address",
        required=False,
        max_length=2048,
        validators=[validate_endpoint],
        widget=forms.TextInput(attrs={"class": "vTextField", "inputmode": "url"}),
        help_text="For example https://api.acme.example/openapi.json. It is fetched once, now.",
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors and bool(cleaned.get("file")) == bool(cleaned.get("address")):
            said = (
                "Choose a file or type an address, not both."
                if cleaned.get("file")
                else "Choose a file, or type an address."
            )
            raise ValidationError(said, "one_document")
        return cleaned


@dataclass(frozen=True)
class Line:
    """A proposal beside what is declared already."""

    proposal: Proposal
    note: str
    is_ticked: bool

    @property
    def can_be_ticked(self) -> bool:
        return not self.proposal.problem


def import_page(model_admin: BrandScopedAdmin, request: HttpRequest, pk: int) -> HttpResponse:
    """`/admin/brands/brandapi/{pk}/import/`: GET asks for a document, POST shows its operations, POST declares some.

    Raises `Http404` for another brand's API (J1), and `PermissionDenied` for a viewer (J15).
    """
    api: BrandAPI = own_row_or_404(BrandAPI, request, pk, to_change=True)
    with api.in_private_networks():  # for the validators; the fetch has a thread of its own
        return _import(model_admin, request, api)


def _import(model_admin: BrandScopedAdmin, request: HttpRequest, api: BrandAPI) -> HttpResponse:
    if "document" in request.POST:
        return _declare(model_admin, request, api)
    form = DocumentForm(request.POST, request.FILES) if request.method == "POST" else DocumentForm()
    if not form.is_valid():
        return _page(model_admin, request, api, form=form)
    try:
        content = _content(form, api, actor_of(request.user))
        return _choices(model_admin, request, api, content)
    except NotReadable as reason:
        form.add_error("file" if form.cleaned_data["file"] else "address", ValidationError(str(reason), "not_readable"))
        return _page(model_admin, request, api, form=form)


def _content(form: DocumentForm, api: BrandAPI, actor: str) -> bytes:
    """Return the document. Each is counted as a look-up of metadata, since to read one takes up to some seconds."""
    try:
        rate_limits.count(rate_limits.METADATA_LOOKUPS_PER_ADMIN, actor)
    except rate_limits.RateLimited as limit:
        raise NotReadable(f"Too many look-ups: wait {limit.retry_after} seconds.") from None
    upload = form.cleaned_data["file"]
    return bytes(upload.read(MAX_DOCUMENT_BYTES + 1)) if upload else fetch(form.cleaned_data["address"], api)


def fetch(address: str, api: BrandAPI) -> bytes:
    """Fetch a document for a brand's admin. Blocks for up to 20 seconds: call it outside a transaction.

    Bounded as a look-up of metadata: whatever is wrong inside our network is one sentence after one time (N9). Raises
    `NotReadable`.
    """
    headers = {"Accept": "application/json, application/yaml;q=0.9, */*;q=0.5"}

    def look_up() -> transport.Response:
        try:
            return transport.send("GET", address, None, headers, max_body_bytes=MAX_DOCUMENT_BYTES)
        except transport.OutboundError as error:
            raise Unanswered(error, "", "") from None

    examination = Examination.without_secrets(api.authorization_server)
    try:
        response = look_up_within_bounds(examination, "The OpenAPI document", "", look_up)
    except AnotherRun:
        raise NotReadable("Other look-ups and checks are running: try again in a minute.") from None
    except NotAnswered as told:
        raise NotReadable(f"{_NOT_FETCHED}{told}") from None
    if response.status_code != HTTPStatus.OK:
        raise NotReadable(f"The address answered with the status {response.status_code}. Redirects are not followed.")
    return response.content


def _choices(
    model_admin: BrandScopedAdmin, request: HttpRequest, api: BrandAPI, content: bytes, error: str = ""
) -> HttpResponse:
    """Show the document's operations with boxes. Raises `NotReadable`."""
    document = read_document(content)
    proposals = proposals_of(document)
    kept = signing.dumps(content.decode("utf-8-sig"), salt=_SALT, compress=True)
    if len(kept) > _MOST_KEPT:
        raise NotReadable("The document is too large. Leave out what bots do not need, such as examples.")
    base_url = base_url_of(document)
    return _page(
        model_admin,
        request,
        api,
        lines=list(_lines(api, proposals, request.POST.getlist("operation"))),
        document=kept,
        other_base_url=base_url if base_url != api.base_url else "",
        error=error,
    )


def _lines(api: BrandAPI, proposals: Iterable[Proposal], ticked: list[str]) -> Iterator[Line]:
    declared = dict(Operation.objects.filter(brand=api.brand).values_list("name", "api_id"))
    for proposal in proposals:
        note = ""
        if declared.get(proposal.name) == api.pk:
            note = "Declared already: ticking it replaces method, path, parameters, body and scope."
        elif proposal.name in declared:
            note = "Another API of your brand has an operation of this name: it is declared with another name."
        yield Line(proposal, note, proposal.name in ticked)


def _declare(model_admin: BrandScopedAdmin, request: HttpRequest, api: BrandAPI) -> HttpResponse:
    """Declare what was ticked. What the signed document does not propose is not declared."""
    try:
        content = signing.loads(request.POST["document"], salt=_SALT, max_age=_KEPT_FOR).encode()
        proposals = proposals_of(read_document(content))
    except (signing.BadSignature, NotReadable):
        messages.warning(request, "The document is no longer kept: choose it again.")
        return _page(model_admin, request, api, form=DocumentForm())
    ticked = set(request.POST.getlist("operation"))
    chosen = [proposal for proposal in proposals if proposal.name in ticked and not proposal.problem]
    if not chosen:
        return _choices(model_admin, request, api, content, error="Tick at least one operation.")
    try:
        with transaction.atomic():
            for proposal in chosen:
                _save(api, proposal, request.user)
    except ValidationError as error:
        return _choices(model_admin, request, api, content, error=" ".join(error.messages))
    said = ngettext("%d operation declared.", "%d operations declared.", len(chosen)) % len(chosen)
    messages.success(request, f"{said} Bots can call them; say in a few words what each does.")
    return redirect(f"{reverse('admin:brands_operation_changelist')}?api__id__exact={api.pk}")


def _save(api: BrandAPI, proposal: Proposal, user: Any) -> None:
    """Create the operation, or replace the request of one of the same API. Its words and switches stay.

    Raises `ValidationError`, whose message names the operation.
    """
    operation = api.operations.filter(name=proposal.name).first() or Operation(api=api)
    stays = {"is_safe_to_repeat"} if operation.pk else set()
    for name, value in proposal.values.items():
        if name not in stays:
            setattr(operation, name, value)
    try:
        operation.full_clean(exclude={"brand"})
    except ValidationError as error:
        raise ValidationError(f"{proposal.name}: {error.messages[0]}") from None
    save_audited(operation, user)


def _page(model_admin: BrandScopedAdmin, request: HttpRequest, api: BrandAPI, **shown: Any) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"Import operations of {api}",
        "opts": model_admin.opts,
        "api": api,
        **shown,
    }
    return render(request, "admin/brands/import_operations.html", context)
