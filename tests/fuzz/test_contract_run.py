"""A share of `make contract`: all checks of schemathesis over calls made up from the contract, always the same ones."""

from pathlib import Path

import pytest

from tests.contract_run.run import make_up_calls, running_product

pytestmark = pytest.mark.timeout(300)


def test_made_up_calls_are_answered_as_the_contract_says(tmp_path: Path) -> None:
    with running_product(tmp_path) as product:
        outcome = make_up_calls(product, "--seed", "1", "--max-examples", "3", quietly=True)
    assert outcome.exit_status == 0, outcome.output
    assert outcome.cases >= 300, outcome.output
