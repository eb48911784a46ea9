"""Django's admin through a browser, and two brands with rows of every model.

`BRAND_OF` says how to find the brand of each model's rows. `tests/brands/test_admin_tenancy.py` fails for a registered
model that is not in it.
"""

import re
import time
from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Model
from django.urls import URLPattern, get_resolver, reverse
from django.utils import timezone

from brands.authentication import create_bot_key
from brands.models import AuthorizationServer, BotKey, Brand, BrandAPI, Operation, WebhookEndpoint
from conversations.flow import call_counts, read_counts
from conversations.flow.call_counts import CallKind
from conversations.models import (
    AccessToken,
    ApiCallCount,
    AuditEvent,
    Challenge,
    Conversation,
    TokenReadCount,
    WebhookDelivery,
)
from infrastructure.crypto import random_hex
from tests import snapshot
from tests.cast import (
    Bot,
    Browser,
    client_of_ours,
    code_on,
    declare_api,
    declare_operation,
    make_admin,
    make_brand,
    make_server,
    use_openid,
)
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import make_endpoint

BRAND_OF: Final[dict[type[Model], str]] = {
    Brand: "pk",
    AuthorizationServer: "brand",
    BotKey: "brand",
    BrandAPI: "brand",
    Operation: "brand",
    WebhookEndpoint: "brand",
    Conversation: "brand",
    Challenge: "conversation__brand",
    AccessToken: "conversation__brand",
    WebhookDelivery: "conversation__brand",
    AuditEvent: "brand_uuid",
    TokenReadCount: "bot_key__brand",
    ApiCallCount: "bot_key__brand",
}
OUR_APPS: Final = {"brands", "conversations", "infrastructure"}
OURS: Final = sorted(
    (model for model in admin.site._registry if model.__module__.split(".")[0] in OUR_APPS),
    key=lambda model: model.__name__,
)


# About one's own account alone, and no brand's.
OF_ONES_OWN_ACCOUNT: Final = ("/admin/account/", "/admin/login/", "/admin/logout/", "/admin/password_change/")


class AdminBrowser:
    """A browser that is signed in to the admin."""

    def __init__(self, user: Any) -> None:
        self.user = user
        self.client = client_of_ours()
        self.client.force_login(user)
        self.sign_in_again()

    def sign_in_again(self, seconds_ago: int = 0) -> None:
        """Store the time of a password entry in the session, as the sign-in page does."""
        session = self.client.session
        session["account_authentication_methods"] = [{"method": "password", "at": time.time() - seconds_ago}]
        session["account_authentication_methods_user"] = str(self.user.pk)
        session.save()

    def get(self, url: str, **query: Any) -> Any:
        return self.client.get(f"{url}?{urlencode(query)}" if query else url, secure=True)

    def post(self, url: str, data: dict[str, Any] | None = None) -> Any:
        return self.client.post(url, data or {}, secure=True)

    def send_changed(self, url: str, **changes: Any) -> Any:
        """Open a form, change some fields and submit it. A value of None leaves the field out."""
        form = self.get(url).context["adminform"].form
        return self.post(url, filled_in(form) | changes)

    def run(self, model: type[Model], action: str, *rows: Model, query: str = "", **more: Any) -> Any:
        """Run an action of a list on some rows. Returns the list page with its message."""
        data = {"action": action, "_selected_action": [row.pk for row in rows], "index": "0", **more}
        return self.client.post(address(model, "changelist") + query, data, secure=True, follow=True)


def filled_in(form: Any) -> dict[str, Any]:
    """The fields that a browser would submit of an unchanged form."""
    data: dict[str, Any] = {}
    for bound in form:
        value = bound.value()
        if bound.field.show_hidden_initial:
            data[bound.html_initial_name] = value
        if isinstance(value, bool):
            data |= {bound.html_name: "on"} if value else {}
        elif hasattr(bound.field.widget, "decompress"):
            parts = bound.field.widget.decompress(value)
            data |= {f"{bound.html_name}_{number}": part or "" for number, part in enumerate(parts)}
        else:
            data[bound.html_name] = "" if value is None else value
    return data


def address(model: type[Model], page: str, row: Model | None = None) -> str:
    """The URL of one of a model's pages: changelist, add, change, history, delete."""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
    return reverse(name, args=[row.pk] if row else [])


def rows_of(model: type[Model], brand: Brand) -> list[Any]:
    """A brand's rows, found without the product's own querysets."""
    lookup = BRAND_OF[model]
    value = brand.uuid if lookup.endswith("uuid") else brand.pk
    return list(model._base_manager.filter(**{lookup: value}))


@dataclass
class House:
    """One brand with rows of every model, its admin's browser, and values that no page may show."""

    brand: Brand
    admin: AdminBrowser
    bot: Bot
    server: AuthorizationServer
    secrets: dict[str, str] = field(repr=False)

    def row(self, model: type[Model]) -> Any:
        """One of its rows of this model. Fails if there is none, because then nothing would be tested."""
        rows = rows_of(model, self.brand)
        assert rows, f"give {self.brand} a {model.__name__}"
        return rows[0]

    @property
    def marks(self) -> list[str]:
        """Texts by which its rows can be recognised on any page."""
        uuids = [str(row.uuid) for model in OURS for row in rows_of(model, self.brand) if hasattr(row, "uuid")]
        keys = [row.public_id for row in rows_of(BotKey, self.brand)]
        return [self.brand.name, self.bot.chat, f"{self.brand.slug}-key", *uuids, *keys]


def _routes(patterns: Any, prefix: str = "/") -> Iterator[str]:
    """Yield the route of every view."""
    for pattern in patterns:
        route = prefix + str(pattern.pattern).removeprefix("^")
        if isinstance(pattern, URLPattern):
            yield route.removesuffix("$").removesuffix(r"\Z")
        else:
            yield from _routes(pattern.url_patterns, route)


def addresses_of_the_admin(house: House, *, with_accounts: bool = False) -> list[str]:
    """Return every address of the admin, filled in with a house's rows; fails where it does not know how.

    `with_accounts` adds those that are about one's own account alone.
    """
    found = []
    for route in _routes(get_resolver().url_patterns):
        if not route.startswith("/admin/") or (route.startswith(OF_ONES_OWN_ACCOUNT) and not with_accounts):
            continue
        named = [model for model in OURS if f"/{model._meta.app_label}/{model._meta.model_name}/" in route]
        row: Any = house.row(named[0]) if named else house.admin.user
        filled = re.sub(r"<((path|int|str):)?(object_id|pk|id|content_type_id)>", str(row.pk), route)
        filled = re.sub(r"\(\?P<app_label>.*?\)", "brands", filled).replace("(?P<url>.*)", "nothing/")
        assert "<" not in filled, f"say in this walk how {route} is filled in"
        found.append(filled)
    return found


def furnish(brand: Brand, user: Any, login: FakeAuthorizationServer) -> House:
    """Create rows of every model for a brand, by a whole journey. Collects the values that must not be seen."""
    secret = f"planted-client-secret-{random_hex(8)}"
    server = make_server(brand, f"{brand.slug}-server", secret)
    login.redirect_uri, login.client_secret, login.subject = server.redirect_uri, secret, f"planted-{random_hex(8)}"
    use_openid(server, login)
    AuthorizationServer.objects.filter(pk=server.pk).update(token_response_members=["patient"])
    login.further_members = {"patient": f"planted-{random_hex(8)}"}
    row, key = create_bot_key(brand, f"{brand.slug}-key", BotKey.Scope.values)
    bot, browser = Bot(key.reveal(), f"chat-of-{brand.slug}"), Browser()
    endpoint, webhook_secret = make_endpoint(brand)
    declare_operation(declare_api(server))
    challenge = bot.challenge(purpose="planted-purpose", context="planted-context")
    code = code_on(browser.sign_in(challenge["url"], login))
    assert bot.complete(code)[0] == 200
    assert bot.token()[0] == 200
    read_counts.flush()
    call_counts.count_call(CallKind(row.pk, f"{brand.slug}.list", "2xx", "order.status"), 7, timezone.now())
    call_counts.flush()
    token = AccessToken.objects.get(conversation__brand=brand)
    secrets = {
        "client secret": secret,
        "bot key": key.reveal(),
        "bot key's secret part": key.reveal().rsplit("_", 1)[1],
        "access token": login.issued_access_tokens[-1],
        "subject": login.subject,
        "response member": login.further_members["patient"],
        "completion code": code,
        "link token": challenge["url"].rsplit("/", 1)[1],
        "context": "planted-context",
        "webhook secret": webhook_secret,
        "state": login.authorization_requests[-1]["state"],
        "verifier": login.token_requests[-1].parameters["code_verifier"],
        "code": login.token_requests[-1].parameters["code"],
    }
    stored = {
        "ciphertext of the token": token.ciphertext,
        "ciphertext of the subject": token.subject_ciphertext,
        "ciphertext of the response members": token.response_members_ciphertext,
        "ciphertext of the secret": AuthorizationServer.objects.get(pk=server.pk).client_secret_ciphertext,
        "digest of the key": row.digest,
        "ciphertext of the webhook secret": endpoint.secret_ciphertext,
        "ciphertext of the payload": WebhookDelivery.objects.filter(endpoint=endpoint).latest("pk").payload_ciphertext,
    }
    for name, value in stored.items():
        assert value, name
        secrets |= {name: bytes(value)[-16:].hex(), f"{name}, as Python writes it": repr(bytes(value)[-16:])[2:-1]}
    return House(brand, AdminBrowser(user), bot, server, secrets)


@dataclass(frozen=True)
class _Scene:
    """Both houses and their stored rows."""

    houses: tuple[House, House] = field(repr=False)
    rows: snapshot.Rows = field(repr=False)
    logins: dict[str, dict[str, Any]] = field(repr=False)

    @classmethod
    def play(cls, logins: dict[str, FakeAuthorizationServer]) -> "_Scene":
        """Create both houses."""
        before = snapshot.stored()
        snapshot.number_from_afar()
        acme, rival = (make_brand(slug) for slug in logins)
        houses = (
            furnish(acme, make_admin(acme), logins["acme"]),
            furnish(rival, make_admin(rival), logins["rival"]),
        )
        rows = {table: found - before[table] for table, found in snapshot.stored().items() if found - before[table]}
        remembered = {name: {key: copy(value) for key, value in vars(login).items()} for name, login in logins.items()}
        return cls(houses, rows, remembered)

    def play_again(self, logins: dict[str, FakeAuthorizationServer]) -> None:
        """Restore the rows in the database of another test."""
        snapshot.put_back(self.rows)
        for name, login in logins.items():
            vars(login).update({key: copy(value) for key, value in self.logins[name].items()})

    def cast(self) -> tuple[House, House]:
        """Both houses, as fresh copies, with their admins newly signed in."""
        acme, rival = (
            House(deepcopy(one.brand), AdminBrowser(deepcopy(one.admin.user)), copy(one.bot), deepcopy(one.server),
                  dict(one.secrets))
            for one in self.houses
        )  # fmt: skip
        return acme, rival


@pytest.fixture(scope="session")
def _scenes() -> list[_Scene]:
    """Keep the scene of this process after it was created."""
    return []


@pytest.fixture
def houses(db: None, logins: dict[str, FakeAuthorizationServer], _scenes: list[_Scene]) -> tuple[House, House]:
    """Acme's house and Rival's, each with rows of every model."""
    if _scenes:
        _scenes[0].play_again(logins)
    else:
        _scenes.append(_Scene.play(logins))
    return _scenes[0].cast()


@pytest.fixture
def operator(db: None) -> AdminBrowser:
    """The browser of the superuser."""
    return AdminBrowser(User.objects.create_superuser("operator", password="operator"))
