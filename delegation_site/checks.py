"""System checks that refuse dangerous settings, each with a stable id (N10, K3).

A failing check does not stop a WSGI server. So `gunicorn.py` runs all checks before it serves, and `wsgi.py` runs those
of the settings for any other server. Settings that Django needs before checks can run are checked in `environment.py`.
"""

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ValidationError
from django.db import DatabaseError

from delegation_site.environment import MAKE_A_KEY, WRAP_A_KEY, exit_with, is_loopback, origin_host
from infrastructure.crypto import InvalidKeyRing, key_ring

MIN_SECRET_KEY_LENGTH = 40
MIN_SECRET_KEY_CHARACTERS = 10
# "" is the value for a PUBLIC_BASE_URL that is refused itself.
_ALLOWED_HOST = re.compile(r"|\*|\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]")


def check_encryption_keys(**_: Any) -> list[CheckMessage]:
    """E001, E002: the key ring is valid and differs from the secret key."""
    try:
        key_ring()
    except InvalidKeyRing as error:
        hint = WRAP_A_KEY if settings.ENCRYPTION_KEYS_FROM else f"Make a key, with its id k1, with: {MAKE_A_KEY}"
        return [Error(f"ENCRYPTION_KEYS cannot be used: {error}.", hint=hint, id="delegation.E001")]
    if settings.SECRET_KEY in settings.ENCRYPTION_KEYS:
        return [Error("SECRET_KEY and ENCRYPTION_KEYS must not be the same value.", id="delegation.E002")]
    return []


def check_secret_key(**_: Any) -> list[CheckMessage]:
    """E009: SECRET_KEY signs sessions and messages, which may show a new bot key. Django only warns of a weak one."""
    key = settings.SECRET_KEY
    if len(key) >= MIN_SECRET_KEY_LENGTH and len(set(key)) >= MIN_SECRET_KEY_CHARACTERS:
        return []
    message = f"SECRET_KEY must have at least {MIN_SECRET_KEY_LENGTH} random characters."
    return [Error(message, id="delegation.E009")]


def check_public_base_url(**_: Any) -> list[CheckMessage]:
    """E003: the public base URL is an https origin without a path."""
    host = origin_host(settings.PUBLIC_BASE_URL)
    # Over http, browsers keep Secure and `__Host-` cookies only on loopback. Elsewhere no form would work.
    if host and (settings.PUBLIC_BASE_URL.startswith("https:") or is_loopback(host)):
        return []
    message = "PUBLIC_BASE_URL must be an https origin such as https://delegation.example (http only on loopback)."
    hint = (
        "An origin is scheme, host and, if it is not 443, port: no path, user, query or space. http is for "
        "localhost, names that end in .localhost, 127.0.0.1 and [::1]. Write a name in another script as xn--..."
    )
    return [Error(message, hint=hint, id="delegation.E003")]


def check_local_endpoints(**_: Any) -> list[CheckMessage]:
    """E004: loopback endpoints are only for tests and demos, even with DEBUG."""
    if settings.ALLOW_LOCAL_ENDPOINTS and not _is_local_host(settings.PUBLIC_BASE_URL):
        message = "ALLOW_LOCAL_ENDPOINTS is refused unless PUBLIC_BASE_URL's host is loopback or ends in .test."
        return [Error(message, id="delegation.E004")]
    return []


def check_oauthlib_switches(**_: Any) -> list[CheckMessage]:
    """E005: these oauthlib switches allow codes over plain http and unnoticed changes of scope."""
    names = [name for name in ("OAUTHLIB_INSECURE_TRANSPORT", "OAUTHLIB_RELAX_TOKEN_SCOPE") if name in os.environ]
    return [Error(f"Remove {name} from the environment.", id="delegation.E005") for name in names]


def check_database_driver(**_: Any) -> list[CheckMessage]:
    """E006: if both drivers are installed, Django silently uses psycopg 3. Only psycopg2 is tested."""
    if find_spec("psycopg") is not None:
        return [
            Error("Uninstall psycopg: with both drivers Django uses the one that was not tested.", id="delegation.E006")
        ]
    return []


def check_outbound_ca_file(**_: Any) -> list[CheckMessage]:
    """E007: the configured extra CA bundle is readable."""
    if settings.OUTBOUND_CA_FILE and not os.access(settings.OUTBOUND_CA_FILE, os.R_OK):
        return [Error("OUTBOUND_CA_FILE cannot be read.", id="delegation.E007")]
    return []


def check_debug(**_: Any) -> list[CheckMessage]:
    """E008: DEBUG is only for loopback, because its pages show codes, states and local variables."""
    if settings.DEBUG and not _is_local_host(settings.PUBLIC_BASE_URL):
        return [
            Error("DEBUG is refused unless PUBLIC_BASE_URL's host is loopback or ends in .test.", id="delegation.E008")
        ]
    return []


def check_redis_url(**_: Any) -> list[CheckMessage]:
    """E024: REDIS_URL is usable. Otherwise every rate-limited page would fail (G8)."""
    if not settings.REDIS_URL:
        return []
    # Not at the top: most installations have no Redis, and its client takes 4 MB of memory.
    mistake = import_module("infrastructure.cache").address_mistake(settings.REDIS_URL)
    if not mistake:
        return []
    hint = (
        "Such as redis://127.0.0.1:6379/0, rediss://user:password@redis.example:6379/0 or unix:///run/redis.sock?db=0"
    )
    return [Error(f"REDIS_URL cannot be used: {mistake}.", hint=hint, id="delegation.E024")]


def check_allowed_hosts(**_: Any) -> list[CheckMessage]:
    """E025: every entry can match a `Host` header. Otherwise all requests get 400, health probes included."""
    if all(_ALLOWED_HOST.fullmatch(entry) for entry in settings.ALLOWED_HOSTS):
        return []
    message = "ALLOWED_HOSTS must be host names, separated by commas: no scheme, port, path or space."
    hint = "Such as delegation.example,10.0.0.5,[::1] or .example for all names below; * answers to every name."
    return [Error(message, hint=hint, id="delegation.E025")]


def check_second_factor(**_: Any) -> list[CheckMessage]:
    """W005: an installation for others that lets admins in with the password alone (G10)."""
    if settings.REQUIRE_ADMIN_MFA or settings.DEBUG or settings.ALLOW_LOCAL_ENDPOINTS:
        return []
    message = "REQUIRE_ADMIN_MFA is off: a stolen password alone opens the admin."
    return [CheckWarning(message, hint="Remove the setting; it is on by default.", id="delegation.W005")]


def check_sqlite(**_: Any) -> list[CheckMessage]:
    """W006: an installation for others on SQLite, perhaps because DATABASE_URL did not arrive."""
    if settings.DATABASES["default"]["ENGINE"] != "django.db.backends.sqlite3":
        return []
    if settings.DEBUG or settings.ALLOW_LOCAL_ENDPOINTS or _is_local_host(settings.PUBLIC_BASE_URL):
        return []
    message = "The database is SQLite: one writer at a time, on one machine, without a standby."
    hint = "Set DATABASE_URL=postgres://user:password@host:5432/name. Without the setting, db.sqlite3 is used."
    return [CheckWarning(message, hint=hint, id="delegation.W006")]


def check_proxy_count(**_: Any) -> list[CheckMessage]:
    """W009: behind a proxy that is not counted, all clients have the proxy's address (G8).

    What serves this application speaks http, so an https origin means a proxy. Then one stranger with wrong bot keys,
    or one who opens many pages, uses up the limits of everybody.
    """
    is_for_others = settings.PUBLIC_BASE_URL.startswith("https:") and not _is_local_host(settings.PUBLIC_BASE_URL)
    if settings.TRUSTED_PROXY_COUNT or not is_for_others:
        return []
    message = "TRUSTED_PROXY_COUNT is 0: the limits take all clients behind a proxy for one."
    hint = "With deploy/nginx.conf alone in front it is 1. Without any proxy that sets X-Forwarded-For, leave it at 0."
    return [CheckWarning(message, hint=hint, id="delegation.W009")]


def check_metrics_folder(**_: Any) -> list[CheckMessage]:
    """E027: the folder of the metrics can be written. Otherwise the first request that is counted would fail."""
    folder = settings.METRICS_FOLDER
    if not folder:
        return []
    if Path(folder).is_absolute() and Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return []
    message = "METRICS_FOLDER must be the absolute path of a folder that this user can write."
    hint = "Make it as the user that runs the service: mkdir -m 700 /run/consumer-delegation"
    return [Error(message, hint=hint, id="delegation.E027")]


def check_metrics_address(**_: Any) -> list[CheckMessage]:
    """W007: metrics for whoever reaches this machine. They name the brands, and say how much each is used."""
    if not settings.METRICS_FOLDER or is_loopback(origin_host(f"http://{_in_brackets(settings.METRICS_BIND[0])}")):
        return []
    message = "METRICS_BIND is no loopback address: whoever reaches that port reads the metrics, without a password."
    hint = "Use 127.0.0.1:9464, or let a firewall allow the port to Prometheus alone."
    return [CheckWarning(message, hint=hint, id="delegation.W007")]


def _in_brackets(host: str) -> str:
    return f"[{host}]" if ":" in host else host


PRIVATE_NETWORKS_NOT_VALID = "delegation.W008"


def check_private_networks(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W008: networks that SQL wrote and the command refuses: loopback, too wide, metadata addresses.

    They allow nothing, so this is a warning (N14). A database that cannot be asked is the matter of W001 to W004.
    """
    if not databases or sys.argv[1:2] == ["migrate"]:
        return []
    brand = apps.get_model("brands", "Brand")
    column: Any = brand._meta.get_field("private_networks")
    try:
        stored = list(brand._default_manager.exclude(private_networks=[]).values_list("slug", "private_networks"))
    except DatabaseError:
        return []
    return [found for slug, networks in stored if (found := _refused(slug, column, networks))]


def _refused(slug: str, column: Any, networks: object) -> CheckMessage | None:
    try:
        column.run_validators(networks)
    except ValidationError as error:
        message = f"The private networks of the brand {slug} allow nothing: {' '.join(error.messages)}"
        hint = f"manage.py private_networks {slug} allow NETWORK writes them anew."
        return CheckWarning(message, hint=hint, id=PRIVATE_NETWORKS_NOT_VALID)
    return None


# These read only settings, never the database.
OF_SETTINGS = (
    check_encryption_keys,
    check_secret_key,
    check_public_base_url,
    check_local_endpoints,
    check_oauthlib_switches,
    check_database_driver,
    check_outbound_ca_file,
    check_debug,
    check_redis_url,
    check_allowed_hosts,
    check_metrics_folder,
)


def refuse_dangerous_settings() -> None:
    """Exit with messages if a check of the settings fails: for start-ups that run no system checks (N10)."""
    found = [str(message).removeprefix("?: ") for check in OF_SETTINGS for message in check()]
    if found:
        exit_with(found)


def _is_local_host(address: str) -> bool:
    host = origin_host(address)
    return is_loopback(host) or (host is not None and host.endswith(".test"))
