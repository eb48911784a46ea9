"""`deploy/nginx.conf` on this machine: the shipped file, in which only ports and folders differ."""

import os
import shutil
from pathlib import Path
from typing import Final

from demo.addresses import ROOT

# The groups of processes, by the port that the file gives them.
BOTS: Final = 8000
PEOPLE: Final = 8010
WAITING_BOTS: Final = 8020
HTTPS: Final = 443
HTTP: Final = 80


def executable() -> str | None:
    """Return the path of nginx; None if it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def write_configuration(folder: Path, ports: dict[int, int], certificate_file: Path, key_file: Path) -> Path:
    """Write a configuration that nginx can be started with (`-c`). `ports` has one for each constant above."""
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf8")
    for written, here in {
        "/etc/ssl/delegation.example.pem": str(certificate_file),
        "/etc/ssl/delegation.example.key": str(key_file),
        "/var/log/nginx": str(folder),
        "listen 443": f"listen 127.0.0.1:{ports[HTTPS]}",
        "listen 80": f"listen 127.0.0.1:{ports[HTTP]}",
        **{f"127.0.0.1:{name}": f"127.0.0.1:{ports[name]}" for name in (BOTS, PEOPLE, WAITING_BOTS)},
    }.items():
        assert written in text
        text = text.replace(written, here)
    main = folder / "nginx.conf"
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # The processes that the first one starts work as root only if they are told so; the folder is the caller's.
    account = "user root;\n" if os.geteuid() == 0 else ""
    main.write_text(
        f"daemon off;\n{account}pid {folder}/nginx.pid;\nerror_log {folder}/start.log;\n"
        f"events {{}}\nhttp {{\n{places}{text}\n}}\n",
        encoding="utf8",
    )
    return main
