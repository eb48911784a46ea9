"""The table of error codes is complete, and consumer pages, API, worker and admin all use it."""

import re
from pathlib import Path

import pytest
from django.conf import settings

from conversations.models import Challenge
from oauth_client import MEANINGS, ConsumerPage, ErrorCode
from oauth_client.errors import AUTHORIZATION_ERRORS, TOKEN_ERRORS
from oauth_client.unregistered_codes import (
    AUTHORIZATION_CODES,
    CANCEL_CODES,
    DESCRIPTIONS,
    ENDPOINT_CODES,
    ENDPOINT_DESCRIPTIONS,
)
from tests.brands.error_table import DOCUMENT, section, table
from tests.contract import document

PAGES = Path(settings.BASE_DIR) / "templates" / "consumer"


def test_every_code_has_its_row_and_every_row_its_words() -> None:
    assert set(MEANINGS) == {*ErrorCode, *Challenge.Error.values}
    for row in MEANINGS.values():
        assert re.fullmatch(r"[A-Z].*\.", row.cause)
        assert re.fullmatch(r"[A-Z].*\.", row.remedy)


def test_brand_admins_have_the_table() -> None:
    """After a change: `python -m tests.brands.error_table`."""
    assert section(DOCUMENT.read_text(encoding="utf-8")) == table()


@pytest.mark.parametrize("page", [page for page in ConsumerPage if page])
def test_a_page_has_its_button_where_another_try_can_help_and_only_there(page: ConsumerPage) -> None:
    """The bug: a wrong client secret said "try again in a moment", and each try was a whole sign-in."""
    helps = {row.another_try_helps for row in MEANINGS.values() if row.page == page}
    offered = "try_again_form.html" in (PAGES / f"{page}.html").read_text()
    assert helps == {offered}


def test_bots_read_of_each_code_whether_another_try_helps() -> None:
    said = document()["components"]["schemas"]["AuthorizationRequestError"]["x-meanings"]
    helps = {
        code: bool(re.search(r"Another try (?:in a \w+ )?(?:may )?helps?\b", words)) for code, words in said.items()
    }
    assert helps == {code: MEANINGS[code].another_try_helps for code in said}


def test_what_a_new_authorization_request_mends_is_not_called_permanent() -> None:
    """The bug: `invalid_grant` and `jwks_unavailable` were."""
    mended = {code for code, row in MEANINGS.items() if row.another_try_helps}
    assert {"invalid_grant", "jwks_unavailable", "configuration_changed", "token_endpoint_timeout"} <= mended
    assert not {"invalid_client", "unauthorized_client", "stored_secret_unreadable", "invalid_scope"} & mended


def test_a_code_is_never_sent_again() -> None:
    """E20: after a failure at the token endpoint only another try can help."""
    repeatable = {code for code, row in MEANINGS.items() if row.is_repeatable}
    assert not {code for code in repeatable if code.startswith("token_")}
    assert {"revocation_endpoint_timeout", "revocation_endpoint_unreachable", "server_error"} <= repeatable


def test_what_servers_say_in_words_of_their_own_is_in_lower_case_and_stands_once() -> None:
    said = [part for _, part, _ in (*DESCRIPTIONS, *ENDPOINT_DESCRIPTIONS)]
    own = [*AUTHORIZATION_CODES, *ENDPOINT_CODES, *CANCEL_CODES, *said]
    assert own == [name.lower() for name in own]
    assert not CANCEL_CODES & {*AUTHORIZATION_CODES, *AUTHORIZATION_ERRORS}
    assert not AUTHORIZATION_CODES.keys() & AUTHORIZATION_ERRORS
    assert not ENDPOINT_CODES.keys() & TOKEN_ERRORS
