"""The exit status of `make test` and its like: what a machine reads of a whole run."""

import pytest

from tests.run import Run, status_of

NONE, OK, FAILED, INTERRUPTED = (
    int(pytest.ExitCode[name]) for name in ("NO_TESTS_COLLECTED", "OK", "TESTS_FAILED", "INTERRUPTED")
)


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([OK, OK], OK),
        ([OK, FAILED], FAILED),
        ([INTERRUPTED, OK], INTERRUPTED),
        ([OK, NONE], OK),
        ([NONE, FAILED], FAILED),
        ([NONE, NONE], NONE),
        ([NONE], NONE),
    ],
)
def test_a_run_is_good_where_a_test_ran_and_none_failed(statuses: list[int], status: int) -> None:
    """The bug: the run for a release passed when no test was collected."""
    assert status_of([Run("a database", [], exit_status=found) for found in statuses]) == status
