"""`manage.py create_bot_key` prints only the key, and the key has exactly the requested scopes."""

import io
import re
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from brands.models import BotKey, Brand
from tests.cast import Bot
from tests.installation import Installation
from tests.stored import everything_stored

pytestmark = pytest.mark.django_db


def create(*arguments: str) -> str:
    printed = io.StringIO()
    call_command("create_bot_key", *arguments, stdout=printed)
    return printed.getvalue()


def test_the_key_stands_alone_on_standard_output_and_works(acme: Brand) -> None:
    """G1: a script can take it as it is; the database never holds it."""
    printed = create("acme", "--label", "acme-bot", "--scope", "challenge:create", "--scope", "challenge:read")
    key = printed.removesuffix("\n")
    assert (len(key.split()), key.startswith("cdk_")) == (1, True)
    assert key.rsplit("_", 1)[1] not in everything_stored()
    row = BotKey.objects.get()
    assert (row.brand, row.label, row.scopes) == (acme, "acme-bot", ["challenge:create", "challenge:read"])
    bot = Bot(key)
    assert bot.in_chat("GET")[1]["code"] == "conversation_unknown"
    assert bot.token()[1]["code"] == "insufficient_scope"


def test_a_key_may_use_every_check_unless_some_are_named(acme: Brand) -> None:
    """A16."""
    for checks in (["completion_code"], ["expected_subject", "completion_code"], []):
        create("acme", "--label", "x", "--scope", "challenge:create", *(f"--check={check}" for check in checks))
        row = BotKey.objects.latest("pk")
        assert row.same_person_checks == sorted(checks)
        assert [row.may_use(check) for check in ("completion_code", "none")] == [True, not checks]


def test_reading_tokens_is_given_only_where_it_was_named(acme: Brand) -> None:
    """G3."""
    bot = Bot(create("acme", "--label", "x", "--scope", "token:read").strip())
    assert bot.token()[1]["code"] == "conversation_unknown"
    assert bot.in_chat("GET")[1]["code"] == "insufficient_scope"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nobody", "--label", "x", "--scope", "token:read"), r"There is no brand nobody\."),
        (("acme", "--label", "x", "--scope", "token:write"), "invalid choice: 'token:write'"),
        (("acme", "--label", "x", "--scope", "token:read", "--check", "code"), "invalid choice: 'code'"),
        (("acme", "--label", "x"), "the following arguments are required: --scope"),
        (("acme", "--scope", "token:read"), "the following arguments are required: --label"),
        (("acme", "--label", "x" * 81, "--scope", "token:read"), "at most 80 characters"),
        (("acme", "--label", "", "--scope", "token:read"), "cannot be blank"),
    ],
)
def test_what_makes_no_key_says_why(acme: Brand, arguments: tuple[str, ...], message: str) -> None:
    """G3: there is no default scope."""
    with pytest.raises(CommandError, match=message):
        create(*arguments)
    assert not BotKey.objects.exists()


def test_as_a_process_each_command_prints_its_result_and_nothing_else(tmp_path: Path) -> None:
    """Log lines of the change go to standard error, or a script would take them for a part of the key."""
    installation = Installation(tmp_path, "key-1:3hSxq0CkB7dT9rYwVbN2mZ5fJ8gLpQeRtUiOaXcKvMs=")
    installation.migrate()
    applied = installation.run("manage.py", "apply_config", "-", text='[brand]\nslug = "acme"\nname = "Acme"\n')
    assert (applied.returncode, applied.stdout) == (0, '{"brand": "acme", "authorization_servers": {}}\n')
    made = installation.run("manage.py", "create_bot_key", "acme", "--label", "x", "--scope", "token:read")
    assert made.returncode == 0
    assert re.fullmatch(r"cdk_[0-9a-f]{16}_[A-Za-z0-9_-]{51}\n", made.stdout)
    assert made.stdout.strip() not in made.stderr
