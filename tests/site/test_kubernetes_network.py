"""The network policies of `deploy/kubernetes`: who may connect to whom, and nothing else."""

from ipaddress import ip_address, ip_network
from typing import Any, Final

import pytest

from oauth_client import addresses
from tests.kubernetes_manifests import FOLDER, of_kind, pod_templates, ports, selected

POLICIES: Final = {name: one["spec"] for name, one in of_kind("NetworkPolicy").items()}
TEMPLATES: Final = pod_templates()
CALLERS: Final = {"web", "waiting", "worker"}


def allowed(direction: str) -> dict[str, list[tuple[set[str], list[int]]]]:
    """Return, for each policy, the pods that it is about, and the ports that it opens."""
    found: dict[str, list[tuple[set[str], list[int]]]] = {}
    for name, policy in POLICIES.items():
        rules = policy.get(direction, [])
        if rules:
            found[name] = [
                (selected(policy["podSelector"]), sorted({port["port"] for port in rule["ports"]})) for rule in rules
            ]
    return found


def networks(rule: dict[str, Any], peers: str) -> list[dict[str, Any]]:
    return [peer["ipBlock"] for peer in rule[peers]]


def test_nothing_is_allowed_that_no_policy_names() -> None:
    assert POLICIES["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert [name for name, one in POLICIES.items() if "ingress" in one and "Ingress" not in one["policyTypes"]] == []
    assert [name for name, one in POLICIES.items() if "egress" in one and "Egress" not in one["policyTypes"]] == []
    rules = [rule for one in POLICIES.values() for rule in (*one.get("ingress", []), *one.get("egress", []))]
    assert [rule for rule in rules if not rule["ports"] or not (rule.get("from") or rule.get("to"))] == []


def test_each_pod_is_reached_by_those_who_need_it() -> None:
    """H12: metrics have no password. G8: whoever reaches a web pod can say any address in X-Forwarded-For."""
    http, metrics = ports(TEMPLATES["web"])["http"], ports(TEMPLATES["web"])["metrics"]
    assert allowed("ingress") == {
        "nginx": [({"nginx"}, [ports(TEMPLATES["nginx"])["http"]])],
        "web": [({"web", "waiting"}, [http])],
        "metrics": [(CALLERS, [metrics])],
    }
    assert POLICIES["nginx"]["ingress"][0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"consumer-delegation/ingress": "allowed"}}}
    ]
    assert POLICIES["metrics"]["ingress"][0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"consumer-delegation/metrics": "allowed"}}}
    ]
    (caller,) = POLICIES["web"]["ingress"][0]["from"]
    assert (list(caller), selected(caller["podSelector"])) == (["podSelector"], {"nginx"})


def test_each_pod_reaches_what_it_needs() -> None:
    products = set(TEMPLATES) - {"nginx"}
    assert allowed("egress") == {
        "names": [(set(TEMPLATES), [53])],
        "nginx": [({"nginx"}, [ports(TEMPLATES["web"])["http"]])],
        "database": [(products, [5432]), (products, [6379])],
        "brands": [(CALLERS, [443])],
    }
    (called,) = POLICIES["nginx"]["egress"][0]["to"]
    assert (list(called), selected(called["podSelector"])) == (["podSelector"], {"web", "waiting"})
    database = [networks(rule, "to") for rule in POLICIES["database"]["egress"]]
    # Addresses of RFC 5737, which lead nowhere until the operator replaces them.
    assert database == [[{"cidr": "192.0.2.10/32"}], [{"cidr": "192.0.2.11/32"}]]


def test_brands_are_called_where_the_service_itself_calls_them() -> None:
    """N3."""
    (rule,) = POLICIES["brands"]["egress"]
    blocks = {block["cidr"]: {ip_network(one) for one in block["except"]} for block in networks(rule, "to")}
    assert blocks == {
        "0.0.0.0/0": set(addresses._IPV4_NOT_PUBLIC),
        str(addresses._IPV6_UNICAST): set(addresses._IPV6_NOT_PUBLIC),
    }


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "10.96.0.1", "172.18.0.2", "192.168.49.2", "127.0.0.1"],
)
def test_no_policy_leads_to_a_clouds_metadata_or_the_clusters_api(address: str) -> None:
    """N14. The usual addresses of Services, of kind and of minikube."""
    blocks = [
        peer["ipBlock"]
        for policy in POLICIES.values()
        for rule in policy.get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert len(blocks) == 4
    leads = [
        block["cidr"]
        for block in blocks
        if ip_address(address) in ip_network(block["cidr"])
        and not any(ip_address(address) in ip_network(one) for one in block.get("except", []))
    ]
    assert leads == []


def test_placeholders_are_named_where_the_operator_begins() -> None:
    head = (FOLDER / "kustomization.yaml").read_text().partition("apiVersion")[0]
    assert [one in head for one in ("delegation.example", "192.0.2.10", "192.0.2.11", "network-policies.yaml")] == [
        True
    ] * 4
