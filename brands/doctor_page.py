"""The doctor's page in the admin: what a run sends, a button, and each finding with a link to its field."""

from http import HTTPStatus
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from brands.doctor import AnotherRun, Finding, Verdict, examine_within_bounds, label_of
from brands.models import AuthorizationServer
from brands.scoped_admin import BrandScopedAdmin, may_test, own_row_or_404

_MARKS: Final = {Verdict.GOOD: "Proven", Verdict.NOTE: "Note", Verdict.PROBLEM: "To fix"}
# Shown on the change page, but not typed there.
_SHOWN_ONLY: Final = frozenset({"redirect_uri", "client_jwks_uri"})


def doctor_page(model_admin: BrandScopedAdmin, request: HttpRequest, pk: int) -> HttpResponse:
    """Show the page; run the doctor on POST.

    Raises `Http404` for another brand's server (J1), and `PermissionDenied` for a viewer (J15). No recent sign-in is
    needed, because nothing is changed and only stored values are sent.
    """
    server: AuthorizationServer = own_row_or_404(AuthorizationServer, request, pk, to_change=True)
    findings: list[Finding] = []
    status = HTTPStatus.OK
    if request.method == "POST":
        findings, status = _run(model_admin, request, server)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"Check the set-up of {server}",
        "opts": model_admin.opts,
        "server": server,
        "findings": [_shown(finding, server) for finding in findings],
        "summary": _summary(findings),
    }
    return render(request, "admin/brands/doctor.html", context, status=status)


def _run(
    model_admin: BrandScopedAdmin, request: HttpRequest, server: AuthorizationServer
) -> tuple[list[Finding], HTTPStatus]:
    if not may_test(request):
        return [], HTTPStatus.TOO_MANY_REQUESTS
    try:
        return examine_within_bounds(server), HTTPStatus.OK
    except AnotherRun:
        model_admin.message_user(request, "Other checks are running: try again in a minute.", messages.WARNING)
        return [], HTTPStatus.SERVICE_UNAVAILABLE


def _shown(finding: Finding, server: AuthorizationServer) -> dict[str, Any]:
    label, address = "", ""
    if finding.field:
        label = label_of(finding.field)
        address = reverse("admin:brands_authorizationserver_change", args=[server.pk])
        address += "" if finding.field in _SHOWN_ONLY else f"#id_{finding.field}"
    return {"finding": finding, "mark": _MARKS[finding.verdict], "label": label, "address": address}


def _summary(findings: list[Finding]) -> str:
    problems = sum(finding.verdict == Verdict.PROBLEM for finding in findings)
    if problems:
        return "One problem has to be fixed." if problems == 1 else f"{problems} problems have to be fixed."
    if any(finding.verdict == Verdict.NOTE for finding in findings):
        return "No problem was found. The notes say what only a sign-in can tell, or what may be worth a look."
    return "Everything that can be proven without a sign-in is proven."
