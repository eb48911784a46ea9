"""`python -m tests.contract_run [arguments of schemathesis]`: `make contract` runs it."""

import os
import sys
from typing import Final

os.environ.setdefault("TEST_DATABASE", "postgresql")
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"

import django

django.setup()

from tests import databases  # noqa: E402
from tests.contract_run.run import make_up_calls, running_product  # noqa: E402

FEWEST_CASES: Final = 5_000


def main() -> int:
    """Run schemathesis. The exit status is 0 only if every check passed and enough cases were generated."""
    arguments = sys.argv[1:]
    with running_product(databases.run_folder()) as product:
        outcome = make_up_calls(product, *arguments)
    print(f"\n{outcome.cases} cases on {databases.chosen()}, exit status {outcome.exit_status}")
    if outcome.exit_status == 0 and not arguments and outcome.cases < FEWEST_CASES:
        print(f"That is fewer than {FEWEST_CASES}.")
        return 1
    return outcome.exit_status


if __name__ == "__main__":
    sys.exit(main())
