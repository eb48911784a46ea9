"""`[[webhooks]]` in the file of `apply_config`: endpoints are found by URL, and their secrets printed once."""

import base64
from typing import Any

import pytest
from standardwebhooks import Webhook

from brands.models import WebhookEndpoint
from infrastructure.models import AuditEvent
from tests.brands.test_apply_config import BRAND, apply, configuration, refused

pytestmark = pytest.mark.django_db

URL = "https://bot.acme.example/hooks"
GIVEN = "whsec_" + base64.b64encode(b"planted secret of an operator...").decode()


def webhook(**lines: Any) -> str:
    values = {"url": f'"{URL}"', **lines}
    return "\n[[webhooks]]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def test_a_new_endpoints_secret_is_printed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = configuration() + webhook(events='["challenge.*", "token.*"]')
    printed = apply(text, monkeypatch)
    endpoint = WebhookEndpoint.objects.select_related("brand").get()
    secret = printed["webhooks"][URL]["secret"]
    assert set(printed) == {"brand", "authorization_servers", "webhooks"}
    assert (endpoint.url, endpoint.events, endpoint.is_active) == (URL, ["challenge.*", "token.*"], True)
    assert endpoint.reveal_secret().reveal() == secret
    Webhook(secret)
    assert "webhooks" not in apply(text, monkeypatch)
    assert WebhookEndpoint.objects.get().reveal_secret().reveal() == secret


def test_the_same_file_again_changes_nothing_and_another_only_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(BRAND + webhook(), monkeypatch)
    WebhookEndpoint.objects.update(is_active=False)
    events = AuditEvent.objects.count()
    apply(BRAND + webhook(), monkeypatch)
    assert AuditEvent.objects.count() == events
    apply(BRAND + webhook(events='["token.ended"]', label='"production"'), monkeypatch)
    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.events, endpoint.label, endpoint.is_active) == (["token.ended"], "production", False)
    changed = AuditEvent.objects.get(kind="webhook_endpoint.changed")
    assert (changed.actor, changed.changed_fields) == ("operator", "label events")


def test_an_endpoint_that_is_not_in_the_file_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(BRAND + webhook(), monkeypatch)
    apply(BRAND + webhook(url='"https://other.acme.example/hooks"'), monkeypatch)
    assert set(WebhookEndpoint.objects.values_list("url", "is_active")) == {
        (URL, True), ("https://other.acme.example/hooks", True),
    }  # fmt: skip


def test_a_secret_of_the_operators_own_is_taken_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value in the environment replaces it, with the overlap of every replacement."""
    monkeypatch.setenv("HOOK_SECRET", GIVEN)
    text = BRAND + webhook(secret_env='"HOOK_SECRET"')
    for _ in range(2):
        assert "webhooks" not in apply(text, monkeypatch)
        endpoint = WebhookEndpoint.objects.get()
        assert (endpoint.reveal_secret().reveal(), endpoint.previous_secret_ciphertext) == (GIVEN, None)
    monkeypatch.setenv("HOOK_SECRET", GIVEN.replace("cGxh", "aGxh"))
    apply(text, monkeypatch)
    endpoint = WebhookEndpoint.objects.get()
    until = endpoint.previous_secret_expires_at
    assert until is not None
    assert [secret.reveal() for secret in endpoint.reveal_signing_secrets(endpoint.created_at)] == [
        GIVEN.replace("cGxh", "aGxh"), GIVEN,
    ]  # fmt: skip


def test_a_stored_secret_that_cannot_be_read_is_replaced_by_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key was taken out of the ring too early: the file is what mends it."""
    monkeypatch.setenv("HOOK_SECRET", GIVEN)
    text = BRAND + webhook(secret_env='"HOOK_SECRET"')
    apply(text, monkeypatch)
    WebhookEndpoint.objects.update(secret_ciphertext=b"of a key that is gone")
    apply(text, monkeypatch)
    assert WebhookEndpoint.objects.get().reveal_secret().reveal() == GIVEN


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        (webhook(url='"http://bot.acme.example/"'), "webhooks.http://bot.acme.example/.url: The URL must begin"),
        (webhook(url='"https://10.0.0.8/"'), "webhooks.https://10.0.0.8/.url: Write the host as a name"),
        (webhook(events='["challenge.complete"]'), f"webhooks.{URL}.events: Give a list of: *, challenge.*"),
        (webhook(events='["*", "*"]'), f"webhooks.{URL}.events: Name each event once."),
        (webhook(events="[]"), f"webhooks.{URL}.events: This field cannot be blank."),
        (webhook() + webhook(), f"webhooks.{URL}: the URL is given twice"),
        (webhook(secret_env='"UNSET_SECRET"'), f"webhooks.{URL}.secret_env: UNSET_SECRET: A signing secret is whsec_"),
        (webhook(secret='"whsec_x"'), f"webhooks.{URL}.secret: there is no such setting"),
    ],
)
def test_a_bad_endpoint_is_refused_and_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch, tables: str, problem: str
) -> None:
    (found,) = refused(configuration() + tables, monkeypatch)
    assert found.startswith(problem)
    assert not WebhookEndpoint.objects.exists()
