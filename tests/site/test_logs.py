"""Where log lines go, and what each of them carries."""

import logging
from collections.abc import Iterator

import pytest

from delegation_site.logs import RequestIdFilter, log_stream
from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer


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


class Collected(logging.Handler):
    """Keeps what is collected on standard output: each line as the filter leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RequestIdFilter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def collected() -> Iterator[list[str]]:
    handler = Collected()
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)


@pytest.mark.django_db(transaction=True)
def test_no_line_holds_a_live_link_or_receipt(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, collected: list[str]
) -> None:
    """H1. The bug: Django wrote the path of each 403, 405, 429 and 500, and with it a link that still worked."""
    link = acme_bot.challenge()["url"].rpartition("/")[2]
    for path in (f"/c/{link}", f"/c/{link}/cancel", f"/r/{link}/end", f"/callback/{link}"):
        assert ada.client.post(path, secure=True).status_code in {403, 405}
    assert {line for line in collected if link in line} == set()
    assert any(line.endswith("/c/.../cancel") for line in collected)
    assert code_on(ada.sign_in(f"https://delegation.test/c/{link}", acme_login))
