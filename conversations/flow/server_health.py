"""The health of a brand's servers: when one counts as failing, and who is told, once.

Two things can be wrong: what the daily check finds (`brands.doctor.run_health_check`), and that most sign-ins fail on
the server's side. Each decision is made under the lock of the server's row. So of several workers, and after a restart,
one marks the server and writes the audit row, the webhook event and the mails. A second cause, or another one, changes
the words of the mark and tells nobody again.

One failed check is not enough: a time-out or a restart of the server must not wake anybody. The check is repeated after
five minutes, and only a second failure counts. While the server fails, it is checked every 15 minutes to an hour; one
good check ends it.
"""

import logging
from datetime import datetime, timedelta
from secrets import randbelow
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from brands.audited_changes import BrandEvent, mail_admins, name_on_one_line
from brands.doctor import CheckResult
from brands.models import AuthorizationServer, ServerHealth, ServerProblem, WebhookEvent
from conversations.flow.events import publish_for_brand
from infrastructure import rate_limits
from infrastructure.audit import SYSTEM, record_event
from infrastructure.leases import LEASE
from infrastructure.outbox import pause_after

SECOND_CHECK_AFTER: Final = timedelta(minutes=5)
FIRST_PAUSE_WHILE_FAILING: Final = timedelta(minutes=15)
LONGEST_PAUSE_WHILE_FAILING: Final = timedelta(hours=1)
# Sign-ins recover only after this time without most of them failing, so that a server that comes and goes makes at most
# one pair of mails in an hour.
SIGN_INS_RECOVER_AFTER: Final = timedelta(hours=1)
# Without any sign-in there is no proof that they work again.
SIGN_INS_FORGOTTEN_AFTER: Final = timedelta(days=1)
# The column is small, and a server may fail for years.
_MOST_ATTEMPTS: Final = 1_000

_CHANGING: Final = (
    "next_attempt_at", "lease_until", "attempts", "checked_at", "suspected_at", "check_problems", "sign_ins_failed_at",
    "sign_in_problems", "failing_since",
)  # fmt: skip

logger = logging.getLogger("consumer_delegation.server_health")


def keep_rows(now: datetime) -> None:
    """Give each active server a row, with its first check at a random time of the interval; delete all others.

    The mark of a server goes with its row, and so nobody is told that it works again.
    """
    interval = timedelta(hours=settings.HEALTH_CHECK_INTERVAL_HOURS)
    if not interval:
        ServerHealth.objects.all().delete()
        return
    ServerHealth.objects.exclude(pk__in=ServerHealth.objects.of_active_servers().values("pk")).delete()
    without = AuthorizationServer.objects.active().filter(brand__is_active=True, health=None)
    minutes = int(interval / timedelta(minutes=1))
    ServerHealth.objects.bulk_create(
        [
            ServerHealth(authorization_server=server, next_attempt_at=now + timedelta(minutes=randbelow(minutes)))
            for server in without.only("pk")
        ],
        ignore_conflicts=True,  # another worker does the same
    )
    # A shorter interval than before, or the time of a wrong clock.
    ServerHealth.objects.filter(next_attempt_at__gt=now + interval).update(next_attempt_at=now + SECOND_CHECK_AFTER)


def store_check(leased: ServerHealth, result: CheckResult) -> None:
    """Store what a check found. Does nothing if the lease has passed to another worker: safe to call again."""
    lease_until = leased.lease_until
    if lease_until is None:
        return
    # Not the clock of now: the moment must not tell how long the check took (N9).
    checked_at = lease_until - LEASE
    with transaction.atomic():
        row = _locked(pk=leased.pk, lease_until=lease_until)
        if row is None:
            return
        row.lease_until = None
        if result.problems:
            _found_problems(row, result.problems, checked_at)
        elif result.is_finished:
            row.suspected_at, row.check_problems, row.attempts = None, [], 0
        row.checked_at, row.next_attempt_at = checked_at, checked_at + _pause(row, result)
        _settle(row, since=row.suspected_at or checked_at, now=checked_at)


def _found_problems(row: ServerHealth, problems: list[ServerProblem], checked_at: datetime) -> None:
    if row.suspected_at is None:
        row.suspected_at, row.attempts = checked_at, 1
    else:
        row.check_problems, row.attempts = problems, min(row.attempts, _MOST_ATTEMPTS)


def _pause(row: ServerHealth, result: CheckResult) -> timedelta:
    if row.check_problems:
        return pause_after(max(row.attempts - 1, 1), FIRST_PAUSE_WHILE_FAILING, LONGEST_PAUSE_WHILE_FAILING)
    if row.suspected_at:
        return SECOND_CHECK_AFTER
    if not result.is_finished:
        return LONGEST_PAUSE_WHILE_FAILING
    return timedelta(hours=settings.HEALTH_CHECK_INTERVAL_HOURS)


def note_failing_sign_ins(health_pk: int, problem: ServerProblem, now: datetime) -> None:
    """Store that most sign-ins at a server fail on its side."""
    with transaction.atomic():
        if row := _locked(pk=health_pk):
            row.sign_ins_failed_at, row.sign_in_problems = now, [problem]
            _settle(row, since=now, now=now)


def note_working_sign_ins(health_pk: int, now: datetime, *, proven: bool) -> None:
    """Store that sign-ins do not fail any more. `proven` says that some succeeded; without, it takes a day."""
    wait = SIGN_INS_RECOVER_AFTER if proven else SIGN_INS_FORGOTTEN_AFTER
    with transaction.atomic():
        row = _locked(pk=health_pk, sign_ins_failed_at__lte=now - wait)
        if row:
            row.sign_ins_failed_at, row.sign_in_problems = None, []
            _settle(row, since=now, now=now)


def _locked(**lookup: Any) -> ServerHealth | None:
    """Lock and return the row of an active server."""
    rows = ServerHealth.objects.of_active_servers().select_related("authorization_server__brand")
    return rows.select_for_update(of=("self",), no_key=True).filter(**lookup).first()


def _settle(row: ServerHealth, *, since: datetime, now: datetime) -> None:
    """Save the row. Tell the brand if its server has just begun to fail, or works again."""
    if row.problems and row.failing_since is None:
        row.failing_since = since
        _tell(row, WebhookEvent.SERVER_FAILING, now)
    elif not row.problems and row.failing_since is not None:
        _tell(row, WebhookEvent.SERVER_RECOVERED, now)
        row.failing_since = None
    row.save(update_fields=_CHANGING)


def _tell(row: ServerHealth, event: WebhookEvent, now: datetime) -> None:
    """Write the audit row and the webhook event, and mail the brand's admins after the commit."""
    server, codes = row.authorization_server, [problem["code"] for problem in row.problems]
    record_event(
        BrandEvent(event.value),
        brand_uuid=server.brand.uuid,
        actor=SYSTEM,
        now=now,
        outcome=codes[0] if codes else "",
        object_uuid=server.uuid,
    )
    data: dict[str, Any] = {"authorization_server": server.key, "failing_since": row.failing_since}
    data |= {"problems": list(dict.fromkeys(codes))} if codes else {"recovered_at": now}
    publish_for_brand(server.brand_id, event, data, now)
    subject, text = _mail(row)
    transaction.on_commit(lambda: _send_within_limit(server, subject, text), robust=True)
    named = {"brand": server.brand.slug, "server": server.key, "authorization_server": str(server.uuid)}
    logger.warning(event.value, extra={**named, "problems": codes})


def _send_within_limit(server: AuthorizationServer, subject: str, text: list[str]) -> None:
    try:
        rate_limits.count(rate_limits.HEALTH_MAILS_PER_BRAND, str(server.brand.uuid))
    except rate_limits.RateLimited:
        logger.warning("too many mails about one brand's servers", extra={"authorization_server": str(server.uuid)})
    else:
        mail_admins(server.brand, subject, text)


def _mail(row: ServerHealth) -> tuple[str, list[str]]:
    """Return subject and text. They name no endpoint, as its path may hold a secret."""
    server = row.authorization_server
    brand, page = name_on_one_line(server.brand), "admin:brands_authorizationserver_"
    since = f"{row.failing_since:%Y-%m-%d %H:%M} UTC"
    if not row.problems:
        subject = f"{brand}: authorization server {server.key} works again"
        lines = [f"It had been failing since {since}. Nothing is left to do.", ""]
        return subject, [*lines, settings.PUBLIC_BASE_URL + reverse(f"{page}change", args=[server.pk])]
    lines = [
        f"Since {since}, consumers of {brand} may be unable to sign in at the authorization server {server.key}.",
        "",
    ]
    for problem in row.problems:
        lines += [_said(problem), f"What to do: {problem['remedy']}", ""] if problem["remedy"] else [_said(problem), ""]
    return f"{brand}: authorization server {server.key} is failing", [
        *lines,
        "Check the set-up, which says more:",
        settings.PUBLIC_BASE_URL + reverse(f"{page}doctor", args=[server.pk]),
        "",
        "You get one more mail, when it works again. If it is not in use, switch it off.",
    ]


def _said(problem: ServerProblem) -> str:
    return f"{problem['label']}: {problem['meaning']}" if problem["label"] else problem["meaning"]
