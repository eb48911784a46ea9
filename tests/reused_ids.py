"""What tests of reused conversation ids do again and again."""

from typing import Any

from tests.cast import Bot, Browser, code_on
from tests.fake_authorization_server import FakeAuthorizationServer


def close(bot: Bot, session: int = 1) -> None:
    """Close a session. Fails if it was not closed."""
    status, receipt = bot.in_chat("DELETE", f"?session={session}")
    assert (status, receipt["session"]) == (200, session)


def authorize(bot: Bot, browser: Browser, login: FakeAuthorizationServer, session: int = 1) -> dict[str, Any]:
    """Go through a whole sign-in, and return the answer with the token."""
    challenge = bot.challenge(session=session)
    code = code_on(browser.sign_in(challenge["url"], login))
    assert bot.in_chat("POST", "/completion", {"code": code, "session": session})[0] == 200
    status, token = bot.token()
    assert (status, token["session"]) == (200, session)
    return token
