"""The standing health check: the worker checks each active server once a day, and watches how sign-ins go.

The checks are a queue of the worker with threads of its own, so they delay no delivery and no revocation. The minute's
part (`watch`) costs the same few queries however many brands there are, and one more for each server of a brand whose
sign-ins fail.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db.models import DateTimeField, Q, QuerySet, Sum

from brands.doctor import found, run_health_check
from brands.models import AuthorizationServer, ServerHealth, ServerProblem
from conversations.flow.server_health import keep_rows, note_failing_sign_ins, note_working_sign_ins, store_check
from conversations.flow.unusual_rates import tell_unusual_rates
from conversations.models import AuthorizationRequest, Challenge, HourlyCount
from infrastructure.compiled import CompiledRows, Parameter
from infrastructure.leases import Outbox, Places
from oauth_client import MEANINGS, ErrorCode

# Ten failures in this hour and the one before, in five conversations: one consumer who tries ten times is no outage.
# More than half, as on the first page of the admin; the page warns earlier, because it wakes nobody.
ENOUGH_FAILURES: Final = 10
ENOUGH_CONVERSATIONS: Final = 5
# The newest challenges of a server are looked at, so that a busy one costs no more.
_CHALLENGES_LOOKED_AT: Final = 200
# At most so many servers in one pass, in a random order: if our own network fails, all of them seem to.
_SERVERS_AT_ONCE: Final = 50

# The server gave no answer. The brand's admin reads one sentence for all of these (N9).
_UNANSWERED: Final = frozenset({
    *(ErrorCode.TOKEN_ENDPOINT_TIMEOUT, ErrorCode.TOKEN_ENDPOINT_UNREACHABLE),
    *(ErrorCode.PAR_ENDPOINT_TIMEOUT, ErrorCode.PAR_ENDPOINT_UNREACHABLE),
    *(ErrorCode.SUBJECT_ENDPOINT_TIMEOUT, ErrorCode.SUBJECT_ENDPOINT_UNREACHABLE),
})  # fmt: skip
# Failures of token requests that only the server can cause. A consumer's browser can bring back an invented code, for
# which a server may say `invalid_grant` or `invalid_request`, and an invented error, which is no token request.
_OF_TOKEN_REQUESTS: Final = frozenset({
    *(code for code in _UNANSWERED if code.startswith("token_")),
    ErrorCode.INVALID_CLIENT, ErrorCode.INVALID_TOKEN_RESPONSE, ErrorCode.SERVER_ERROR,
    ErrorCode.TEMPORARILY_UNAVAILABLE, ErrorCode.UNAUTHORIZED_CLIENT, ErrorCode.UNSUPPORTED_GRANT_TYPE,
})  # fmt: skip
# Failures before the browser leaves, and after a token was issued.
_OF_OTHER_REQUESTS: Final = frozenset({
    *(_UNANSWERED - _OF_TOKEN_REQUESTS), ErrorCode.INVALID_PAR_RESPONSE,
    ErrorCode.INVALID_ID_TOKEN, ErrorCode.JWKS_UNAVAILABLE,
    ErrorCode.INVALID_SUBJECT_RESPONSE, ErrorCode.SUBJECT_ENDPOINT_BUSY, ErrorCode.SUBJECT_REQUEST_REFUSED,
})  # fmt: skip
_ON_THE_SERVERS_SIDE: Final = _OF_TOKEN_REQUESTS | _OF_OTHER_REQUESTS
_COUNTED: Final = Q(measure=HourlyCount.Measure.TOKEN_REQUEST, detail__in=_OF_TOKEN_REQUESTS) | Q(
    measure=HourlyCount.Measure.ERROR, detail__in=_OF_OTHER_REQUESTS
)
_HOUR: Final = timedelta(hours=1)
_OUTBOX: Final = Outbox(
    "authorization_server",
    lambda: ServerHealth.objects.of_active_servers().select_related("authorization_server__brand"),
    AuthorizationServer.objects.active,
)
_DUE: Final = CompiledRows(
    lambda: (
        ServerHealth.objects.of_active_servers()
        .filter(next_attempt_at__lte=Parameter("now", DateTimeField()))
        .values_list("pk")[:1]
    )
)


def lease_checks(now: datetime, limit: int) -> list[ServerHealth]:
    """Lease the servers whose check is due, within the limits of `infrastructure.leases`. Usually one cheap query."""
    if not settings.HEALTH_CHECK_INTERVAL_HOURS or not _DUE.rows(now=now):
        return []
    return [row for (row,) in _OUTBOX.lease(now, limit, Places())]


def attempt_check(health: ServerHealth) -> Callable[[], None]:
    """Check one server. Return a function that stores the result. Blocks for up to 10 seconds."""
    return partial(store_check, health, run_health_check(health.authorization_server))


def watch(now: datetime) -> None:
    """Do the minute's part. It sends nothing to a brand's server."""
    keep_rows(now)
    tell_unusual_rates(now)
    for health in _servers_to_judge(now):
        _judge(health, now)


def _since(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0) - _HOUR


def _servers_to_judge(now: datetime) -> QuerySet[ServerHealth]:
    """Return the servers of brands with enough failures by the hourly counts, and those that failed before."""
    counts = HourlyCount.objects.filter(_COUNTED, hour__gte=_since(now), hour__lte=now).order_by()
    brands = counts.values("brand").annotate(failed=Sum("times")).filter(failed__gte=ENOUGH_FAILURES)
    suspected = list(brands.values_list("brand", flat=True))
    judged = Q(authorization_server__brand__in=suspected) | Q(sign_ins_failed_at__isnull=False)
    return ServerHealth.objects.of_active_servers().filter(judged).order_by("?")[:_SERVERS_AT_ONCE]


def _judge(health: ServerHealth, now: datetime) -> None:
    """Decide by the newest sign-ins of the server. Between a quarter and a half of failures, nothing changes."""
    newest = Challenge.objects.filter(authorization_server=health.authorization_server_id).order_by("-id").values("pk")
    requests = AuthorizationRequest.objects.filter(
        challenge__in=newest[:_CHALLENGES_LOOKED_AT], finished_at__gte=_since(now), finished_at__lte=now
    )
    ended = list(requests.values_list("error", "challenge__conversation_id"))
    codes = Counter(error for error, _ in ended if error in _ON_THE_SERVERS_SIDE)
    conversations = {conversation for error, conversation in ended if error in codes}
    failed = codes.total()
    if failed >= ENOUGH_FAILURES and len(conversations) >= ENOUGH_CONVERSATIONS and 2 * failed > len(ended):
        note_failing_sign_ins(health.pk, _problem(codes, failed, len(ended)), now)
    elif health.sign_ins_failed_at is not None:
        succeeded = any(not error for error, _ in ended)
        if succeeded and 4 * failed < len(ended):
            note_working_sign_ins(health.pk, now, proven=True)
        elif not failed:
            note_working_sign_ins(health.pk, now, proven=False)


def _problem(codes: Counter[str], failed: int, ended: int) -> ServerProblem:
    said = f"{failed} of the last {ended} sign-ins failed at your server"
    code = codes.most_common(1)[0][0]
    if code in _UNANSWERED:
        no_answer = found("no_answer")
        meaning, remedy = f"{said}, most of them like this: {no_answer.meaning}", no_answer.remedy
    else:
        row = MEANINGS[code]
        meaning, remedy = f"{said}, most of them with {code}: {row.plain_cause}", row.plain_remedy
    return ServerProblem(code="sign_ins_fail", label="", meaning=meaning, remedy=remedy)
