"""How PostgreSQL reaches the rows of each operation, against what is expected: nodes are counted, not milliseconds.

Expected is what stands in tests/query_plans. A lost index shows as a line that says `whole`. After a change that is
meant: `WRITE_QUERY_PLANS=1`, and look at the difference as at any other.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, ServerHealth
from conversations.flow import read_counts
from conversations.flow.retention import MOST_IDLE_CLOSED, _idle_sessions, prune, sweep
from conversations.flow.server_health import keep_rows
from conversations.models import AccessToken, Conversation
from conversations.outbox.health_checks import watch
from conversations.outbox.revocations import lease_revocations
from tests.admin_pages import AdminBrowser
from tests.brand_api import make_api
from tests.cast import ACME_SECRET, Bot, Browser, code_on, make_bot, make_server
from tests.fake_authorization_server import FakeAuthorizationServer, mounted
from tests.large_tables import fill

FOLDER: Final = Path(__file__).parent / "query_plans"
# The tables that grow; on the others, with a row for each brand, reading all of them is right.
LARGE: Final = ("conversations_", "infrastructure_", "audit_log_")
# A partition of the audit log, or an index of one: they are named for months, and all are reached in the same way.
MONTH: Final = re.compile(r"audit_log_([0-9]{4}_[0-9]{2}|rest)")
# Small ones among them: how PostgreSQL reaches these depends on the pages that earlier tests left.
SMALL: Final = frozenset({"conversations_trialsignin"})
EMPTY_MONTHS: Final = """SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'infrastructure_auditevent'::regclass AND reltuples <= 0"""

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.timeout(300),  # the tables are filled once for all, in the first test
]


@dataclass
class Recorder:
    """Asks PostgreSQL for the plan of every statement, just before it is run with the same values."""

    small: frozenset[str]
    reached: set[str] = field(default_factory=set)

    def __call__(self, execute: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if sql.split(maxsplit=1)[0] in {"SELECT", "UPDATE", "DELETE", "WITH", "EXECUTE"}:
            with connection.connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
                (plans,) = cursor.fetchone()
            self.reached.update(line for plan in plans for line in self._reached(plan["Plan"]))
        return execute(sql, parameters, many, context)

    def _reached(self, node: dict[str, Any], table: str = "") -> Iterator[str]:
        """Return how a plan reaches each large table: by which index, or by reading it whole.

        A bitmap of an index (`Bitmap Index Scan`) does not name its table; the node above it does (`table`).
        How a small table is reached says nothing: it depends on the pages that earlier tests left empty in it.
        """
        table, index = node.get("Relation Name", table), node.get("Index Name")
        if (
            table.startswith(LARGE)
            and table not in self.small
            and "Scan" in node["Node Type"]
            and node["Node Type"] != "Bitmap Heap Scan"
        ):
            yield MONTH.sub("audit_log_month", f"index {index}" if index else f"whole {table}")
        for child in node.get("Plans", []):
            yield from self._reached(child, table if node["Node Type"].startswith("Bitmap") else "")


@dataclass(frozen=True)
class Stage:
    """Acme among ten brands in tables that are large, with a chat that was just authorized and one that waits."""

    bot: Bot
    waiting: Bot
    challenge: dict[str, Any]
    login: FakeAuthorizationServer
    admin: AdminBrowser
    operator: AdminBrowser

    def sign_in(self) -> None:
        """Go the way of a link, from its page to the completion code in the chat."""
        browser = Browser()
        code = code_on(browser.sign_in(self.challenge["url"], self.login))
        assert self.waiting.complete(code)[0] == 200

    def idle_sessions(self) -> None:
        """Look for sessions to close, as each sweep does for a brand that wants it."""
        brand = Brand.objects.get(slug="brand-1")
        brand.close_idle_after = 60
        list(_idle_sessions(brand, timezone.now())[:MOST_IDLE_CLOSED])

    def open_first_page(self) -> None:
        """Open the admin's first page for a day."""
        assert self.admin.get("/admin/", period="24h").status_code == 200

    def timeline(self) -> None:
        """Open the conversation's page and its history as the brand's admin."""
        row = Conversation.objects.get(external_id=self.bot.chat)
        for page in ("change", "history"):
            assert self.admin.get(f"/admin/conversations/conversation/{row.pk}/{page}/").status_code == 200

    def server_in_admin(self) -> None:
        """Open the server's page, which counts the sign-ins that did not come back."""
        row = AuthorizationServer.objects.get(brand__slug="acme")
        assert self.admin.get(f"/admin/brands/authorizationserver/{row.pk}/change/").status_code == 200

    def watch(self) -> None:
        """Do the worker's minute of the health check, with every server's sign-ins to be judged."""
        now = timezone.now()
        keep_rows(now)
        ServerHealth.objects.update(sign_ins_failed_at=now)
        watch(now)

    def list_in_admin(self, browser: str, model: str, **query: str) -> None:
        """Open a list of the admin."""
        page = getattr(self, browser).get(f"/admin/{model}/", **query)
        assert page.status_code == 200


def _set_up(login: FakeAuthorizationServer) -> Stage:
    brands = [Brand.objects.create(name=f"Brand {number}", slug=f"brand-{number}") for number in range(9)]
    acme = Brand.objects.create(name="Acme", slug="acme")
    server = make_server(acme)
    login.redirect_uri = server.redirect_uri
    fill([server, *(make_server(brand) for brand in brands)])
    make_api(server, login.issuer)
    bot = make_bot(acme)
    assert bot.complete(code_on(Browser().sign_in(bot.challenge()["url"], login)))[0] == 200
    waiting = Bot(bot.key, "web:waits")
    users = get_user_model().objects
    admin, operator = users.create_user("ada", is_staff=True), users.create_superuser("operator")
    acme.admins.add(admin)
    due = AccessToken.objects.filter(ended_at=None).exclude(conversation__external_id=bot.chat).order_by("pk")[:10]
    AccessToken.objects.filter(pk__in=[token.pk for token in due]).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    return Stage(bot, waiting, waiting.challenge(), login, AdminBrowser(admin), AdminBrowser(operator))


def _empty_months() -> frozenset[str]:
    """Return the partitions of the audit log without a row: reading one of them whole is right."""
    with connection.cursor() as cursor:
        cursor.execute(EMPTY_MONTHS)
        return frozenset(name for (name,) in cursor.fetchall())


def _keep_all_in_memory() -> None:
    """Tell the planner that no table is on a slow disk: it would read small ones whole for that reason alone."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL random_page_cost = 1.1")
        # As a connection plans that has run the statement often: for any values.
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")


OPERATIONS: dict[str, Callable[[Stage], Any]] = {
    "token_read": lambda stage: stage.bot.token(),
    "call": lambda stage: stage.bot.in_chat("POST", "/calls/orders.list", {}),
    "authorize": lambda stage: stage.bot.in_chat("POST", "/authorize", {}),
    "conversation_read": lambda stage: stage.bot.status(),
    "challenge_read": lambda stage: stage.bot.read_challenge(stage.challenge),
    "challenge_created": lambda stage: Bot(stage.bot.key, "web:new").challenge(),
    "challenge_handed_out_again": lambda stage: stage.waiting.in_chat("POST", "/challenges", {}),
    "link_opened": lambda stage: Browser().get(stage.challenge["url"]),
    "sign_in": lambda stage: stage.sign_in(),
    "token_ended": lambda stage: stage.bot.in_chat("DELETE", "/token"),
    "conversation_closed": lambda stage: stage.bot.in_chat("DELETE"),
    "timeline": lambda stage: stage.timeline(),
    "server_in_admin": lambda stage: stage.server_in_admin(),
    "outbox": lambda _: lease_revocations(timezone.now(), 8),
    "sweep": lambda _: sweep(timezone.now()),
    "idle_sessions": lambda stage: stage.idle_sessions(),
    "watch": lambda stage: stage.watch(),
    "first_page_of_the_admin": lambda stage: stage.open_first_page(),
    "purge": lambda _: prune(timezone.now() - timedelta(days=30)),
} | {
    f"list_of_{model.replace('/', '_')}_for_the_{browser}": partial(Stage.list_in_admin, browser=browser, model=model)
    for browser in ("admin", "operator")
    for model in (
        "conversations/conversation",
        "conversations/challenge",
        "conversations/accesstoken",
        "infrastructure/auditevent",
    )
}
OPERATIONS |= {
    f"search_for_{model}_by_the_{browser}": partial(
        Stage.list_in_admin, browser=browser, model=f"conversations/{model}", q="web:1234"
    )
    for browser in ("admin", "operator")
    for model in ("conversation", "challenge", "accesstoken", "webhookdelivery")
}


@pytest.fixture(scope="module")
def reached(django_db_setup: None, django_db_blocker: Any) -> dict[str, list[str]]:
    """Return what each operation reached, each from the same beginning."""
    login = FakeAuthorizationServer(client_id="acme-client", client_secret=ACME_SECRET)
    plans = {}
    with django_db_blocker.unblock(), transaction.atomic(), mounted(login):
        stage = _set_up(login)
        _keep_all_in_memory()
        small = SMALL | _empty_months()
        for name, operation in OPERATIONS.items():
            recorder = Recorder(small)
            read_counts.reset_in_process()  # otherwise a read may write them, a minute after the last time
            with transaction.atomic():
                with connection.execute_wrapper(recorder):
                    operation(stage)
                transaction.set_rollback(True)
            plans[name] = sorted(recorder.reached)
        transaction.set_rollback(True)
    return plans


@pytest.mark.parametrize("name", OPERATIONS)
def test_rows_are_reached_as_expected(reached: dict[str, list[str]], name: str) -> None:
    expected = FOLDER / f"{name}.txt"
    if os.environ.get("WRITE_QUERY_PLANS"):
        expected.write_text("".join(f"{line}\n" for line in reached[name]))
    assert reached[name] == expected.read_text().splitlines()
