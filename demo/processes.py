"""Start the demo's servers as processes, wait until they answer, and always stop them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
import trustme

from demo.addresses import ROOT, DemoError

SECONDS_TO_START = 90  # a busy machine has needed more than 30
SECONDS_TO_STOP = 6
LINES_OF_LOG = 25
# One process each: the sample brand keeps authorization codes in memory, and the chat its conversations.
SMALL = ("--workers", "1", "--threads", "8", "--no-control-socket")
AS_IN_PRODUCTION = ("--config", "delegation_site/gunicorn.py")


@dataclass(frozen=True)
class Server:
    name: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(frozen=True)
class Certificate:
    """The files of a server certificate, its key, and the CA certificate that clients must trust."""

    certificate_file: Path
    key_file: Path
    ca_file: Path


def throw_away_certificate(folder: Path) -> Certificate:
    """Make a certificate for localhost, and a CA that only the demo's servers trust.

    The CA's key is not stored, and the CA is added to no trust store. So browsers show a warning.
    """
    authority = trustme.CA(organization_name="Consumer Delegation's demo")
    issued = authority.issue_cert("localhost", "127.0.0.1", "::1")
    files = Certificate(folder / "demo.crt", folder / "demo.key", folder / "demo-authority.pem")
    authority.cert_pem.write_to_path(str(files.ca_file))
    files.key_file.touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(files.key_file))
    files.certificate_file.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return files


@dataclass
class Servers:
    """A context manager that stops all its processes at the end, also after an exception."""

    log_folder: Path
    certificate: Certificate | None = None
    running: list[Server] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave processes running.
        ignored = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        for server in reversed(list(self.running)):
            self.stop(server)
        for number, handler in ignored.items():
            signal.signal(number, handler)

    def start(
        self,
        name: str,
        module: str,
        port: int,
        environment: Mapping[str, str],
        health_path: str,
        *,
        options: Sequence[str] = SMALL,
    ) -> Server:
        server = self._run(name, gunicorn_command(module, port, (*options, *self.tls_options)), environment)
        scheme, trusted = ("https", str(self.certificate.ca_file)) if self.certificate else ("http", True)
        wait_until_it_answers(server, f"{scheme}://127.0.0.1:{port}{health_path}", trusted)
        return server

    def start_worker(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Server:
        """Start a process that listens on no port, without waiting for it."""
        return self._run(name, [sys.executable, *arguments], environment)

    def _run(self, name: str, command: list[str], environment: Mapping[str, str]) -> Server:
        log = self.log_folder / f"{name.replace(' ', '-')}.log"
        with log.open("ab") as output:
            # In a new session, so that Ctrl-C reaches only the demo, which then stops its servers in order.
            process = subprocess.Popen(  # noqa: S603  our own arguments
                command, cwd=ROOT, env=dict(environment),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        server = Server(name, process, log)
        self.running.append(server)
        return server

    @property
    def tls_options(self) -> tuple[str, ...]:
        if not self.certificate:
            return ()
        return ("--certfile", str(self.certificate.certificate_file), "--keyfile", str(self.certificate.key_file))

    def stop(self, server: Server) -> None:
        self.running.remove(server)
        signal_group(server.process, signal.SIGTERM)
        try:
            server.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            signal_group(server.process, signal.SIGKILL)
            server.process.wait()

    def logs(self) -> str:
        return "\n".join(tail(path) for path in sorted(self.log_folder.glob("*.log")))


def gunicorn_command(module: str, port: int, options: Sequence[str]) -> list[str]:
    address = f"127.0.0.1:{port}"
    return [sys.executable, "-m", "gunicorn", *options, "--bind", address, "--graceful-timeout", "2", module]


def wait_until_it_answers(server: Server, url: str, trusted: str | bool) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise DemoError(f"The {server.name} did not start.\n{tail(server.log)}")
        try:
            answer = requests.get(url, timeout=2, allow_redirects=False, verify=trusted)
            if answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise DemoError(f"The {server.name} does not answer at {url} after {SECONDS_TO_START} s.\n{tail(server.log)}")


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LINES_OF_LOG:]
    return "\n".join([f"--- the last lines of {log} ---", *lines])


def run_command(arguments: list[str], environment: Mapping[str, str], given: str = "") -> str:
    """Run a command and return its output. Raises `DemoError` with the output if it fails."""
    done = subprocess.run(  # noqa: S603  our own arguments
        [sys.executable, *arguments], cwd=ROOT, env=dict(environment), input=given, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise DemoError(f"`python {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
