"""Set up the demo: a new folder, random secrets, and the registration of product and brand with each other."""

import base64
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demo.addresses import ROOT, Addresses, DemoError
from demo.processes import AS_IN_PRODUCTION, Servers, run_command

BRAND = "acme"
CLIENT_ID = "consumer-delegation"
# Of the keys for the journey and for experiments, which use both ways to the brand's API.
BOT_SCOPES = ("challenge:create", "challenge:read", "api:call", "token:read")
# Of the sample chat's bot. It cannot read a token.
CALLING_SCOPES = ("challenge:create", "challenge:read", "api:call")
CUSTOMERS = ("ada", "rita")
MARKER = "made-by-the-demo"
_SHOW_LOGO = """
import sys
from pathlib import Path
from brands.audited_changes import save_logo
from brands.branding import logo_hash, reencode_logo
from brands.models import Brand
png = reencode_logo(Path(sys.stdin.read()).read_bytes())
brand = Brand.objects.get()
brand.logo_hash = logo_hash(png)
brand.save(update_fields=["logo_hash"])
save_logo(brand, png)
"""
_MANAGE_BRAND = ("-m", "demo.sample_brand.manage")
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "kayak", "larch", "maple",
         "north", "ocean", "pebble", "quartz", "river", "slope", "trail", "vale", "willow", "yarrow")  # fmt: skip


def readable_password() -> str:
    return "-".join([*(secrets.choice(WORDS) for _ in range(3)), str(secrets.randbelow(9000) + 1000)])


@dataclass(frozen=True)
class Demo:
    """The demo's addresses, folder and secrets. The `repr` contains no secret."""

    addresses: Addresses
    folder: Path
    admin_password: str = field(repr=False, default_factory=readable_password)
    customers: dict[str, str] = field(
        repr=False, default_factory=lambda: {name: readable_password() for name in CUSTOMERS}
    )
    client_secret: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(32))
    product_secret_key: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(50))
    brand_secret_key: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(50))
    encryption_key: bytes = field(repr=False, default_factory=lambda: secrets.token_bytes(32))

    @property
    def bot_key_file(self) -> Path:
        return self.folder / "bot-key"

    def product_environment(self) -> dict[str, str]:
        return {
            **inherited_environment(),
            "SECRET_KEY": self.product_secret_key,
            "ENCRYPTION_KEYS": f"k1:{base64.b64encode(self.encryption_key).decode()}",
            "DATABASE_URL": f"sqlite:///{quote(str(self.folder / 'product.sqlite3'))}",
            "PUBLIC_BASE_URL": self.addresses.product,
            "ALLOWED_HOSTS": "localhost,127.0.0.1",
            "ALLOW_LOCAL_ENDPOINTS": "1",
            "DEBUG": "0",
            "REQUIRE_ADMIN_MFA": "0",  # a visitor looks around with the printed password alone
            "OUTBOUND_CA_FILE": os.environ.get("DEMO_CA_FILE", ""),
        }

    def brand_environment(self, token_lifetime: int) -> dict[str, str]:
        return {
            **inherited_environment(),
            "SAMPLE_BRAND_FOLDER": str(self.folder),
            "SAMPLE_BRAND_SECRET_KEY": self.brand_secret_key,
            "SAMPLE_BRAND_CLIENT_SECRET": self.client_secret,
            "SAMPLE_BRAND_CUSTOMERS": json.dumps(self.customers),
            "SAMPLE_BRAND_TOKEN_LIFETIME": str(token_lifetime),
        }


def inherited_environment() -> dict[str, str]:
    """Return the environment for the demo's servers, without the person's own settings, database URL and proxies."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT", "DEMO_CA_FILE")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, "PYTHONUNBUFFERED": "1"}


def make_folder(folder: Path) -> None:
    """Create an empty folder. An existing one is deleted only if the demo made it; else raises `DemoError`."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise DemoError(f"{folder} was not made by the demo; move it away, or name another one in DEMO_FOLDER.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    (folder / MARKER).touch()


def prepare(demo: Demo) -> str:
    """Set up product and brand; return the bot key."""
    write_signing_key(demo.folder / "sample-brand-key.pem")
    product = demo.product_environment()
    with ThreadPoolExecutor(1) as beside:
        brand_tables = beside.submit(make_brand_tables, demo)
        run_command(["manage.py", "migrate", "--verbosity", "0"], product)
        create_admin(demo.admin_password, product)
        redirect_uri = apply_config(demo, product)
        registered = beside.submit(register_at_brand, demo, redirect_uri)
        shown = beside.submit(show_logo, product)
        bot_key = create_bot_key(product)
    brand_tables.result()
    registered.result()
    shown.result()
    write_bot_key(demo, bot_key)
    return bot_key


def write_signing_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)


def create_admin(password: str, environment: Mapping[str, str]) -> None:
    run_command(
        ["manage.py", "createsuperuser", "--noinput", "--username", "admin", "--email", "admin@acme.example"],
        {**environment, "DJANGO_SUPERUSER_PASSWORD": password},
    )


def apply_config(demo: Demo, environment: Mapping[str, str]) -> str:
    """Configure the brand in the product. Return the redirect URI to register at the brand."""
    text = (ROOT / "demo" / "acme.toml").read_text()
    text = text.replace(Addresses().brand, demo.addresses.brand).replace(Addresses().chat, demo.addresses.chat)
    path = demo.folder / "acme.toml"
    path.write_text(text)
    printed = run_command(
        ["manage.py", "apply_config", str(path)], {**environment, "ACME_CLIENT_SECRET": demo.client_secret}
    )
    return str(json.loads(printed)["authorization_servers"]["orders"]["redirect_uri"])


def show_logo(environment: Mapping[str, str]) -> None:
    """Give the brand its logo, as its admin would by uploading it: a configuration file holds none."""
    run_command(
        ["manage.py", "shell", "--no-imports", "-c", _SHOW_LOGO], environment, str(ROOT / "demo" / "acme-logo.png")
    )


def create_bot_key(environment: Mapping[str, str], label: str = "Journey", wanted: tuple[str, ...] = BOT_SCOPES) -> str:
    scopes = [part for scope in wanted for part in ("--scope", scope)]
    return run_command(["manage.py", "create_bot_key", BRAND, "--label", label, *scopes], environment).strip()


def write_bot_key(demo: Demo, bot_key: str) -> None:
    """Write the key to a file that only its owner can read, for calling the API by hand."""
    demo.bot_key_file.touch(mode=0o600)
    demo.bot_key_file.write_text(f"{bot_key}\n")


def prepare_brand(demo: Demo, redirect_uri: str) -> None:
    make_brand_tables(demo)
    register_at_brand(demo, redirect_uri)


def make_brand_tables(demo: Demo) -> None:
    run_command([*_MANAGE_BRAND, "migrate", "--verbosity", "0"], demo.brand_environment(token_lifetime=120))


def register_at_brand(demo: Demo, redirect_uri: str) -> None:
    registration = ["prepare_sample_brand", "--client-id", CLIENT_ID, "--redirect-uri", redirect_uri]
    run_command([*_MANAGE_BRAND, *registration], demo.brand_environment(token_lifetime=120))


def start_product(demo: Demo, servers: Servers) -> None:
    """Start the web server and the worker, which revokes ended tokens at the brand."""
    port = demo.addresses.product_port
    servers.start(
        "product", "delegation_site.wsgi", port, demo.product_environment(), "/health/ready", options=AS_IN_PRODUCTION
    )
    servers.start_worker("worker", ["manage.py", "worker"], demo.product_environment())


def start_brand(demo: Demo, servers: Servers, token_lifetime: int) -> None:
    """Start the sample brand; stop one that is already running."""
    for running in [server for server in servers.running if server.name == "sample brand"]:
        servers.stop(running)
    environment = demo.brand_environment(token_lifetime)
    port = demo.addresses.brand_port
    servers.start("sample brand", "demo.sample_brand.wsgi", port, environment, "/.well-known/openid-configuration")


def start_chat(demo: Demo, servers: Servers, bot_key: str) -> None:
    environment = {
        **inherited_environment(),
        "SAMPLE_CHAT_SECRET_KEY": secrets.token_urlsafe(50),
        "SAMPLE_CHAT_BOT_KEY": bot_key,
        "SAMPLE_CHAT_PRODUCT_URL": demo.addresses.product,
    }
    servers.start("sample chat", "demo.sample_chat.wsgi", demo.addresses.chat_port, environment, "/chat.css")
