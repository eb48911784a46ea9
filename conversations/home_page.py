"""The admin's first page with the report of one of the admin's brands, and the same report as a CSV file."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any, Final

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from brands.models import Brand
from brands.scoped_admin import administers
from conversations import charts
from conversations.home import PERIODS, STALE_AFTER, Period, Report, brands_of, marks_of, report

_MOST_NAMED: Final = 5
_DEFAULT_PERIOD: Final = "24h"
# A cell that begins with one of these is a formula to a spreadsheet (J11, CWE-1236).
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


@require_safe
@admin.site.admin_view
def index(request: HttpRequest) -> HttpResponse:
    """`GET /admin/`: the admin's index; above it the report of the chosen brand, or of the only brand."""
    now, brands = timezone.now(), brands_of(request.user)
    brand, period = _chosen_brand(request, brands), _chosen_period(request)
    context: dict[str, Any] = {"brands": brands, "chosen": brand, "period": period, "periods": PERIODS.values()}
    context["marks"] = marks_of(request.user, now) if brands else []
    if brand is not None:
        found = report(brand, period, now)
        counted_at = brand.counted_at  # type: ignore[attr-defined]  # annotated
        context |= {
            "report": found,
            "administers": administers(request, brand),
            "admins": _whom_to_ask(request, brand) if found.is_empty else [],
            "funnel": charts.funnel(found.steps),
            "columns": charts.columns(found.points),
            "counted_at": counted_at,
            "is_stale": counted_at is None or now - counted_at > STALE_AFTER,
        }
    return admin.site.index(request, extra_context={"home": context})


@require_safe
@admin.site.admin_view
def as_csv(request: HttpRequest) -> HttpResponse:
    """`GET /admin/home.csv`: the tables of the page."""
    brand, period = _chosen_brand(request, brands_of(request.user)), _chosen_period(request)
    if brand is None:
        raise Http404
    disposition = f'attachment; filename="{brand.slug}-{period.key}.csv"'
    response = HttpResponse(content_type="text/csv; charset=utf-8", headers={"Content-Disposition": disposition})
    writer = csv.writer(response)
    for row in _rows(report(brand, period, timezone.now())):
        writer.writerow(_harmless(row))
    return response


def _chosen_brand(request: HttpRequest, brands: list[Brand]) -> Brand | None:
    """Return the brand that the URL names, or the only brand. Raises `Http404` for another brand (J1)."""
    slug = request.GET.get("brand")
    if slug is None:
        return brands[0] if len(brands) == 1 else None
    found = next((brand for brand in brands if brand.slug == slug), None)
    if found is None:
        raise Http404
    return found


def _whom_to_ask(request: HttpRequest, brand: Brand) -> list[str]:
    """Return names of the brand's admins, for a viewer, who cannot set anything up."""
    if administers(request, brand):
        return []
    admins = brand.admins.filter(is_active=True).order_by("username")
    return list(admins.values_list("username", flat=True)[:_MOST_NAMED])


def _chosen_period(request: HttpRequest) -> Period:
    """Return the period that the URL names. Raises `Http404` for an unknown name."""
    try:
        return PERIODS[request.GET.get("period", _DEFAULT_PERIOD)]
    except KeyError:
        raise Http404 from None


def _rows(found: Report) -> Iterator[tuple[object, ...]]:
    yield "table", "name", "number", "lost", "lost_percent", "median", "p95"
    for step in found.steps:
        lost = ("", "") if step.lost is None else (step.lost, step.lost_percent)
        yield "funnel", step.name, step.times, *lost, "", ""
    for table, reasons in (
        ("outcomes", found.outcomes),
        ("errors", found.errors),
        ("token endpoint errors", found.token_errors),
    ):
        for reason in reasons:
            yield table, reason.code, reason.times, "", "", "", ""
    yield "token endpoint requests", "", found.token_requests, "", "", "", ""
    for timed in (*found.durations, found.token_endpoint):
        yield "durations", timed.name, timed.times, "", "", timed.median, timed.p95
    for name in ("issued", "confirmed"):
        for point in found.points:
            yield f"{name} by {found.period.unit}", point.at.isoformat(), getattr(point, name), "", "", "", ""


def _harmless(row: Iterable[object]) -> list[str]:
    cells = [str(cell) for cell in row]
    return [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
