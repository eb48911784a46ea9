"""What processes count for Prometheus: in their own files, without a stranger's words, and only if it is wanted."""

import os
import signal
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest

from brands.models import Brand, ServerHealth
from conversations.outbox import exporter
from conversations.outbox.worker import run_once
from infrastructure import metrics, outbox
from infrastructure.models import WorkerHeartbeat
from tests.cast import make_server
from tests.installation import ROOT

COUNT = "from infrastructure import metrics; metrics.start(); metrics.count_limit('calls-per-key'); "


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.METRICS_FOLDER = str(tmp_path)
    return tmp_path


def ended_process(folder: Path, code: str) -> None:
    """Run code in a process that counts, and is killed at its end."""
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    command = f"import django; django.setup(); {COUNT}{code}{kill}"
    environment = os.environ | {"METRICS_FOLDER": str(folder), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


def exposed() -> str:
    served = CollectorRegistry()
    served.register(exporter._FromFiles(exporter._FromDatabase("database", exporter.measure_database, 1)))
    return generate_latest(served).decode()


def value(series: str) -> float | None:
    found = [line.rpartition(" ")[2] for line in exposed().splitlines() if line.rpartition(" ")[0] == series]
    assert len(found) < 2
    return float(found[0]) if found else None


def test_the_counts_of_a_killed_process_stay_and_its_gauges_go(folder: Path) -> None:
    """The bug of a plain sum over living processes: counters fall with each restart, and rates jump."""
    ended_process(folder, "metrics.change_places('call', 1); ")
    ended_process(folder, "metrics.count_limit('calls-per-key'); ")
    assert value('delegation_limits_hit_total{limit="calls-per-key"}') == 3
    assert value('delegation_places_in_use{kind="call"}') is None


def test_the_files_of_ended_processes_become_one(folder: Path) -> None:
    """Each restart would otherwise leave files that every scrape reads."""
    for _ in range(3):
        ended_process(folder, "metrics.count_call('token', 'GET', 200, 0.003); ")
    first = value('delegation_calls_total{method="GET",operation="token",status="200"}')
    again = value('delegation_calls_total{method="GET",operation="token",status="200"}')
    assert (first, again) == (3, 3)
    assert value('delegation_call_seconds_bucket{le="0.0025",operation="token"}') == 0
    assert value('delegation_call_seconds_bucket{le="0.005",operation="token"}') == 3
    assert sorted(path.name for path in folder.iterdir()) == ["counter_ended.db", "histogram_ended.db"]


def test_the_gauges_of_a_living_process_stay(folder: Path) -> None:
    (folder / f"gauge_livesum_{os.getpid()}.db").touch()
    (folder / "gauge_livesum_1.db").touch()
    exporter.fold_ended(folder)
    assert len(list(folder.iterdir())) == 2


def test_what_a_dead_process_was_busy_with_is_forgotten(folder: Path) -> None:
    for pid in (41, 411):
        (folder / f"gauge_livesum_{pid}.db").touch()
    metrics.forget_process(41)
    assert [path.name for path in folder.iterdir()] == ["gauge_livesum_411.db"]


def test_brands_that_are_gone_are_one_series(folder: Path) -> None:
    """Prometheus refuses a whole scrape in which a series is there twice."""
    gone = [uuid.uuid4() for _ in range(2)]
    code = "".join(f"metrics.count_exchange(__import__('uuid').UUID('{one}'), 0.2, 'invalid_grant'); " for one in gone)
    ended_process(folder, code)
    assert value('delegation_exchange_errors_total{brand="(deleted)",error="invalid_grant"}') == 2
    assert not any(str(one) in exposed() for one in gone)


def test_a_method_that_a_stranger_made_up_is_no_label(folder: Path) -> None:
    """H12."""
    ended_process(folder, "metrics.count_call('unmatched', 'PLANTED', 405, 0.1); ")
    assert value('delegation_calls_total{method="other",operation="unmatched",status="405"}') == 1
    assert "PLANTED" not in exposed()


def test_a_folder_that_was_deleted_ends_the_counting_and_no_call(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone:
        @property
        def limits(self) -> Any:
            raise FileNotFoundError

    monkeypatch.setattr(metrics._Process, "measures", Gone())
    metrics.count_limit("calls-per-key")
    metrics.count_limit("calls-per-key")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_without_the_setting_nothing_is_counted_and_the_library_is_not_loaded() -> None:
    loaded = "import sys; assert 'prometheus_client' not in sys.modules"
    code = f"import django; django.setup(); {COUNT}import delegation_site.wsgi; {loaded}"
    environment = os.environ | {"METRICS_FOLDER": "", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


@pytest.mark.django_db
def test_servers_that_are_marked_as_failing_are_counted_by_brand(acme: Brand, rival: Brand) -> None:
    """The bug: a brand whose server was gone raised no alert. If no sign-in gets to the token request, none fails."""
    now = timezone.now()
    for brand, key, since in [
        (acme, "orders", now),
        (acme, "payments", now),
        (acme, "news", None),
        (rival, "orders", None),
    ]:
        ServerHealth.objects.create(
            authorization_server=make_server(brand, key), next_attempt_at=now, failing_since=since
        )
    (family,) = [one for one in exporter.measure_database() if one.name == "delegation_servers_failing"]
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"brand": "acme"}, 2)]


@pytest.mark.django_db
def test_a_worker_says_that_it_runs_and_has_swept() -> None:
    assert outbox.heartbeat() is None
    run_once()
    found = WorkerHeartbeat.objects.get()
    assert found.swept_at is not None
    assert timezone.now() - found.beat_at < timedelta(minutes=1)


@pytest.mark.django_db
def test_a_silent_worker_is_an_error_in_the_log_of_readiness(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The bug: nobody but a waiting webhook noticed that no worker ran; an installation without webhooks never did."""
    outbox.note_heartbeat(timezone.now() - timedelta(minutes=6))
    assert client.get("/health/ready").status_code == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "no worker runs: nothing is delivered, revoked or swept"
    ]


@pytest.mark.django_db
def test_an_installation_whose_worker_was_never_started_is_warned(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get("/health/ready").status_code == 200
    assert [(record.levelname, record.message) for record in caplog.records if record.levelname != "INFO"] == [
        ("WARNING", "no worker has ever run: nothing is delivered, revoked or swept")
    ]


@pytest.mark.django_db
def test_a_worker_that_runs_is_no_error(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    outbox.note_heartbeat(timezone.now() - timedelta(minutes=4))
    assert client.get("/health/ready").status_code == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.django_db
def test_the_heartbeat_keeps_the_moment_of_the_last_sweep() -> None:
    swept, later = timezone.now() - timedelta(minutes=9), timezone.now()
    outbox.note_heartbeat(swept, swept=True)
    outbox.note_heartbeat(later)
    found = WorkerHeartbeat.objects.get()
    assert (found.swept_at, found.beat_at) == (swept, later)
