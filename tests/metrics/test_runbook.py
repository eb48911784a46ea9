"""Rules, dashboard, runbook and the operators' table name the measures that there are; each alert has an entry."""

import json
import re
from typing import Any, Final

import prometheus_client
import pytest
import yaml

from conversations.outbox import exporter
from infrastructure import metrics
from tests.test_house import ROOT

MONITORING: Final = ROOT / "deploy" / "monitoring"
NAME: Final = re.compile(r"\bdelegation_\w+")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def names_in(text: str) -> set[str]:
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in NAME.findall(text)}


def counted() -> set[str]:
    """The measures of processes, as they are named when they are served."""
    served = metrics._Measures(prometheus_client).served.collect()
    return {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in served}


@pytest.fixture
def measures(db: None) -> set[str]:
    """All measures. Those of connections are there on PostgreSQL alone."""
    of_database = exporter._FromDatabase("database", exporter.measure_database, 1)
    of_keys = exporter._FromDatabase("keys", exporter.measure_keys, 1)
    of_database._last, of_keys._last = list(exporter.measure_database()), list(exporter.measure_keys())
    served = {metric.name for one in (of_database, of_keys) for metric in one.collect()}
    connections = {"delegation_database_connections", "delegation_database_connections_limit"}
    return counted() | served | connections


def test_rules_and_dashboard_ask_for_measures_that_there_are(measures: set[str]) -> None:
    """A query about a measure of another name is empty, and an empty alert never fires."""
    for file in ("alerts.yml", "dashboard.json"):
        assert names_in((MONITORING / file).read_text()) - measures == set()


def test_every_measure_is_on_the_dashboard_and_in_the_operators_table(measures: set[str]) -> None:
    page = (ROOT / "docs" / "operator.md").read_text()
    table = page[page.index("## Metrics") : page.index("**A silent worker.**")]
    assert names_in((MONITORING / "dashboard.json").read_text()) == measures
    assert names_in("\n".join(re.findall(r"^\| `.*", table, re.MULTILINE))) == measures


def test_every_alert_has_its_entry_in_the_runbook_with_symptom_look_and_do() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    entries = dict(
        zip(
            re.findall(r"^## (Delegation\w+)$", text, re.MULTILINE),
            re.split(r"^## Delegation\w+$", text, flags=re.MULTILINE)[1:],
            strict=True,
        )
    )
    assert list(entries) == [rule["alert"] for rule in rules()]
    for name, entry in entries.items():
        assert re.findall(r"^\*\*(\w+)", entry, re.MULTILINE) == ["Symptom", "Look", "Do"], name


def test_the_runbook_says_how_urgent_each_alert_is() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    said = dict(re.findall(r"^## (Delegation\w+)$\n\n\*\*Symptom\*\* \((\w+)\)", text, re.MULTILINE))
    assert said == {rule["alert"]: rule["labels"]["severity"] for rule in rules()}


def test_every_alert_has_a_case_that_fires_it() -> None:
    cases = "".join(path.read_text() for path in sorted((ROOT / "tests" / "metrics").glob("alerts*_test.yml")))
    fired = set(re.findall(r"alertname: (Delegation\w+)\n\s+exp_alerts:", cases))
    assert fired == {rule["alert"] for rule in rules()}


def test_the_dashboard_is_of_grafana_and_no_panel_lies_on_another() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
