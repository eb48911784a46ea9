"""Everything runs: the product, the sample brand and the sample chat over real TLS, and a bot for any conversation.

The brand's settings are the worst case. It remembers sessions and consent, and nothing makes it ask for a new sign-in
(`prompt = ""`). A customer who is signed in there and presses our button comes back at once, without a question.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from demo.addresses import Addresses
from demo.bot_api import Answer, call
from demo.preparation import (
    CLIENT_ID,
    Demo,
    create_bot_key,
    make_folder,
    prepare_brand,
    readable_password,
    show_logo,
    start_brand,
    start_chat,
    start_product,
    write_signing_key,
)
from demo.processes import Certificate, Servers, run_command
from tests.browser.stubborn_brand import StubbornBrand, stubborn_brand
from tests.demo.machines import free_ports
from tests.installation import new_database
from tests.tls import Authority, ServerCertificate

# The sample brand's subjects are its row ids, and its customers are created in this order.
SUBJECTS: Final = {"mallory": "1", "victor": "2"}
CHECKS: Final = ("completion_code", "chat_page", "expected_subject", "none")
TOKEN_LIFETIME: Final = 600
STUBBORN: Final = "stubborn"
# A realistic host name, for the page that shows it. No sign-in begins there.
NAMED: Final = "named"
NAMED_HOST: Final = "https://login.acme.example"
# One whose secret leaked: the sample brand has a new one, and an admin still has to type it.
LEAKED: Final = "leaked"

ACCENT_COLOUR: Final = "#0f766e"

_BRAND: Final = """
[brand]
slug = "acme"
name = "Acme"
accent_colour = "{accent_colour}"
support_contact = "mailto:help@acme.example"
"""
_SERVER: Final = """
[[authorization_servers]]
key = "{key}"
issuer = "{brand}"
authorization_endpoint = "{authorization_endpoint}"
token_endpoint = "{token_endpoint}"
jwks_uri = "{brand}/.well-known/jwks.json"
client_id = "{client_id}"
client_secret_env = "{secret}"
basic_encoding = "raw"
scope = "{scope}"
required_scope = "orders.read"
same_person_checks = ["{check}"]
chat_page_url = "{chat}/"
prompt = ""
scope_descriptions = {{ "orders.read" = {{ en = "see your orders", he = "לראות את ההזמנות שלך" }} }}
"""
_REMEMBER_CONSENT: Final = """
import json, sys
from allauth.idp.oidc.models import Client
client = Client.objects.get()
client.set_redirect_uris(json.load(sys.stdin))
client.skip_consent = True
client.save()
"""


@dataclass(frozen=True)
class Bot:
    """A bot in one conversation, at the authorization server for one same-person check, or at the stubborn one."""

    stage: "Stage"
    check: str
    conversation_id: str = field(default_factory=lambda: f"web:{uuid.uuid4().hex}")

    @property
    def server(self) -> str:
        return self.check.replace("_", "-")

    def challenge(self, **wishes: Any) -> dict[str, Any]:
        """Create a challenge. Fails if none was created."""
        answer = self._send("POST", "/challenges", {"authorization_server": self.server, **wishes})
        assert answer.status == 201, answer.body
        return answer.body

    def read_challenge(self, challenge: dict[str, Any]) -> dict[str, Any]:
        return self.stage.call_api("GET", f"/challenges/{challenge['challenge_id']}").body

    def complete(self, **proof: str) -> Answer:
        """Post a code or a handle."""
        named = {} if "handle" in proof else {"authorization_server": self.server}
        return self._send("POST", "/completion", {**proof, **named})

    def withdraw(self, challenge: dict[str, Any]) -> Answer:
        return self.stage.call_api("DELETE", f"/challenges/{challenge['challenge_id']}")

    def end_token(self) -> Answer:
        """End the token, as if the consumer had signed out."""
        return self._send("DELETE", f"/token?authorization_server={self.server}&reason=signed_out")

    def read_token(self) -> Answer:
        return self._send("GET", f"/token?authorization_server={self.server}")

    def refused_token(self) -> str:
        """Read the token, which must fail. Returns the problem's code and reason."""
        answer = self.read_token()
        assert answer.status == 409, answer.body
        assert "access_token" not in answer.body
        return answer.code

    def _send(self, method: str, rest: str, sent: dict[str, Any] | None = None) -> Answer:
        return self.stage.call_api(method, f"/conversations/{self.conversation_id}{rest}", sent)


@dataclass(frozen=True)
class DemoOverTLS(Demo):
    """The demo's servers over TLS, and on the database that the tests run on."""

    database_url: str = field(repr=False, default="")

    def product_environment(self) -> dict[str, str]:
        # One process, so that limits per process, such as exchanges with a brand, are used up for all requests.
        secrets = {"ACME_CLIENT_SECRET": self.client_secret, "LEAKED_CLIENT_SECRET": "a-secret-that-leaked"}
        trusted = {"OUTBOUND_CA_FILE": os.environ["DEMO_CA_FILE"]} | secrets
        return super().product_environment() | trusted | {"DATABASE_URL": self.database_url, "WORKERS": "1"}


@dataclass(frozen=True)
class Stage:
    """The running servers and their certificate."""

    demo: Demo
    bot_key: str = field(repr=False)
    stubborn: StubbornBrand
    certificate: ServerCertificate

    @property
    def addresses(self) -> Addresses:
        return self.demo.addresses

    def call_api(self, method: str, path: str, sent: dict[str, Any] | None = None) -> Answer:
        return call(method, f"{self.addresses.product}/api/v1{path}", self.bot_key, sent)

    def bot(self, check: str) -> Bot:
        """A bot in a new conversation."""
        return Bot(self, check)

    def customer_of(self, token: str) -> str:
        """The customer whose orders the brand's API shows for this token."""
        answer = call("GET", f"{self.addresses.brand}/api/orders", token)
        assert answer.status == 200, answer.body
        return str(answer.body["customer"])


@contextmanager
def running_stage(folder: Path, authority: Authority) -> Iterator[Stage]:
    """Set everything up in an empty folder, run it, and stop it at the end."""
    issued = authority.issue()
    certificate = Certificate(issued.certificate_file, issued.key_file, authority.ca_file)
    make_folder(folder)
    with pytest.MonkeyPatch.context() as environment, stubborn_brand(issued) as stubborn:
        environment.setenv("DEMO_CA_FILE", str(authority.ca_file))
        environment.setenv("NODE_EXTRA_CA_CERTS", str(authority.ca_file))  # for Playwright's own requests
        addresses = Addresses(*free_ports(3), scheme="https")
        customers = {name: readable_password() for name in SUBJECTS}
        demo = DemoOverTLS(addresses, folder, customers=customers, database_url=new_database(folder))
        bot_key = _prepare(demo, stubborn)
        with Servers(folder, certificate) as servers:
            start_product(demo, servers)
            start_brand(demo, servers, TOKEN_LIFETIME)
            start_chat(demo, servers, bot_key)
            yield Stage(demo, bot_key, stubborn, issued)


def _prepare(demo: Demo, stubborn: StubbornBrand) -> str:
    write_signing_key(demo.folder / "sample-brand-key.pem")
    product = demo.product_environment()
    run_command(["manage.py", "migrate", "--verbosity", "0"], product)
    configuration = _configuration(demo.addresses, stubborn)
    printed = run_command(["manage.py", "apply_config", "-"], product, configuration)
    redirect_uris = [server["redirect_uri"] for server in json.loads(printed)["authorization_servers"].values()]
    show_logo(product)
    prepare_brand(demo, redirect_uris[0])
    manage = ["-m", "demo.sample_brand.manage", "shell", "--no-imports", "-c", _REMEMBER_CONSENT]
    run_command(manage, demo.brand_environment(TOKEN_LIFETIME), json.dumps(redirect_uris))
    return create_bot_key(product)


def _configuration(addresses: Addresses, stubborn: StubbornBrand) -> str:
    """A configuration file with one authorization server for each check, named after it, and the stubborn one."""
    shared = {"brand": addresses.brand, "chat": addresses.chat, "client_id": CLIENT_ID, "secret": "ACME_CLIENT_SECRET"}
    shared["authorization_endpoint"] = f"{addresses.brand}/identity/o/authorize"
    honest = {"token_endpoint": f"{addresses.brand}/identity/o/api/token", "scope": "openid orders.read"}
    servers = [_SERVER.format(key=check.replace("_", "-"), check=check, **shared, **honest) for check in CHECKS]
    leaked = honest | shared | {"secret": "LEAKED_CLIENT_SECRET"}
    servers.append(_SERVER.format(key=LEAKED, check="none", **leaked))
    of_its_own = {"token_endpoint": stubborn.token_endpoint, "scope": "orders.read"}
    servers.append(_SERVER.format(key=STUBBORN, check=CHECKS[0], **shared, **of_its_own))
    elsewhere = {"authorization_endpoint": f"{NAMED_HOST}/authorize", "token_endpoint": f"{NAMED_HOST}/token"}
    servers.append(_SERVER.format(key=NAMED, check=CHECKS[0], scope="orders.read", **(shared | elsewhere)))
    return "\n".join([_BRAND.format(accent_colour=ACCENT_COLOUR), *servers])
