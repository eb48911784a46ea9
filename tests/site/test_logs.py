"""Where log lines go, and what each of them carries."""

import pytest

from delegation_site.logs import log_stream


@pytest.mark.parametrize(
    ("arguments", "stream"),
    [
        (["/srv/app/manage.py", "create_bot_key", "acme"], "ext://sys.stderr"),
        (["manage.py", "apply_config", "-"], "ext://sys.stderr"),
        (["manage.py"], "ext://sys.stderr"),
        (["manage.py", "worker"], "ext://sys.stdout"),
        (["manage.py", "runserver"], "ext://sys.stdout"),
        (["/srv/app/.venv/bin/gunicorn", "-c", "delegation_site/gunicorn.py"], "ext://sys.stdout"),
    ],
)
def test_a_command_whose_output_is_its_result_logs_to_standard_error(arguments: list[str], stream: str) -> None:
    """The bug: the audit line of a new bot key stood beside the key."""
    assert log_stream(arguments) == stream
