"""Read settings from the environment and report all missing or invalid ones together, with the ids of `checks`.

Every start reads the settings before Django can run checks: gunicorn, `manage.py`, any other WSGI server. So a mistake
ends the process here, with a message and no traceback. Messages contain no values, because many hold a password.
"""

import re
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from infrastructure.crypto import InvalidKeyRing
from infrastructure.key_providers import unwrapped_ring
from infrastructure.key_providers.failures import ProviderFailed

# Prints a ready value for ENCRYPTION_KEYS.
MAKE_A_KEY: Final = "python -c 'import base64, os; print(\"k1:\" + base64.b64encode(os.urandom(32)).decode())'"
WRAP_A_KEY: Final = "manage.py wrap_key k1 makes a key and prints what to write there."
_MAKE_A_SECRET_KEY: Final = "python -c 'import secrets; print(secrets.token_urlsafe(50))'"
_ADVICE: Final = {
    "SECRET_KEY": ("E009", f"Make one with: {_MAKE_A_SECRET_KEY}"),
    "ENCRYPTION_KEYS": ("E001", f"Make a key, with its id k1, with: {MAKE_A_KEY}"),
    "PUBLIC_BASE_URL": ("E003", "Name the https origin at which consumers reach us: https://delegation.example"),
}
# gunicorn stops if a worker exits with 3 or 4; for another status it would start workers for ever. 3 tells runserver to
# reload.
_EXIT_STATUS: Final = 4
_ORIGIN: Final = re.compile(r"https?://(?P<host>\[(?P<ipv6>[0-9a-f:.]+)\]|[^\[\]:/]+)(:(?P<port>[1-9][0-9]{0,8}))?")
_LISTENING: Final = re.compile(r"(?=.)(unix:/.+|fd://[0-9]+|([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,9})?)")
_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_DATABASES: Final = frozenset({"postgres", "postgresql", "psql", "pgsql", "sqlite"})
_MOST_PORTS: Final = 65_535
_ON: Final = environ.Env.BOOLEAN_TRUE_STRINGS
_OFF: Final = ("false", "off", "n", "no", "0")


class Environment:
    """Reads settings and collects mistakes until `exit_if_mistakes`.

    Until then an invalid value becomes a placeholder.
    """

    def __init__(self) -> None:
        self._env = environ.Env()
        self.mistakes: list[str] = []

    def read_file(self, path: str) -> None:
        """Read a file such as `.env`. Variables that are already set win."""
        self._env.read_env(path)

    def required(self, name: str) -> str:
        """Read a text that must not be empty."""
        value: str = self._env.str(name, default="")
        if not value.strip():
            number, hint = _ADVICE[name]
            self._mistake(number, f"{name} is missing or empty.", hint)
        return value

    def key_ring(self, name: str, source: str) -> str:
        """Read the key ring. If a source is named, unwrap the keys there (K8); then the ring may be empty.

        `checks` refuses an empty ring, except for the command that wraps the first key.
        """
        if not source:
            return self.required(name)
        try:
            return unwrapped_ring(self.text(name, default=""), source)
        except InvalidKeyRing as error:
            self._mistake("E001", f"{name} cannot be used: {error}.", WRAP_A_KEY)
        except ProviderFailed as error:
            self._mistake(error.number, error.message, error.hint)
        return ""

    def text(self, name: str, default: str) -> str:
        """Read a text. An empty text counts as unset."""
        value: str = self._env.str(name, default=default)
        return value or default

    def names(self, name: str, default: list[str]) -> list[str]:
        """Read a comma-separated list."""
        value: list[str] = self._env.list(name, default=default)
        return value or default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Read a boolean. An empty one counts as unset."""
        text = self._env.str(name, default="").strip().lower()
        if text and text not in (*_ON, *_OFF):
            self._mistake("E026", f"{name} must be 1 or 0.")
        return text in _ON if text else default

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """Read a whole number from `least` to `most`."""
        text = self._env.str(name, default="").strip()
        if not text:
            return default
        if re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most:
            return int(text)
        self._mistake("E020", f"{name} must be a whole number from {least} to {most}.")
        return default

    def database(self, name: str, default: str) -> dict[str, Any]:
        """Parse a database URL into Django's settings. An empty URL is a mistake, not SQLite."""
        value = self._env.str(name, default=default)
        # django-environ prints a URL with an unknown scheme, password included.
        if value == value.strip() and value.partition("://")[0] in _DATABASES:
            found = self._read(self._env.db_url_config, value)
            if _names_a_database(found, value):
                return found
        hint = "Special characters of the password are percent-encoded. Leave it out for SQLite in db.sqlite3."
        said = f"{name} is not a database URL, such as postgres://user:password@host:5432/name."
        self._mistake("E021", said, hint)
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}

    def email(self, name: str, default: str) -> dict[str, Any]:
        """Parse a mail server's URL into Django's settings."""
        value = self.text(name, default)
        found = self._read(self._env.email_url_config, value)
        if found and (found["EMAIL_HOST"] or not value.startswith("smtp")) and _is_port(found["EMAIL_PORT"]):
            return found
        said = f"{name} is not a mail server's URL, such as smtp+tls://user:password@mail.example:587."
        self._mistake("E022", said, "Special characters of the password are percent-encoded.")
        return {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}

    def addresses(self, name: str, default: str) -> list[str]:
        """Read a comma-separated list of addresses to listen at."""
        found = self.text(name, default).split(",")
        if all(_LISTENING.fullmatch(one) and _is_port(one.rpartition(":")[2]) for one in found):
            return found
        self._mistake("E023", f"{name} is not an address to listen at, such as 127.0.0.1:8000 or unix:/run/web.sock.")
        return [default]

    def address(self, name: str, default: str) -> tuple[str, int]:
        """Read one address to listen at: `localhost` or an IP address, and a port."""
        host, _, port = self.text(name, default).rpartition(":")
        found = host.removeprefix("[").removesuffix("]") if host.startswith("[") and host.endswith("]") else host
        if port.isascii() and port.isdecimal() and _is_port(port) and (host == "localhost" or _is_address(found, host)):
            return found, int(port)
        self._mistake("E023", f"{name} is not an IP address and a port, such as 127.0.0.1:9464 or [::1]:9464.")
        return default.rpartition(":")[0], int(default.rpartition(":")[2])

    def hosts(self, name: str) -> list[str]:
        """Read a comma-separated list of host names and IP addresses; empty by default."""
        found = [one.strip().lower() for one in self.names(name, default=[])]
        if all(_HOST.fullmatch(one) or _as_written(one) for one in found):
            return found
        said = f"{name} must be host names and IP addresses, separated by commas."
        self._mistake("E028", said, "Such as proxy.internal,10.0.0.5,fd12::5: no scheme, port, path or network.")
        return []

    def exit_if_mistakes(self) -> None:
        """Exit with a message for each mistake, if there are any."""
        if self.mistakes:
            exit_with(self.mistakes)

    def _read(self, parse: Callable[[str], dict[str, Any]], value: str) -> dict[str, Any]:
        """Parse a URL with django-environ; {} if it fails, because its error message repeats a part of the URL."""
        try:
            return parse(value)
        except (ValueError, LookupError, ImproperlyConfigured):
            return {}

    def _mistake(self, number: str, words: str, hint: str = "") -> None:
        self.mistakes.append(f"(delegation.{number}) {words}" + (f"\n\tHINT: {hint}" if hint else ""))


def exit_with(mistakes: list[str]) -> NoReturn:
    """Print the mistakes to standard error and exit."""
    sys.stderr.write("\n".join(["The settings cannot be used:", "", *mistakes, ""]))
    raise SystemExit(_EXIT_STATUS)


def canonical_origin(address: str) -> str:
    """Return an origin as browsers write it (RFC 6454): lower case, no default port, no trailing slash.

    Anything else is returned unchanged, and `origin_host` refuses it.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return address
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    canonical = f"{parts.scheme}://{host}" + ("" if port in {None, default} else f":{port}")
    return canonical if address.lower().removesuffix("/") in {canonical, f"{canonical}:{default}"} else address


def hosts_of_services(database: dict[str, Any], redis_url: str, public_base_url: str, mail: str | None) -> list[str]:
    """Return the hosts at which our own services listen, each once. A socket in the file system has none."""
    options = database.get("OPTIONS", {})
    named = [database.get("HOST"), options.get("host"), options.get("hostaddr"), mail]
    named += [_host_of(redis_url), _host_of(public_base_url)]
    hosts = [host.strip().strip("[]") for one in named for host in str(one or "").split(",")]
    return list(dict.fromkeys(host for host in hosts if host and not host.startswith("/")))


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # a check reports it
        return None


def origin_host(address: str) -> str | None:
    """Return the host of a canonical http or https origin, as in the `Host` header; None for anything else."""
    found = _ORIGIN.fullmatch(address)
    if not found or not _is_port(found["port"]):
        return None
    if found["ipv6"]:
        return found["host"] if _as_written(found["ipv6"]) else None
    # Browsers read a host whose last label is a number as an IPv4 address: 127.1 is 127.0.0.1.
    is_name = _HOST.fullmatch(found["host"]) and not found["host"].rpartition(".")[2].isdigit()
    return found["host"] if is_name or _as_written(found["host"]) else None


def is_loopback(host: str | None) -> bool:
    """Whether browsers treat http://host as trustworthy and keep its Secure and `__Host-` cookies.

    These are the hosts on which Chromium (`net::IsLocalhost`) and Firefox (`IsPotentiallyTrustworthyLoopbackHost`)
    agree. WebKit accepts none.
    """
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = host.strip("[]")
    return _as_written(address) and ip_address(address).is_loopback


def _as_written(host: str) -> bool:
    """Whether the host is an IP address in its canonical form, the only form that occurs in a `Host` header."""
    try:
        return str(ip_address(host)) == host
    except ValueError:
        return False


def _is_address(host: str, written: str) -> bool:
    """Whether the host is an IP address; one of version 6 is written in brackets."""
    try:
        return (ip_address(host).version == 6) == written.startswith("[")  # noqa: PLR2004
    except ValueError:
        return False


def _names_a_database(found: dict[str, Any], address: str) -> bool:
    # With an in-memory database each process would have its own.
    if found.get("NAME") in {None, "", ":memory:"} or set(found["HOST"]) & set("[]@#?% "):
        return False
    return _is_port(found["PORT"]) and not re.search(r":0+/", address)


def _is_port(port: Any) -> bool:
    """Whether the port is valid or absent."""
    return not str(port or "").isdigit() or 1 <= int(port) <= _MOST_PORTS
