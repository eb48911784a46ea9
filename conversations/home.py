"""The figures of a brand's home page for a period, read from the hourly counts with one query."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil, inf
from typing import Any, Final

from django.db.models import Case, F, Subquery, Sum, Value, When

from brands.models import BotKey, Brand, ServerHealth, memberships_of
from conversations.models import ChallengeStatus, CountedAuditLog, HourlyCount
from conversations.statistics import ANSWERED, CONFIRMED, ISSUED, LEFT, OVER, RETURNED, TOKEN
from oauth_client import MEANINGS

_Measure = HourlyCount.Measure

STEPS: Final = {
    ISSUED: "Link issued",
    LEFT: "Left for the brand",
    RETURNED: "Came back",
    TOKEN: "Token issued",
    CONFIRMED: "Confirmed",
}
DURATIONS: Final = {
    _Measure.UNTIL_LEFT: "Link issued to left for the brand",
    _Measure.UNTIL_RETURNED: "Left for the brand to came back",
    _Measure.UNTIL_TOKEN: "Came back to token issued",
    _Measure.UNTIL_CONFIRMED: "Token issued to confirmed",
    _Measure.TOKEN_REQUEST_TIME: "Token endpoint",
}
_OUTCOMES: Final = {
    ChallengeStatus.COMPLETED: "The bot got a token.",
    ChallengeStatus.DENIED: "The consumer, or the server itself, said no.",
    ChallengeStatus.EXPIRED: "The link or the code was not used in time.",
    ChallengeStatus.SUPERSEDED: "Replaced by a newer link.",
    ChallengeStatus.WITHDRAWN: "Taken back: by the bot, by an admin, or because the chat was closed.",
    ChallengeStatus.CANCELLED: "The consumer said that it was not them, or took the access back later.",
}
# The page warns if the counts are older. The worker counts once a minute.
STALE_AFTER: Final = timedelta(minutes=5)
# No warning for fewer sign-ins or requests: one consumer may have closed the page.
ENOUGH: Final = 5
MOST_MARKS: Final = 20
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Period:
    """Some whole hours or days (UTC) up to now. The current hour or day is the last."""

    key: str
    name: str
    unit: str
    length: timedelta
    count: int

    def beginning(self, moment: datetime) -> datetime:
        """Return the beginning of the hour or day that a moment is in."""
        hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return hour.replace(hour=0) if self.unit == "day" else hour

    def moments(self, now: datetime) -> list[datetime]:
        """Return the beginning of each hour or day of the period."""
        last = self.beginning(now)
        return [last - self.length * ago for ago in reversed(range(self.count))]


PERIODS: Final = {
    period.key: period
    for period in (
        Period("24h", "24 hours", "hour", _HOUR, 24),
        Period("7d", "7 days", "day", _DAY, 7),
        Period("30d", "30 days", "day", _DAY, 30),
    )
}


@dataclass(frozen=True)
class Step:
    """A step of the funnel: how many challenges reached it, and how many of the step before did not."""

    name: str
    times: int
    lost: int | None
    lost_percent: int | None


@dataclass(frozen=True)
class Reason:
    """How often something ended with one outcome or error code, and what the code means."""

    code: str
    times: int
    cause: str
    remedy: str = ""


@dataclass(frozen=True)
class Quantiles:
    """How long something took: median and 95th percentile, each as the upper bound of a bucket."""

    name: str
    times: int
    median: str
    p95: str


@dataclass(frozen=True)
class Point:
    """One hour or day."""

    at: datetime
    issued: int
    confirmed: int


@dataclass(frozen=True)
class Report:
    """What happened at one brand in one period."""

    brand: Brand
    period: Period
    steps: list[Step]
    points: list[Point]
    outcomes: list[Reason]
    errors: list[Reason]
    durations: list[Quantiles]
    token_endpoint: Quantiles
    token_requests: int
    token_errors: list[Reason]

    @property
    def is_empty(self) -> bool:
        return not any(step.times for step in self.steps) and not self.outcomes and not self.errors

    @property
    def warnings(self) -> list[str]:
        """Return a sentence for each sign of a fault of the server, or of its settings here."""
        found = []
        left, returned = (step.times for step in self.steps[1:3])
        if left >= ENOUGH and not returned:
            found.append(
                f"{left:,} sign-ins left for your server and none came back. Is the redirect URI registered there, "
                "exactly as the server's page here shows it?"
            )
        if self.token_requests >= ENOUGH and 2 * sum(error.times for error in self.token_errors) > self.token_requests:
            found.append("More than half of the requests to the token endpoint failed: see the errors below.")
        return found

    @property
    def token_error_percent(self) -> str:
        failed = sum(reason.times for reason in self.token_errors)
        return f"{100 * failed / self.token_requests:.1f}" if self.token_requests else "0.0"


def brands_of(user: Any) -> list[Brand]:
    """Return an admin's brands, each with `counted_at`: until when the audit log is counted."""
    counted_at = Subquery(CountedAuditLog.objects.values("counted_at")[:1])
    return list(Brand.objects.visible_to(user).annotate(counted_at=counted_at).order_by("name", "pk"))


@dataclass(frozen=True)
class Mark:
    """Something of a brand that needs a look: a server that fails, or a key that reads or calls unusually much."""

    # "server", "reads" or "calls".
    kind: str
    pk: int
    name: str
    brand: str
    since: datetime
    # Whether the reader may call the server, and change the key (J15).
    is_administered: bool


def marks_of(user: Any, now: datetime) -> list[Mark]:
    """Return the newest marks of an admin's brands. One query."""
    servers = ServerHealth.objects.visible_to(user).failing().order_by()
    of = "authorization_server"
    rows = servers.annotate(kind=Value("server")).values_list(
        "kind", f"{of}_id", f"{of}__key", f"{of}__brand__name", "failing_since", f"{of}__brand_id"
    )
    for kind, marked_at in (("reads", "reads_unusual_at"), ("calls", "calls_unusual_at")):
        keys = BotKey.objects.visible_to(user).with_unusual(marked_at, now).order_by().annotate(kind=Value(kind))
        # Django 6.1 gives a union the order of the model, by a column that this one has not.
        rows = rows.union(keys.values_list("kind", "pk", "label", "brand__name", marked_at, "brand_id")).order_by()
    own = None if user.is_superuser else memberships_of(user).administered
    marks = [
        Mark(kind, pk, name, brand, since, is_administered=own is None or brand_pk in own)
        for kind, pk, name, brand, since, brand_pk in rows
    ]
    return sorted(marks, key=lambda mark: mark.since, reverse=True)[:MOST_MARKS]


def report(brand: Brand, period: Period, now: datetime) -> Report:
    """Read the counts of a period, and build the report."""
    moments = period.moments(now)
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    series: dict[datetime, Counter[str]] = defaultdict(Counter)
    for at, measure, detail, times in _rows(brand, moments[0], now):
        sums[measure][detail] += times
        if at is not None:
            series[period.beginning(at)][detail] += times
    token_requests = sums[_Measure.TOKEN_REQUEST]
    return Report(
        brand,
        period,
        steps=_funnel(sums[_Measure.STEP]),
        points=[Point(at, series[at][ISSUED], series[at][CONFIRMED]) for at in moments],
        outcomes=_by_reason(sums[_Measure.OUTCOME]),
        errors=_by_reason(sums[_Measure.ERROR]),
        durations=[
            _quantiles(name, sums[measure])
            for measure, name in DURATIONS.items()
            if measure != _Measure.TOKEN_REQUEST_TIME
        ],
        token_endpoint=_quantiles(DURATIONS[_Measure.TOKEN_REQUEST_TIME], sums[_Measure.TOKEN_REQUEST_TIME]),
        token_requests=token_requests.total(),
        token_errors=_by_reason(Counter({code: n for code, n in token_requests.items() if code != ANSWERED})),
    )


def _rows(brand: Brand, since: datetime, until: datetime) -> Iterable[tuple[datetime | None, str, str, int]]:
    """Return sums of counts: of steps for each hour, and of everything else for the whole period (hour None)."""
    rows = HourlyCount.objects.filter(brand=brand, hour__range=(since, until)).order_by()
    by_hour = rows.annotate(at=Case(When(measure=_Measure.STEP, then=F("hour")))).values("at", "measure", "detail")
    return by_hour.annotate(sum=Sum("times")).values_list("at", "measure", "detail", "sum")


def _funnel(times: Counter[str]) -> list[Step]:
    """Return the steps. A loss is never negative, even if challenges that began before the period went on in it."""
    steps: list[Step] = []
    for key, name in STEPS.items():
        before = steps[-1].times if steps else None
        lost = None if before is None else max(before - times[key], 0)
        percent = None if lost is None else round(100 * lost / before) if before else 0
        steps.append(Step(name, times[key], lost, percent))
    return steps


def _by_reason(times: Counter[str]) -> list[Reason]:
    """Return the reasons, the most frequent first."""
    return [_reason(code, number) for code, number in sorted(times.items(), key=lambda item: (-item[1], item[0]))]


def _reason(code: str, times: int) -> Reason:
    """Explain an outcome or error code. The outcome of a failed challenge is `failed:` and an error code."""
    if code in _OUTCOMES:
        return Reason(code, times, _OUTCOMES[ChallengeStatus(code)])
    meaning = MEANINGS.get(code.removeprefix("failed:"))
    if meaning is None:
        return Reason(code, times, "")
    return Reason(code, times, meaning.plain_cause, meaning.plain_remedy)


def _quantiles(name: str, buckets: Counter[str]) -> Quantiles:
    return Quantiles(name, buckets.total(), _quantile(buckets, 0.5), _quantile(buckets, 0.95))


def _quantile(buckets: Counter[str], share: float) -> str:
    """Return the upper bound of the bucket that holds this quantile; an empty string if nothing was measured."""
    below, wanted = 0, max(ceil(share * buckets.total()), 1)
    for bound in sorted(buckets, key=lambda bound: inf if bound == OVER else int(bound)):
        below += buckets[bound]
        if below >= wanted:
            return in_words(bound)
    return ""


def in_words(bound: str) -> str:
    """Return a bucket's bound as people write durations: 0.5 s, 45 s, 2 min."""
    if bound == OVER:
        return "over 1 h"
    seconds = int(bound) / 1_000
    if seconds < 60:  # noqa: PLR2004  a minute
        return f"{seconds:g} s"
    minutes = seconds / 60
    return f"{minutes:g} min" if seconds < _HOUR.total_seconds() else "1 h"
