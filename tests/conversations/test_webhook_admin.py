"""Webhooks in the admin: a secret shown once, a test event, dead letters seen and replayed; confirmed and audited."""

import html
import re
from typing import Any

import pytest
from django.utils import timezone

from brands.models import Brand, WebhookEndpoint
from conversations.models import WebhookDelivery
from conversations.outbox import worker
from infrastructure.models import AuditEvent
from tests.admin_pages import AdminBrowser, House, address
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

URL = "https://bot.acme.example/hooks"


@pytest.fixture
def browser(acme_admin: Any) -> AdminBrowser:
    """Return the browser of Acme's admin, who has signed in a moment ago."""
    return AdminBrowser(acme_admin)


def typed(brand: Brand, **changes: Any) -> dict[str, Any]:
    return {"brand": brand.pk, "url": URL, "label": "", "events": ["challenge.*"], "is_active": "on"} | changes


def said(page: Any) -> list[str]:
    return [html.unescape(str(message)) for message in page.context["messages"]]


def secret_in(text: str) -> str:
    found = re.search(r"whsec_[A-Za-z0-9+/=]+", html.unescape(text))
    assert found, text
    return found[0]


def audited() -> list[tuple[str, str, str]]:
    rows = AuditEvent.objects.filter(kind__startswith="webhook").order_by("id")
    return list(rows.values_list("kind", "actor", "changed_fields"))


def test_a_new_endpoints_secret_is_shown_in_one_message_and_never_again(browser: AdminBrowser, acme: Brand) -> None:
    answer = browser.post(address(WebhookEndpoint, "add"), typed(acme))
    assert answer.status_code == 302
    endpoint = WebhookEndpoint.objects.select_related("brand").get()
    secret = secret_in(browser.get(answer["Location"]).content.decode())
    assert endpoint.reveal_secret().reveal() == secret
    for page in (address(WebhookEndpoint, "changelist"), address(WebhookEndpoint, "change", endpoint)):
        assert "whsec_" not in browser.get(page).content.decode()
    assert audited() == [("webhook_endpoint.created", f"admin:{browser.user.pk}", "")]


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"url": "http://bot.acme.example/"}, {"url"}),
        ({"url": "https://169.254.169.254/"}, {"url"}),
        ({"events": []}, {"events"}),
        ({"events": ["challenge.complete"]}, {"events"}),
    ],
)
def test_what_is_no_endpoint_is_refused_at_its_field(
    browser: AdminBrowser, acme: Brand, changes: dict[str, Any], errors: set[str]
) -> None:
    """N1."""
    page = browser.post(address(WebhookEndpoint, "add"), typed(acme, **changes))
    assert set(page.context["adminform"].form.errors) == errors
    assert not WebhookEndpoint.objects.exists()


def test_the_same_address_twice_is_refused(browser: AdminBrowser, acme: Brand) -> None:
    for status in (302, 200):
        assert browser.post(address(WebhookEndpoint, "add"), typed(acme)).status_code == status
    assert WebhookEndpoint.objects.count() == 1


def test_an_address_never_changes(browser: AdminBrowser, acme_hooks: Receiver) -> None:
    """N8: what was written for one host is never sent to another."""
    page = address(WebhookEndpoint, "change", acme_hooks.endpoint)
    answer = browser.post(page, {"url": "https://mallory.example/", "label": "x", "events": ["*"], "is_active": "on"})
    assert answer.status_code == 302
    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.url, endpoint.label) == (acme_hooks.endpoint.url, "x")
    assert audited()[1:] == [("webhook_endpoint.changed", f"admin:{browser.user.pk}", "label")]


def test_a_session_that_was_left_open_adds_widens_and_replaces_nothing(
    browser: AdminBrowser, acme: Brand, acme_hooks: Receiver
) -> None:
    """G10: whoever adds an endpoint reads along from then on."""
    browser.sign_in_again(seconds_ago=11 * 60)
    before = WebhookEndpoint.objects.values().get()
    change = address(WebhookEndpoint, "change", acme_hooks.endpoint)
    narrowed = browser.send_changed(change, events=["token.ended"])
    added = browser.post(address(WebhookEndpoint, "add"), typed(acme, url="https://mallory.example/"))
    replaced = browser.run(WebhookEndpoint, "replace_secret", acme_hooks.endpoint)
    for page in (added, narrowed, replaced):
        assert "Confirm that it is you" in html.unescape(page.content.decode())
    assert WebhookEndpoint.objects.values().get() == before
    assert browser.send_changed(change, label="renamed").status_code == 302


def test_a_replaced_secret_is_shown_once_and_audited(browser: AdminBrowser, acme_hooks: Receiver) -> None:
    page = browser.run(WebhookEndpoint, "replace_secret", acme_hooks.endpoint)
    secret = secret_in(said(page)[0])
    endpoint = WebhookEndpoint.objects.select_related("brand").get()
    secrets = [signing.reveal() for signing in endpoint.reveal_signing_secrets(timezone.now())]
    assert secrets == [secret, acme_hooks.secret]
    assert "whsec_" not in browser.get(address(WebhookEndpoint, "history", endpoint)).content.decode()
    ((kind, actor, _),) = audited()[1:]
    assert (kind, actor) == ("webhook_endpoint.secret_changed", f"admin:{browser.user.pk}")


def test_a_test_event_goes_the_way_of_every_other(browser: AdminBrowser, acme_hooks: Receiver) -> None:
    """Whatever the endpoint wants to hear; signed, in the outbox, and to be seen in the list."""
    WebhookEndpoint.objects.update(events=["token.ended"])
    page = browser.run(WebhookEndpoint, "send_test_event", acme_hooks.endpoint)
    assert said(page) == ["The test event will be sent. The list of webhook deliveries shows its outcome."]
    acme_hooks.next_answers = [500]
    worker.run_once()
    (message,) = acme_hooks.messages
    assert (message.type, message.payload["data"]) == (
        "webhook.test", {"webhook_endpoint": str(acme_hooks.endpoint.uuid)},
    )  # fmt: skip
    text = browser.get(address(WebhookDelivery, "changelist"), state="waiting").content.decode()
    assert ("webhook.test" in text, "answered 500" in text) == (True, True)


@pytest.mark.usefixtures("one_window")
def test_test_events_are_counted_and_need_an_endpoint_that_is_on(browser: AdminBrowser, acme_hooks: Receiver) -> None:
    """N9: no tool to knock at other people's doors with."""
    pages = [browser.run(WebhookEndpoint, "send_test_event", acme_hooks.endpoint) for _ in range(11)]
    assert said(pages[-1])[0].startswith("Too many tests: wait ")
    assert WebhookDelivery.objects.count() == 10
    WebhookEndpoint.objects.update(is_active=False)
    page = browser.run(WebhookEndpoint, "send_test_event", acme_hooks.endpoint, query="?state=inactive")
    assert said(page) == ["The endpoint or its brand is inactive."]


def test_dead_letters_are_found_and_replayed_by_their_own_brand_alone(houses: tuple[House, House]) -> None:
    """J6, J8."""
    acme, rival = houses
    mine, theirs = (WebhookDelivery.objects.filter(endpoint__brand=house.brand).order_by("pk") for house in houses)
    total = mine.count()
    WebhookDelivery.objects.update(dead_at=timezone.now(), attempts=17)
    mine.filter(pk=mine[0].pk).update(payload_ciphertext=None)
    listed = acme.admin.get(address(WebhookDelivery, "changelist"), state="dead")
    assert (listed.status_code, listed.context["cl"].result_count) == (200, total)
    page = acme.admin.run(WebhookDelivery, "replay_deliveries", *mine, *theirs)
    assert said(page) == [
        f"{total - 1} deliveries will be sent again. 1 cannot be replayed: delivered, still waiting, or erased."
    ]
    assert (mine.filter(dead_at=None, attempts=0).count(), theirs.filter(dead_at=None).count()) == (total - 1, 0)
    assert rival.admin.get(address(WebhookDelivery, "changelist"), state="waiting").context["cl"].result_count == 0
