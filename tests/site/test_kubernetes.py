"""`deploy/kubernetes`: the processes of `deploy/container`, as Kubernetes runs them."""

import re
import shutil
import subprocess
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands
from django.urls import reverse

from conversations.outbox.worker import threads_of_worker
from delegation_site import gunicorn
from tests.kubernetes_manifests import (
    COMPONENT,
    FOLDER,
    PART_OF,
    container,
    environment,
    kustomization,
    manifests,
    of_kind,
    pod_templates,
    ports,
    selected,
    values_in,
)
from tests.machine import missing
from tests.site.test_containers import FINAL, OF_COMMANDS, OF_METRICS, OURS, RESERVED, WEB_UNIT, command
from tests.test_house import ROOT

TEMPLATES: Final = pod_templates()
# Those of ours; nginx is the other.
PRODUCTS: Final = {name: one for name, one in TEMPLATES.items() if container(one)["image"] == "consumer-delegation"}
WEB: Final = ("web", "waiting")
PAGE: Final = (ROOT / "docs" / "operator.md").read_text()
CHAPTER: Final = PAGE.partition("\n## Kubernetes\n")[2].partition("\n## ")[0]
# The oldest version whose schemas the package has, and the newest.
VERSIONS: Final = ("1.25", "1.37")


def replaced(text: str, changes: dict[str, str]) -> str:
    for written, here in changes.items():
        assert written in text
        text = text.replace(written, here)
    return text


def test_every_file_is_applied() -> None:
    applied = {"kustomization.yaml", *kustomization(FOLDER)["resources"], "nginx.conf"}
    applied |= {
        f"migration/{name}" for name in ("kustomization.yaml", *kustomization(FOLDER / "migration")["resources"])
    }
    applied |= {"version/kustomization.yaml"}
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()} == applied


def test_service_and_migration_run_one_image_in_one_namespace() -> None:
    folders = {"version": FOLDER, "../version": FOLDER / "migration"}
    assert {kustomization(folder)["components"][0]: folder for folder in folders.values()} == folders
    assert {kustomization(folder)["namespace"] for folder in folders.values()} == set(of_kind("Namespace"))
    (image,) = kustomization(FOLDER / "version")["images"]
    assert {container(one)["image"] for one in TEMPLATES.values()} == {image["name"], "nginx:1.28-alpine"}
    assert set(TEMPLATES) - set(PRODUCTS) == {"nginx"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_of_kubernetes_allow_every_manifest(version: str) -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_refuse_what_is_not_in_them() -> None:
    wrong: dict[str, Any] = deepcopy(of_kind("Deployment")["web"])
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 40
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_variable_is_a_setting() -> None:
    read = set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", (ROOT / "delegation_site" / "settings.py").read_text()))
    assert {name for one in TEMPLATES.values() for name in environment(one)} - read == set()


@pytest.mark.parametrize("name", [*WEB, "worker"])
def test_variables_are_those_of_the_containers(name: str) -> None:
    """But for Redis, which is the operator's own, and what only a cluster has."""
    compose = {key: value for key, value in OURS[name]["environment"].items() if key != "REDIS_URL"}
    processes = {"WORKERS": "1"} if name in WEB else {}
    hosts = f"{compose['OWN_HOSTS']},pods,kubernetes.default.svc"
    assert environment(TEMPLATES[name]) == compose | processes | {"OWN_HOSTS": hosts}


def test_own_hosts_are_all_services_and_the_clusters_api() -> None:
    """N14. The headless service has the address of each pod."""
    hosts = environment(TEMPLATES["web"])["OWN_HOSTS"].split(",")
    assert (set(of_kind("Service")), "kubernetes.default.svc") == (set(hosts[:-1]), hosts[-1])
    pods = of_kind("Service")["pods"]["spec"]
    assert (pods["clusterIP"], pods["publishNotReadyAddresses"]) == ("None", True)
    assert selected({"matchLabels": pods["selector"]}) == set(TEMPLATES)


def test_commands_are_those_of_the_containers() -> None:
    commands = {name: [*container(one)["command"], *container(one).get("args", [])] for name, one in TEMPLATES.items()}
    manage = OURS["manage"]["entrypoint"]
    assert commands == {
        **{name: command(OURS[name]) for name in (*WEB, "worker")},
        "migrate": [*manage, "migrate", "--no-input"],
        "prune": [*manage, "prune"],
        "nginx": ["nginx", "-e", "stderr", "-c", "/etc/delegation/nginx.conf"],
    }
    assert {"migrate", "prune"} <= set(get_commands())


def test_the_waiting_group_is_the_web_group_but_gives_way() -> None:
    """In the ratio of the containers' shares, where 1,024 is the default."""
    asked = {name: container(TEMPLATES[name])["resources"]["requests"]["cpu"].removesuffix("m") for name in WEB}
    shares = OURS["waiting"]["cpu_shares"]
    assert round(1024 * int(asked["waiting"]) / int(asked["web"])) == shares
    web, waiting = ((FOLDER / f"{name}.yaml").read_text() for name in WEB)
    as_waiting = replaced(web, {f"cpu: {asked['web']}m": f"cpu: {asked['waiting']}m", "name: web\n": "name: waiting\n"})
    as_waiting = replaced(as_waiting, {f"{COMPONENT}: web": f"{COMPONENT}: waiting"})
    assert list(yaml.safe_load_all(as_waiting)) == list(yaml.safe_load_all(waiting))


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_no_pod_may_do_more_than_it_needs(name: str) -> None:
    """As the containers, and without a token for the cluster's API."""
    pod = TEMPLATES[name]["spec"]
    user = {"nginx": 101}.get(name, 10001)
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert container(TEMPLATES[name])["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert "\nUSER 10001:10001\n" in FINAL
    assert {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys() == set()


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_a_pod_writes_to_memory_alone(name: str) -> None:
    pod, mounts = PRODUCTS[name]["spec"], container(PRODUCTS[name])["volumeMounts"]
    assert [one["emptyDir"]["medium"] for one in pod["volumes"]] == ["Memory"] * len(mounts)
    folder = environment(PRODUCTS[name]).get("METRICS_FOLDER")
    assert [one["mountPath"] for one in mounts] == ["/tmp", *([folder] if folder else [])]  # noqa: S108  # in the pod


def test_no_secret_is_in_the_files() -> None:
    """K3. Every process gets the settings from a Secret that is not here."""
    assert of_kind("Secret") == {}
    given = {one["secretRef"]["name"] for one in container(TEMPLATES["web"])["envFrom"]}
    assert given == {"settings", "settings-web"}
    assert {container(one)["envFrom"][0]["secretRef"]["name"] for one in PRODUCTS.values()} == {"settings"}
    assert "envFrom" not in container(TEMPLATES["nginx"])
    names = {"SECRET_KEY", "ENCRYPTION_KEYS", "DATABASE_URL", "REDIS_URL", "EMAIL_URL"}
    assert {name for one in TEMPLATES.values() for name in environment(one)} & names == set()
    assert [
        value for one in manifests() for value in values_in(one) if re.search(r"://|BEGIN |[A-Za-z0-9+/=]{40}", value)
    ] == []
    assert "create secret generic settings --from-env-file=/dev/stdin" in CHAPTER


@pytest.mark.parametrize("name", WEB)
def test_probes_ask_as_the_operators_page_says(name: str) -> None:
    """A pod comes into service when it can do its work, and stays there while it answers."""
    asked = {kind: container(TEMPLATES[name])[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    assert {kind: one["httpGet"]["path"] for kind, one in asked.items()} == {
        "startup": reverse("ready"), "readiness": reverse("live"), "liveness": reverse("live"),
    }  # fmt: skip
    seconds = re.findall(r"^SECONDS = (\d+)$", (ROOT / "deploy" / "container" / "health.py").read_text(), re.MULTILINE)
    assert {str(one["timeoutSeconds"]) for one in asked.values()} == set(seconds)
    assert f"curl -fsS --max-time {seconds[0]} " in PAGE
    (host,) = {rule["host"] for rule in of_kind("Ingress")["delegation"]["spec"]["rules"]}
    headers = [one["httpGet"]["httpHeaders"] for one in asked.values()]
    assert headers == [[{"name": "Host", "value": host}]] * 3


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_pod_has_as_long_to_stop_as_a_unit(name: str) -> None:
    assert str(TEMPLATES[name]["spec"]["terminationGracePeriodSeconds"]) == WEB_UNIT["Service"]["TimeoutStopSec"]


@pytest.mark.parametrize("name", WEB)
def test_gunicorn_has_its_time_after_the_pod_is_out_of_service(name: str) -> None:
    program, seconds = container(TEMPLATES[name])["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert 0 < int(seconds) + gunicorn.graceful_timeout < TEMPLATES[name]["spec"]["terminationGracePeriodSeconds"]


def test_an_update_takes_no_pod_away_before_the_next_is_ready() -> None:
    deployments = of_kind("Deployment")
    assert {name: one["spec"]["strategy"]["rollingUpdate"] for name, one in deployments.items()} == {
        name: {"maxUnavailable": 0, "maxSurge": 1} for name in ("web", "waiting", "worker", "nginx")
    }
    # A budget for a single pod would keep a node from being emptied.
    several = {name for name, one in deployments.items() if one["spec"]["replicas"] > 1}
    budgets = of_kind("PodDisruptionBudget")
    assert {name: selected(one["spec"]["selector"]) for name, one in budgets.items()} == {
        name: {name} for name in several
    }
    assert {one["spec"]["minAvailable"] for one in budgets.values()} == {1}
    assert set(deployments) - several == {"worker"}


def test_postgresql_allows_all_connections() -> None:
    """A pod that ends has 40 seconds, and an update does not wait for that: each pod may be there twice."""
    replicas = {name: one["spec"]["replicas"] for name, one in of_kind("Deployment").items()}
    of_web = int(environment(TEMPLATES["web"])["WORKERS"]) * settings.THREADS + OF_METRICS
    of_worker = threads_of_worker() + 1 + OF_METRICS
    of_pods = sum(replicas[name] for name in WEB) * of_web + replicas["worker"] * of_worker
    assert f"{of_pods + OF_COMMANDS} connections, and {2 * of_pods + OF_COMMANDS} during an update" in CHAPTER
    (most,) = re.findall(r"`max_connections = (\d+)`", CHAPTER)
    assert 2 * of_pods + OF_COMMANDS <= int(most) - RESERVED


def test_every_selector_finds_the_pods_that_it_names() -> None:
    for name, one in of_kind("Deployment").items():
        assert (selected(one["spec"]["selector"]), one["metadata"]["labels"][COMPONENT]) == ({name}, name)
        assert {PART_OF, COMPONENT} == one["spec"]["template"]["metadata"]["labels"].keys()
    for name in ("web", "waiting", "nginx"):
        assert selected({"matchLabels": of_kind("Service")[name]["spec"]["selector"]}) == {name}
        (spread,) = TEMPLATES[name]["spec"]["topologySpreadConstraints"]
        assert selected(spread["labelSelector"]) == {name}


def test_every_port_is_one_at_which_something_listens() -> None:
    bind = re.findall(r"BIND=0\.0\.0\.0:(\d+)", FINAL)
    metrics = environment(TEMPLATES["web"])["METRICS_BIND"].removeprefix("0.0.0.0:")
    listening = {"http": int(bind[0]), "metrics": int(metrics)}
    assert {name: ports(TEMPLATES[name]) for name in (*WEB, "worker")} == {
        "web": listening, "waiting": listening, "worker": {"metrics": int(metrics)},
    }  # fmt: skip
    annotated = {
        name: one["metadata"].get("annotations", {}).get("prometheus.io/port") for name, one in TEMPLATES.items()
    }
    assert {name for name, port in annotated.items() if port} == {*WEB, "worker"}
    assert {port for port in annotated.values() if port} == {metrics}
    for name in ("web", "waiting", "nginx"):
        (port,) = of_kind("Service")[name]["spec"]["ports"]
        assert port["targetPort"] in ports(TEMPLATES[name])
    (path,) = of_kind("Ingress")["delegation"]["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"] == {"name": "nginx", "port": {"name": "http"}}


def test_nginx_has_the_rules_of_the_containers() -> None:
    """It gets no TLS. Of the client's address and of https it believes the Ingress controller."""
    ours = Counter(_lines((FOLDER / "nginx.conf").read_text()))
    https = (ROOT / "deploy" / "container" / "nginx.conf").read_text().rpartition("\nserver {")[0]
    theirs = Counter(_lines(https.replace("error_log  /dev/stderr", "error_log stderr")))
    assert sorted(theirs - ours) == [
        "listen 443 ssl http2;", "ssl_certificate /etc/ssl/delegation.example.pem;",
        "ssl_certificate_key /etc/ssl/delegation.example.key;", "ssl_protocols TLSv1.2 TLSv1.3;",
    ]  # fmt: skip
    assert list(ours - theirs) == [
        "worker_processes 2;", "daemon off;", "pid /tmp/nginx.pid;", "events { worker_connections 4096; }", "http {",
        *(f"{kind}_temp_path /tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")), "}",
        "listen 8080;", "set_real_ip_from 0.0.0.0/0;", "set_real_ip_from ::/0;", "real_ip_header X-Forwarded-For;",
        "if ($http_x_forwarded_proto != https) { return 308 https://delegation.example$request_uri; }",
    ]  # fmt: skip
    (host,) = of_kind("Ingress")["delegation"]["spec"]["tls"][0]["hosts"]
    assert f"server_name {host};" in ours
    assert f"listen {ports(TEMPLATES['nginx'])['http']};" in ours
    called = set(re.findall(r"server (\w+):(\d+)", "\n".join(ours)))
    assert called == {(name, str(of_kind("Service")[name]["spec"]["ports"][0]["port"])) for name in WEB}


def _lines(text: str) -> list[str]:
    """Return the lines of a configuration without comments and with single spaces."""
    lines = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in text.splitlines()]
    return [line for line in lines if line]


def test_the_program_starts_with_an_empty_folder_of_counts(tmp_path: Path) -> None:
    """The bug: a container that was started again in its pod kept the gauges of processes that were gone."""
    (tmp_path / "gauge_livesum_7.db").touch()
    script = ROOT / "deploy" / "container" / "with-metrics.sh"
    before_the_program = script.read_text().partition("while")[0]
    subprocess.run(
        ["sh", "-c", before_the_program], env={"METRICS_FOLDER": str(tmp_path), "PATH": "/bin:/usr/bin"}, check=True
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_kubectl_builds_what_is_applied() -> None:
    kubectl = shutil.which("kubectl") or missing("kubectl is not installed: the manifests were not built")
    built = []
    for folder in (FOLDER, FOLDER / "migration"):
        result = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True)
        built += list(yaml.safe_load_all(result.stdout))
    for manifest in built:
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    assert {one["metadata"].get("namespace") for one in built if one["kind"] != "Namespace"} == {"consumer-delegation"}
    (image,) = kustomization(FOLDER / "version")["images"]
    jobs = [one for one in built if one["kind"] == "Job"]
    assert [container(one["spec"]["template"])["image"] for one in jobs] == [f"{image['newName']}:{image['newTag']}"]
    assert [one["metadata"]["name"].rpartition("-")[0] for one in built if one["kind"] == "ConfigMap"] == ["nginx"]
