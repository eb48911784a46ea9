"""`manage.py init`: write the first `.env` of an installation.

`manage.py` calls it before Django, because the settings refuse to load without the values that it makes.
"""

import argparse
import base64
import getpass
import os
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from delegation_site.environment import Environment, canonical_origin, is_loopback, origin_host
from infrastructure.crypto import KEY_BYTES

# Read alike by django-environ, by systemd's EnvironmentFile and by a shell.
_PLAIN: Final = re.compile(r"[A-Za-z0-9:/@._%+=,?~-]+")
_NEXT_STEPS: Final = """\
{path} is written, for {origin}. It holds secrets: keep a copy where no backup of the database is.
{proxy}What else it can hold is in .env.example and docs/operator.md, "Settings". Next:

  {python} manage.py check --deploy
  {python} manage.py migrate --no-input
  {python} manage.py check --database default
  {python} manage.py createsuperuser
"""

_ONE_PROXY: Final = """\
It counts one proxy (TRUSTED_PROXY_COUNT=1), the one that terminates TLS, such as nginx with deploy/nginx.conf.
"""


def main(arguments: Sequence[str], folder: Path) -> int:
    """Write `.env` into the folder and print the next steps, never a secret.

    Return the exit status: 0, or 1 if a value cannot be used or the file exists. A wrong option ends the process.
    """
    options = _parser().parse_args(arguments)
    origin = canonical_origin(options.public_base_url)
    host = origin_host(origin)
    if not host or not (origin.startswith("https:") or is_loopback(host)):
        return _refuse("PUBLIC_BASE_URL must be an https origin such as https://delegation.example.")
    values = {"SECRET_KEY": secrets.token_urlsafe(50), "ENCRYPTION_KEYS": _new_key(), "PUBLIC_BASE_URL": origin}
    if origin.startswith("https:") and not is_loopback(host):
        values["TRUSTED_PROXY_COUNT"] = "1"  # the proxy that terminates TLS
    if options.ask_database_url:
        values["DATABASE_URL"] = _asked_database_url()
        if mistake := _mistake_of_database_url(values["DATABASE_URL"]):
            return _refuse(mistake)
    path = folder / ".env"
    try:
        _write(path, "".join(f"{name}={_quoted(value)}\n" for name, value in values.items()))
    except FileExistsError:
        return _refuse(f"{path} exists and is left as it is: without its keys nothing encrypted can be read.")
    proxy = _ONE_PROXY if "TRUSTED_PROXY_COUNT" in values else ""
    sys.stdout.write(_NEXT_STEPS.format(path=path, origin=origin, python=sys.executable, proxy=proxy))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manage.py init", description="Write the first .env, with new keys, beside manage.py.", allow_abbrev=False
    )
    parser.add_argument("public_base_url", help="where consumers reach the service: https://delegation.example")
    parser.add_argument(
        "--ask-database-url", action="store_true", help="read DATABASE_URL from standard input; without it: SQLite"
    )
    return parser


def _new_key() -> str:
    return "k1:" + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def _asked_database_url() -> str:
    """Read the URL without an echo. An argument would show its password to every process of the machine."""
    if sys.stdin.isatty():
        return getpass.getpass("DATABASE_URL (not shown): ").strip()
    return sys.stdin.readline().strip()


def _mistake_of_database_url(url: str) -> str:
    """Return why the settings would refuse the URL, or ''. It does not repeat the URL."""
    if not _PLAIN.fullmatch(url.replace("&", "")):
        return "DATABASE_URL is not written: special characters of the password are percent-encoded."
    os.environ["DATABASE_URL"] = url
    read = Environment()
    read.database("DATABASE_URL", default="")
    return "\n".join(read.mistakes)


def _quoted(value: str) -> str:
    # A shell that reads the file would take an ampersand for its own.
    return f'"{value}"' if "&" in value else value


def _write(path: Path, text: str) -> None:
    """Create the file, for its owner alone. Raises FileExistsError, also for a symbolic link that leads nowhere."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _refuse(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 1
