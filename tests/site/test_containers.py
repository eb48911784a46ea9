"""`deploy/container`: what its files name is in the project, and no more gets into the image than the product."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands
from django.urls import reverse

from conversations.outbox.worker import threads_of_worker
from tests.systemd_units import unit
from tests.test_house import PRODUCT, ROOT

FOLDER: Final = ROOT / "deploy" / "container"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
CONTAINERFILE: Final = (FOLDER / "Containerfile").read_text().replace("\\\n", "")
BUILD, FINAL = CONTAINERFILE.split("\nFROM ${BASE}\n")
IGNORED: Final = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
OURS: Final = {
    name: service
    for name, service in COMPOSE["services"].items()
    if service["image"].startswith("consumer-delegation:")
}
WEB_UNIT: Final = unit(ROOT / "deploy" / "delegation-web@.service")
# What the operator makes beside the compose file; git and the image leave these out.
MADE_BY_THE_OPERATOR: Final = frozenset({
    ".env", "postgresql-password", "tls/delegation.example.pem", "tls/delegation.example.key",
})  # fmt: skip
# Connections that PostgreSQL keeps for superusers, and those of two commands at once.
RESERVED: Final = 3
OF_COMMANDS: Final = 2
OF_METRICS: Final = 2


def copied() -> set[str]:
    """Return what the Containerfile copies from the project."""
    words = [line.split()[1:-1] for line in BUILD.splitlines() if line.startswith("COPY")]
    return {word for line in words for word in line}


def command(service: dict[str, Any]) -> list[str]:
    return [*service.get("entrypoint", []), *service.get("command", [])]


def served_by_systemd() -> list[str]:
    """Return the command of the web unit, without the folder that the program is in."""
    program, *arguments = WEB_UNIT["Service"]["ExecStart"].split()
    return [Path(program).name, *arguments]


def test_every_variable_is_a_setting() -> None:
    read = set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", (ROOT / "delegation_site" / "settings.py").read_text()))
    of_the_image = set(re.findall(r"\b([A-Z_]+)=", FINAL.partition("ENV ")[2].partition("\n")[0]))
    given = {name for service in OURS.values() for name in service["environment"]}
    assert (given - read, of_the_image - read) == (set(), {"PATH", "PYTHONDONTWRITEBYTECODE", "MALLOC_ARENA_MAX"})
    assert {"BIND", "METRICS_FOLDER", "REDIS_URL", "TRUSTED_PROXY_COUNT"} <= given | of_the_image


def test_every_command_is_there() -> None:
    """The web groups and the image start as the systemd unit does; `manage.py` knows the rest."""
    web = served_by_systemd()
    with_metrics = ["sh", "with-metrics.sh"]
    assert {name: command(service) for name, service in OURS.items()} == {
        "web": [*with_metrics, *web],
        "waiting": [*with_metrics, *web],
        "worker": [*with_metrics, "python", "manage.py", "worker"],
        "manage": ["python", "manage.py", "check", "--database", "default"],
    }
    assert f"CMD {web}".replace("'", '"') == FINAL.splitlines()[-1]
    called = re.findall(r"manage\.py (\w+)\b(?!\.)", BUILD + (FOLDER / "with-metrics.sh").read_text())
    assert [name for name in called if name not in get_commands()] == ["init"]  # there are no settings yet


def test_the_image_has_the_whole_product_and_nothing_else() -> None:
    scripts = {"deploy/container/health.py", "deploy/container/with-metrics.sh"}
    files = {"manage.py", "openapi.yaml", "requirements.txt", "constraints.txt"}
    assert copied() == {*PRODUCT, "locale", "static", "templates", *files, *scripts}
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def test_what_the_image_copies_is_all_that_its_build_can_see() -> None:
    """K3, H1: settings, keys, databases and the history stay out, also those inside of a folder that is let in."""
    assert IGNORED[0] == "*"
    allowed = [line.removeprefix("!") for line in IGNORED if line.startswith("!")]
    assert (set(allowed), len(allowed)) == (copied(), len(copied()))
    # The last rule that fits decides.
    assert IGNORED[len(allowed) + 1 :] == ["**/.*", "**/__pycache__", "**/*.key", "**/*.pem", "**/*.sqlite3*"]


@pytest.mark.parametrize("name", sorted(MADE_BY_THE_OPERATOR))
def test_git_ignores_what_the_operator_makes(name: str) -> None:
    """K3."""
    told = subprocess.run(["git", "check-ignore", "-q", FOLDER / name], cwd=ROOT, check=False)
    assert told.returncode == 0


def test_every_file_of_the_compose_file_is_there_or_made_by_the_operator() -> None:
    services = COMPOSE["services"].values()
    mounted = {volume.partition(":")[0] for service in services for volume in service.get("volumes", [])}
    named = {path.removeprefix("./") for path in mounted if path not in COMPOSE["volumes"]}
    named |= {service["env_file"] for service in OURS.values()}
    named |= {secret["file"].removeprefix("./") for secret in COMPOSE["secrets"].values()}
    assert named - MADE_BY_THE_OPERATOR == {"nginx.conf", "postgresql.sql"}
    assert named >= MADE_BY_THE_OPERATOR
    assert [name for name in named - MADE_BY_THE_OPERATOR if not (FOLDER / name).is_file()] == []


def test_images_of_others_have_a_version_and_no_registry() -> None:
    base = re.findall(r"^ARG BASE=(\S+)$", CONTAINERFILE, re.MULTILINE)
    images = [service["image"] for name, service in COMPOSE["services"].items() if name not in OURS]
    assert len(base + images) == 4
    assert [one for one in base + images if not re.fullmatch(r"[a-z]+(/[a-z]+)?:\d+(\.\d+)*-[\w.-]+", one)] == []


@pytest.mark.parametrize("name", sorted(OURS))
def test_no_container_of_ours_may_do_more_than_it_needs(name: str) -> None:
    service = OURS[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "\nUSER 10001:10001\n" in FINAL
    # Nothing else can be written.
    folder = service["environment"].get("METRICS_FOLDER")
    assert service["tmpfs"] == ["/tmp", *([folder] if folder else [])]  # noqa: S108  # in the container


def test_a_container_has_as_long_to_stop_as_a_unit() -> None:
    assert {service["stop_grace_period"] for service in OURS.values()} == {f"{WEB_UNIT['Service']['TimeoutStopSec']}s"}


def test_the_group_for_long_polls_gives_way_to_the_others() -> None:
    """Weights of 10 and 100, and shares of 102 and 1,024: the defaults are 100 and 1,024."""
    polls = unit(ROOT / "deploy" / "delegation-web@8020.service.d" / "yield.conf")["Service"]
    assert polls["CPUWeight"] == "10"
    assert {name: service.get("cpu_shares") for name, service in OURS.items()} == {
        "web": None, "waiting": 102, "worker": None, "manage": None,
    }  # fmt: skip


def test_threads_share_two_heaps() -> None:
    assert "MALLOC_ARENA_MAX=2" in FINAL
    worker = unit(ROOT / "deploy" / "delegation-worker@.service")
    assert {one["Service"]["Environment"] for one in (WEB_UNIT, worker)} == {"MALLOC_ARENA_MAX=2"}


def test_postgresql_allows_all_connections() -> None:
    most = int(COMPOSE["services"]["postgresql"]["command"][-1].removeprefix("max_connections="))
    counted = [service for service in OURS.values() if "METRICS_FOLDER" in service["environment"]]
    web = 2 * settings.WORKERS * settings.THREADS
    needed = web + threads_of_worker() + 1 + OF_METRICS * len(counted) + OF_COMMANDS
    assert needed <= most - RESERVED


def test_the_probe_asks_for_readiness() -> None:
    assert f'"{reverse("ready")}"' in (FOLDER / "health.py").read_text()
    assert 'CMD ["python", "health.py"]' in FINAL
    assert {name for name, service in OURS.items() if "healthcheck" not in service} == {"web", "waiting"}


def test_database_and_redis_have_no_way_out() -> None:
    assert COMPOSE["networks"]["back"] == {"internal": True}
    assert {name: COMPOSE["services"][name]["networks"] for name in ("postgresql", "redis", "nginx")} == {
        "postgresql": ["back"], "redis": ["back"], "nginx": ["front"],
    }  # fmt: skip
    ports = [port for service in OURS.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []  # metrics have no password (H12)


def test_the_operators_page_names_addresses_ports_and_services_as_they_are() -> None:
    page = (ROOT / "docs" / "operator.md").read_text()
    chapter = page.partition("\n## Containers\n")[2].partition("\n## ")[0]
    addresses = [service["networks"]["front"]["ipv4_address"] for service in (OURS["web"], OURS["waiting"])]
    ports = {name: service["ports"][0].split(":")[1] for name, service in OURS.items() if "ports" in service}
    assert [f"`{addresses[0]}` and `.{addresses[1].rpartition('.')[2]}`" in chapter] == [True]
    assert [f"{port} (`{name}`)" in chapter for name, port in ports.items()] == [True] * 3
    used = set(re.findall(r"(?:run --rm|exec -T) ([a-z]+)", chapter)) | set(
        re.findall(r"up -d ([a-z ]+)", chapter)[0].split()
    )
    assert used == {"manage", "postgresql", "redis"}
    assert used <= COMPOSE["services"].keys()


def test_nginx_has_the_rules_of_the_shipped_file() -> None:
    """Other addresses and logs, and a time-out for a container that is stopped; every other line is the same."""
    shipped = (ROOT / "deploy" / "nginx.conf").read_text()
    for written, here in {
        "server 127.0.0.1:8020; server 127.0.0.1:8000 backup": "server waiting:8000; server web:8000 backup",
        "server 127.0.0.1:8000": "server web:8000",
        "server 127.0.0.1:8010": "server web:8000",
        "/var/log/nginx/delegation.log": "/dev/stdout",
        "/var/log/nginx/delegation.error.log": "/dev/stderr",
    }.items():
        assert written in shipped
        shipped = shipped.replace(written, here)
    lines = [line for line in (FOLDER / "nginx.conf").read_text().splitlines() if "proxy_connect_timeout" not in line]
    assert _rules(lines) == _rules(shipped.splitlines())


def _rules(lines: list[str]) -> list[str]:
    return [line for line in lines if line and not line.startswith("#")]
