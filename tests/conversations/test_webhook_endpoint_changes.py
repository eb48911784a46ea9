"""A brand's endpoints: no more than ten that are on, and none that its other admins have not been told of."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail

from brands.audited_changes import save_audited
from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.models import Brand, WebhookEndpoint
from tests.admin_pages import AdminBrowser, address
from tests.webhook_receiver import make_endpoint

pytestmark = pytest.mark.django_db

TOO_MANY = "A brand can have 10 active endpoints. Switch another one off first."
FILE = '[brand]\nslug = "acme"\nname = "Acme"\n[[webhooks]]\nurl = "https://one-more.acme.example/hooks"\n'


@pytest.fixture
def browser(acme_admin: Any) -> AdminBrowser:
    """Return the browser of Acme's admin, who has signed in a moment ago."""
    return AdminBrowser(acme_admin)


@pytest.fixture
def ten(acme: Brand) -> list[WebhookEndpoint]:
    """Return as many endpoints as Acme may have."""
    return [make_endpoint(acme, f"bot-{number}.acme.example")[0] for number in range(10)]


@pytest.fixture
def colleague(acme: Brand, rival: Brand) -> None:
    """Give Acme another admin with an address, and Rival one of its own."""
    make = get_user_model().objects.create_user
    acme.admins.add(make("bea", email="bea@acme.example", is_staff=True))
    rival.admins.add(make("rita", email="rita@rival.example", is_staff=True))


def typed(brand: Brand, **changes: Any) -> dict[str, Any]:
    url = "https://one-more.acme.example/hooks"
    return {"brand": brand.pk, "url": url, "label": "", "events": ["challenge.*"], "is_active": "on"} | changes


def errors(page: Any) -> dict[str, list[str]]:
    return dict(page.context["adminform"].form.errors)


def test_an_eleventh_endpoint_is_refused_at_its_field(
    browser: AdminBrowser, acme: Brand, ten: list[WebhookEndpoint]
) -> None:
    """The bug: with a thousand of them a bot's one call took two seconds under its conversation's lock."""
    assert errors(browser.post(address(WebhookEndpoint, "add"), typed(acme))) == {"url": [TOO_MANY]}
    with pytest.raises(ConfigurationRefused) as refused:
        apply_configuration(read_configuration(FILE))
    assert refused.value.problems == [f"webhooks.https://one-more.acme.example/hooks.url: {TOO_MANY}"]
    assert WebhookEndpoint.objects.count() == 10


def test_one_that_is_switched_off_makes_room_and_is_the_eleventh_itself_afterwards(
    browser: AdminBrowser, acme: Brand, ten: list[WebhookEndpoint]
) -> None:
    page = address(WebhookEndpoint, "change", ten[0])
    assert browser.send_changed(page, label="a tenth is still changed").status_code == 302
    assert browser.send_changed(page, is_active=[]).status_code == 302
    assert browser.post(address(WebhookEndpoint, "add"), typed(acme)).status_code == 302
    assert errors(browser.send_changed(page, is_active="on")) == {"is_active": [TOO_MANY]}
    assert WebhookEndpoint.objects.filter(is_active=True).count() == 10


def test_a_new_endpoint_is_mailed_to_the_other_admins(
    colleague: None, browser: AdminBrowser, acme: Brand, django_capture_on_commit_callbacks: Any
) -> None:
    """N8. The bug: an admin could have conversations, purposes and contexts sent to a host of their own unnoticed."""
    with django_capture_on_commit_callbacks(execute=True):
        assert browser.post(address(WebhookEndpoint, "add"), typed(acme)).status_code == 302
    (message,) = mail.outbox
    endpoint = WebhookEndpoint.objects.get()
    page = address(WebhookEndpoint, "change", endpoint)
    assert (message.to, message.subject) == (
        ["bea@acme.example"],
        "Acme: webhooks are sent to one-more.acme.example",
    )
    first, second, *_, last = message.body.splitlines()
    assert first.startswith("acme-admin ")
    assert second == "From now on, one-more.acme.example gets these events: challenge.*."
    assert last == f"https://delegation.test{page}"
    assert endpoint.url not in message.body


def test_an_endpoint_that_is_switched_on_is_mailed_and_no_other_change(
    colleague: None, acme: Brand, acme_admin: Any, django_capture_on_commit_callbacks: Any
) -> None:
    """N8: nor was one told of that was made while it was off."""
    with django_capture_on_commit_callbacks(execute=True):
        endpoint = WebhookEndpoint(brand=acme, url="https://bot.acme.example/hooks", is_active=False)
        endpoint.secret_ciphertext = b"c"
        save_audited(endpoint, acme_admin)
    assert mail.outbox == []
    with django_capture_on_commit_callbacks(execute=True):
        endpoint.is_active = True
        save_audited(endpoint, acme_admin)
    assert [(message.to, message.subject) for message in mail.outbox] == [
        (["bea@acme.example"], "Acme: webhooks are sent to bot.acme.example"),
    ]
    for changes in ({"label": "production"}, {"is_active": False}):
        with django_capture_on_commit_callbacks(execute=True):
            for name, value in changes.items():
                setattr(endpoint, name, value)
            save_audited(endpoint, acme_admin)
    assert len(mail.outbox) == 1


def test_the_operators_file_is_mailed_too(
    colleague: None, acme: Brand, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        apply_configuration(read_configuration(FILE))
    assert [message.to for message in mail.outbox] == [["bea@acme.example"]]
    first, second, *_ = mail.outbox[0].body.splitlines()
    assert first.startswith("the operator ")
    assert second == "From now on, one-more.acme.example gets these events: *."
