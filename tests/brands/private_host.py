"""Two machines of this machine's own: in one namespace of the network a brand's server, in the other one our transport.

`python -m tests.brands.private_host FOLDER` has to run in a namespace of its own (`unshare --net --mount`), so that
nothing leaves it. It prints what became of each call, as JSON. FOLDER has the CA, a certificate and its key.
"""

import json
import os
import ssl
import subprocess
import sys
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Final

import django

HOSTS: Final = """\
127.0.0.1 localhost
10.20.0.5 login.acme.internal
10.20.0.5 mixed.acme.internal
10.99.0.5 mixed.acme.internal
10.20.0.1 own.acme.internal
10.20.0.6 database.internal
10.20.0.6 moved.acme.internal
fd12:3456:789a::5 six.acme.internal
"""
NAMES: Final = tuple(line.split()[1] for line in HOSTS.splitlines())
PORT: Final = 8443


class Answer(BaseHTTPRequestHandler):
    """Answers with the number of the connection, which stays open."""

    protocol_version = "HTTP/1.1"
    connections = count(1)

    def setup(self) -> None:
        self.number = next(self.connections)
        super().setup()

    def do_GET(self) -> None:
        body = json.dumps(self.number).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


class DualStack(ThreadingHTTPServer):
    address_family = 10  # AF_INET6, which takes IPv4 as well


def serve(folder: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server = DualStack(("::", PORT), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    server.serve_forever()


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


def connect_namespaces(pid: int) -> None:
    """Lay a cable between this namespace and that of the process."""
    run("ip", "link", "add", "ours", "type", "veth", "peer", "name", "theirs")
    run("ip", "link", "set", "theirs", "netns", str(pid))
    for prefix, device, end in (((), "ours", 1), (("nsenter", "-t", str(pid), "-n"), "theirs", 5)):
        for address in (f"10.20.0.{end}/24", f"10.20.0.{end + 1}/24"):
            run(*prefix, "ip", "addr", "add", address, "dev", device)
        run(*prefix, "ip", "-6", "addr", "add", f"fd12:3456:789a::{end}/64", "dev", device, "nodad")
        run(*prefix, "ip", "link", "set", device, "up")


def outcome(name: str, networks: tuple[Any, ...] | None, port: int = PORT) -> Any:
    """Call a name in the networks of one brand; None stands for code that sets none. Return the answer or the error."""
    from oauth_client import addresses, transport  # noqa: PLC0415  Django is set up by now

    try:
        with nullcontext() if networks is None else addresses.allowing(networks):
            return transport.get(f"https://{name}:{port}/").json()
    except transport.OutboundError as error:
        return type(error).__name__


def outcomes() -> dict[str, Any]:
    from django.conf import settings  # noqa: PLC0415  Django is set up by now

    from oauth_client import addresses  # noqa: PLC0415

    allowed = [addresses.private_network(one, frozenset({PORT})) for one in ("10.20.0.0/16", "fd12:3456:789a::/48")]
    acme, login = tuple(allowed), "login.acme.internal"
    found = {
        "acme": [outcome(login, acme), outcome(login, acme)],
        "rival, beside the open connection": [outcome(login, ()), outcome(login, None)],
        "acme again": outcome(login, acme),
        "acme, IPv6": outcome("six.acme.internal", acme),
        "another port": outcome(login, acme, 9443),
        "an address that is not allowed beside one that is": outcome("mixed.acme.internal", acme),
        "our own machine": outcome("own.acme.internal", acme),
        "our database": outcome("moved.acme.internal", acme),
    }
    settings.OUTBOUND_CA_FILE = ""
    return found | {"without the private CA": outcome(login, acme)}


def main(folder: Path) -> None:
    (folder / "hosts").write_text(HOSTS)
    run("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
    command = ["unshare", "--net", sys.executable, "-m", __spec__.name, str(folder), "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            connect_namespaces(server.pid)
            sys.stdout.write(json.dumps(outcomes()) + "\n")
        finally:
            server.terminate()


if __name__ == "__main__":
    if sys.argv[2:] == ["serve"]:
        serve(Path(sys.argv[1]))
    else:
        run("ip", "link", "set", "lo", "up")  # urllib3 tries ::1 when it is imported
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
        django.setup()
        from django.conf import settings as ours

        ours.ALLOW_LOCAL_ENDPOINTS, ours.OWN_HOSTS = False, ["database.internal"]
        ours.OUTBOUND_CA_FILE = str(Path(sys.argv[1]) / "ca.pem")
        main(Path(sys.argv[1]))
