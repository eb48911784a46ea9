"""`deploy/kubernetes/nginx.conf`, as nginx itself reads it, behind an Ingress controller."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.demo.machines import free_ports
from tests.kubernetes_manifests import FOLDER
from tests.machine import missing
from tests.nginx import BOTS, WAITING_BOTS, executable
from tests.served import wait_for
from tests.site.test_proxy import HOST, group

LISTENING = 8080
# As a controller writes them: its own entry is the last one.
FROM_A_CONTROLLER = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7", "X-Forwarded-Proto": "https"}


@pytest.fixture
def ports() -> dict[int, int]:
    names = (BOTS, WAITING_BOTS, LISTENING)
    return dict(zip(names, free_ports(len(names)), strict=True))


@pytest.fixture
def proxy(tmp_path: Path, ports: dict[int, int]) -> Iterator[requests.Session]:
    """Run nginx with the shipped file; only ports, addresses and folders differ."""
    nginx = executable() or missing("nginx is not installed: deploy/kubernetes/nginx.conf was not read by it")
    text = (FOLDER / "nginx.conf").read_text()
    for written, here in {
        "server web:8000": f"server 127.0.0.1:{ports[BOTS]}",
        "server waiting:8000": f"server 127.0.0.1:{ports[WAITING_BOTS]}",
        "listen 8080": f"listen 127.0.0.1:{ports[LISTENING]}",
        "/tmp/": f"{tmp_path}/",  # noqa: S108  # in the pod
        "/dev/stdout": f"{tmp_path}/delegation.log",
    }.items():
        assert written in text
        text = text.replace(written, here)
    main = tmp_path / "nginx.conf"
    main.write_text(text)
    with (
        subprocess.Popen([nginx, "-e", "stderr", "-c", str(main)], stderr=subprocess.PIPE, text=True) as server,
        ExitStack() as ended,
    ):
        ended.callback(server.terminate)
        wait_for(f"127.0.0.1:{ports[LISTENING]}", server)
        with requests.Session() as client:
            client.trust_env = False
            client.headers.update({"Host": HOST, **FROM_A_CONTROLLER})
            yield client


def test_the_controllers_entry_is_the_clients_address(
    proxy: requests.Session, ports: dict[int, int], tmp_path: Path
) -> None:
    """G8: what the client itself wrote before it is dropped. Long polls have pods of their own."""
    chosen = {"/api/v1/x": BOTS, "/api/v1/x?wait=25": WAITING_BOTS, "/c/planted-link-token?wait=25": BOTS}
    with group(ports, BOTS), group(ports, WAITING_BOTS):
        answers = {path: proxy.get(f"http://127.0.0.1:{ports[LISTENING]}{path}").text for path in chosen}
    assert answers == {path: f"{name} 198.51.100.7" for path, name in chosen.items()}
    log = (tmp_path / "delegation.log").read_text(encoding="utf8")
    assert (log.count(" GET 200 "), "planted-link-token" in log, "198.51.100.7" in log) == (3, False, False)


@pytest.mark.parametrize("said", ["http", ""])
def test_nothing_is_served_over_http(proxy: requests.Session, ports: dict[int, int], said: str) -> None:
    """A controller that passes http on would otherwise be believed to have received https."""
    with group(ports, BOTS):
        answer = proxy.get(
            f"http://127.0.0.1:{ports[LISTENING]}/c/x", headers={"X-Forwarded-Proto": said}, allow_redirects=False
        )
    assert (answer.status_code, answer.headers["Location"]) == (308, "https://delegation.example/c/x")
