"""The systemd timers of `deploy/` start units that are there, with commands that take what they are given."""

from pathlib import Path
from typing import Final

import pytest
from django.core.management import load_command_class

from tests.systemd_units import unit

ROOT: Final = Path(__file__).parent.parent.parent
TIMERS: Final = sorted((ROOT / "deploy").glob("*.timer"))
PAGE: Final = (ROOT / "docs" / "operator.md").read_text()
APP_OF: Final = {"prune": "conversations", "drop_audit_months": "infrastructure"}


@pytest.mark.parametrize("timer", TIMERS, ids=lambda path: path.name)
def test_a_timer_starts_a_command_that_takes_its_arguments(timer: Path) -> None:
    service = unit(timer.with_suffix(".service"))["Service"]
    program, script, name, *arguments = service["ExecStart"].replace("${KEEP_MONTHS}", "24").split()
    assert (service["Type"], program, script) == (
        "oneshot", "/opt/consumer-delegation/.venv/bin/python", "manage.py",
    )  # fmt: skip
    load_command_class(APP_OF[name], name).create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize("timer", TIMERS, ids=lambda path: path.name)
def test_the_operators_page_enables_each_timer(timer: Path) -> None:
    assert [line for line in PAGE.splitlines() if line.startswith("systemctl enable") and timer.name in line] != []


def test_months_are_dropped_as_a_role_of_its_own_after_so_many_months_as_the_operator_says() -> None:
    """H13: the application's role may not. Without the file of that role the unit does not start."""
    text = (ROOT / "deploy" / "delegation-drop-audit-months.service").read_text()
    files = [line for line in text.splitlines() if line.startswith("EnvironmentFile=")]
    # Of two files, the later one wins.
    assert files == [
        "EnvironmentFile=/etc/consumer-delegation.env",
        "EnvironmentFile=/etc/consumer-delegation-audit.env",
    ]
    assert "Environment=KEEP_MONTHS" not in text
