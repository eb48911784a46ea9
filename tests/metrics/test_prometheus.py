"""A real Prometheus reads a running installation: every question of the dashboard has an answer, and an alert fires."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, Final

import pytest
import requests
import yaml

from tests import databases
from tests.installation import ROOT, Installation
from tests.machine import missing
from tests.served import KEY, installation_at_a_free_port, prepared, serving, wait_for

pytestmark = [pytest.mark.full, pytest.mark.timeout(180)]

MONITORING: Final = ROOT / "deploy" / "monitoring"
NEW_KEY: Final = "key-2:Zr0C2f0XQmYb7tq1sJ6uPpVdKxw4hN8aLo5iE3gTzUk="
# Three sign-ins that browsers have begun, and the bot that may call the API.
BEGIN: Final = """
import json
from django.utils import timezone
from brands.models import Brand
from conversations.flow.authorization_requests import begin_authorization_request
from conversations.flow.challenges import WantedChallenge, issue_challenge
from tests.brand_api import CALLING, make_api
from tests.cast import make_bot, make_server
brand = Brand.objects.create(name="Rival", slug="rival")
urls = {{name: "{base}/" + name for name in ("token_endpoint", "revocation_endpoint", "authorization_endpoint")}}
server = make_server(brand, issuer="", authorization_response_iss_parameter_supported=False,
same_person_checks=["none"], **urls)
make_api(server, "{base}")
begun = []
for number in range(3):
    wanted = WantedChallenge(server=server, same_person_check="none")
    challenge, _ = issue_challenge(brand, f"web:{{number}}", wanted, actor="test", now=timezone.now())
    one = begin_authorization_request(challenge, timezone.now())
    begun.append([server.callback_id, one.parameters["state"], one.authorization_request.cookie_name,
    one.cookie.reveal()])
print(json.dumps([make_bot(brand, *CALLING).key, begun]))
"""
AGE_THE_HEARTBEAT: Final = """
from datetime import timedelta
from infrastructure.models import WorkerHeartbeat
last = WorkerHeartbeat.objects.get()
WorkerHeartbeat.objects.update(beat_at=last.beat_at - timedelta(minutes=10))
"""


@pytest.fixture(scope="session")
def requires_prometheus() -> None:
    """Prometheus and promtool, of Debian's package."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        missing("prometheus is not installed: the alert rules and a real scrape were not tried")


@contextmanager
def brand_server() -> Iterator[str]:
    """A token endpoint that refuses every second code, and an API that answers."""
    codes: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            codes.append(self.path)
            if len(codes) % 2:
                self._answer(200, {"access_token": f"token-{len(codes)}", "token_type": "Bearer", "expires_in": 3600})
            else:
                self._answer(400, {"error": "invalid_grant"})

        def do_GET(self) -> None:
            self._answer(200, {"orders": []})

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def process(command: list[str], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    with TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:
            yield running
        finally:
            running.terminate()
            running.wait(timeout=30)


def parent(pid: int) -> int:
    """The parent of a process. Its own name, in brackets, may hold spaces."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Scene:
    """The installation, its worker and metrics process, and a Prometheus with our rules, of shorter patience."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.counts = folder / "metrics"
        self.counts.mkdir()
        self.exporter, self.port = f"127.0.0.1:{free_port()}", free_port()
        settings = {
            "METRICS_FOLDER": str(self.counts),
            "METRICS_BIND": self.exporter,
            "WORKERS": "2",
            "THREADS": "4",
            "ALLOW_LOCAL_ENDPOINTS": "1",
            "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        }
        base = stack.enter_context(brand_server())
        self.installation = installation_at_a_free_port(folder, **settings)
        self.reader = prepared(self.installation, ["completed"])["key"]
        self.installation.encryption_keys = f"{NEW_KEY},{KEY}"
        lines = self.installation.python(BEGIN.format(base=base)).splitlines()
        self.caller, self.begun = json.loads(lines[-1])
        stack.enter_context(serving(self.installation))
        self.worker = stack.enter_context(self.command("worker"))
        wait_for(self.exporter, stack.enter_context(self.command("metrics")))
        stack.enter_context(self._prometheus(folder))

    def command(self, name: str) -> Any:
        environment = self.installation.environment
        return process([sys.executable, "manage.py", name], cwd=ROOT, env=environment)

    def _prometheus(self, folder: Path) -> Any:
        rules = (MONITORING / "alerts.yml").read_text()
        (folder / "alerts.yml").write_text(re.sub(r"for: \w+", "for: 1s", rules))
        configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [self.exporter]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        return process([
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ])  # fmt: skip

    def come_back(self) -> None:
        """Bring a code to the callback, as the next browser that began."""
        callback_id, state, cookie, value = self.begun.pop()
        requests.get(
            f"{self.url}/callback/{callback_id}", params={"code": "a-code", "state": state},
            headers={"Cookie": f"{cookie}={value}"}, timeout=30, allow_redirects=False,
        )  # fmt: skip

    def bots_work(self) -> None:
        """Read a token, call the API with those of the sign-ins, ask with a wrong key, and for what is not there."""
        self.ask("GET", "/api/v1/conversations/web:0/token", self.reader)
        for number in range(3):
            self.ask("POST", f"/api/v1/conversations/web:{number}/calls/orders.list", self.caller)
        for _ in range(12):
            self.ask("GET", "/api/v1/operations", "wrong")
        self.ask("GET", "/PLANTED-path", self.reader)

    def ask(self, method: str, path: str, key: str) -> int:
        return self.answer(method, path, key).status_code

    def answer(self, method: str, path: str, key: str, **headers: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {key}"} | headers
        body: dict[str, Any] | None = {} if method == "POST" else None
        return requests.request(method, self.url + path, headers=headers, json=body, timeout=30)

    def press(self, link: str) -> int:
        """Press the button of a link, without following it to the brand."""
        token = "0123456789abcdef" * 2  # of Django's CSRF check: the same in form and cookie
        form, headers = {"csrfmiddlewaretoken": token}, {"Origin": self.url, "Cookie": f"__Host-csrf={token}"}
        return requests.post(link, data=form, headers=headers, timeout=30, allow_redirects=False).status_code

    @property
    def url(self) -> str:
        return self.installation.settings["PUBLIC_BASE_URL"]

    def web_processes(self) -> list[int]:
        """Those that count and whose parent counts, too: gunicorn's own process has loaded the application."""
        pids = {int(path.stem.rpartition("_")[2]) for path in self.counts.glob("counter_*[0-9].db")}
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        return [pid for pid in alive if parent(pid) in pids]

    def scrape(self) -> str:
        return requests.get(f"http://{self.exporter}/metrics", timeout=30).text

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self._of_prometheus("query", query=expression)["result"]
        return found

    def firing(self) -> set[str]:
        found = self._of_prometheus("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def _of_prometheus(self, what: str, **parameters: str) -> Any:
        nothing: dict[str, list[Any]] = {"result": [], "alerts": []}
        try:
            answer = requests.get(f"http://127.0.0.1:{self.port}/api/v1/{what}", params=parameters, timeout=30)
        except requests.ConnectionError:  # it starts
            return nothing
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:  # it has started and is not ready
            return nothing
        return answer.json().get("data", nothing)


@pytest.fixture
def scene(tmp_path: Path, requires_prometheus: None) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


def eventually(ask: Callable[[], bool], seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline
        meanwhile()
        time.sleep(0.5)


def questions() -> list[str]:
    """The queries of the dashboard. On SQLite nobody has a connection to count."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [one for one in found if "database_connections" not in one or databases.chosen() == databases.POSTGRESQL]


def test_promtool_accepts_the_rules_and_each_alert_fires_when_it_should(requires_prometheus: None) -> None:
    cases = sorted(Path(__file__).parent.glob("alerts*_test.yml"))
    for command in (
        ["check", "rules", str(MONITORING / "alerts.yml")],
        ["check", "config", str(MONITORING / "prometheus.yml")],
        ["test", "rules", *map(str, cases)],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_answers_the_dashboard_and_tells_of_a_dead_worker(scene: Scene) -> None:
    """H12. One installation for all of it, because it takes seconds to start."""
    unanswered = set(questions())

    def all_answered() -> bool:
        unanswered.difference_update({one for one in unanswered if scene.query(one)})
        return not unanswered

    def traffic() -> None:
        if scene.begun:
            scene.come_back()
        scene.bots_work()

    try:
        eventually(all_answered, 60, traffic)
    finally:
        assert unanswered == set()

    text = scene.scrape()
    assert 'delegation_exchange_errors_total{brand="rival",error="invalid_grant"} 1.0' in text
    assert 'delegation_api_calls_total{brand="rival",outcome="2xx"}' in text
    assert 'delegation_token_reads_total{brand="acme"}' in text
    assert 'delegation_challenges_total{brand="rival",outcome="completed"} 2.0' in text
    assert "delegation_workers 1.0" in text
    hidden = ("PLANTED", "web:", "127.0.0.1", scene.reader, scene.caller, "orders.list", "token-")
    assert [one for one in hidden if one in text] == []

    assert "DelegationWorkerSilent" not in scene.firing()
    scene.worker.send_signal(signal.SIGKILL)
    scene.worker.wait(timeout=10)
    scene.installation.python(AGE_THE_HEARTBEAT)
    eventually(lambda: "DelegationWorkerSilent" in scene.firing(), 40)
    assert "delegation_workers 0.0" in scene.scrape()


def test_each_call_is_counted_once_by_operation_and_status_whatever_answers_it(scene: Scene) -> None:
    """Five operations are answered before Django's handler if nothing is in the way, or else by its views."""
    chat, caller = "/api/v1/conversations/web:new/challenges", scene.caller
    created = scene.answer("POST", chat, caller)
    challenge = f"/api/v1/challenges/{created.json()['challenge_id']}"
    again = scene.answer("POST", chat, caller)
    reads = [scene.answer("GET", challenge, caller) for _ in range(3)]
    unchanged = scene.answer("GET", challenge, caller, **{"If-None-Match": reads[-1].headers["ETag"]})
    foreign = scene.answer("GET", challenge, scene.reader)
    statuses = [one.status_code for one in (created, again, *reads, unchanged, foreign)]
    assert statuses == [201, 200, 200, 200, 200, 304, 404]
    assert scene.press(created.json()["url"]) == 303
    scene.come_back()
    calls = [scene.ask("POST", f"/api/v1/conversations/web:{number}/calls/orders.list", caller) for number in range(3)]
    assert sorted(calls) == [200, 409, 409]
    for _ in range(2):
        assert scene.ask("GET", "/api/v1/conversations/web:0/token", scene.reader) == 200
    counted = re.findall(r"^delegation_calls_total\{(.*)\} (.*)$", scene.scrape(), re.MULTILINE)
    assert {labels: float(number) for labels, number in counted if "ready" not in labels} == {
        'method="POST",operation="challenges",status="201"': 1, 'method="POST",operation="challenges",status="200"': 1,
        'method="GET",operation="challenge",status="200"': 3, 'method="GET",operation="challenge",status="304"': 1,
        'method="GET",operation="challenge",status="404"': 1, 'method="POST",operation="link",status="303"': 1,
        'method="GET",operation="callback",status="303"': 1, 'method="GET",operation="token",status="200"': 2,
        'method="POST",operation="call",status="200"': 1, 'method="POST",operation="call",status="409"': 2,
    }  # fmt: skip


def test_sums_stay_right_when_processes_are_killed(scene: Scene) -> None:
    """The bug of sums over living processes: they fall when one is killed, and Prometheus takes that for a restart."""
    asked = 20
    for _ in range(asked):
        assert scene.ask("GET", "/api/v1/conversations/web:0/token", scene.reader) == 200
    reads = 'delegation_calls_total{method="GET",operation="token",status="200"}'
    assert f"{reads} {asked}.0" in scene.scrape()
    killed = scene.web_processes()
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in killed), 20)
    assert scene.ask("GET", "/api/v1/conversations/web:0/token", scene.reader) == 200
    assert f"{reads} {asked + 1}.0" in scene.scrape()


def test_the_commands_names_a_setting_that_lacks_and_an_address_in_use(tmp_path: Path) -> None:
    installation = Installation(tmp_path, KEY)
    refused = installation.run("manage.py", "metrics")
    assert (refused.returncode, "Set METRICS_FOLDER" in refused.stderr) == (1, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        installation.settings |= {"METRICS_FOLDER": str(tmp_path), "METRICS_BIND": address}
        refused = installation.run("manage.py", "metrics")
    assert (refused.returncode, "METRICS_BIND cannot be used" in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr
