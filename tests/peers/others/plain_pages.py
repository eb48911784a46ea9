"""Plain sign-in and consent pages, for the servers that have none."""

from collections.abc import Mapping
from typing import Final

PASSWORD: Final = "correct horse battery staple"
CUSTOMERS: Final = frozenset({"ada", "rita"})

_SIGN_IN: Final = """<!doctype html><title>Sign in</title><form method="post">
<input name="login"><input name="password" type="password"><button>Sign in</button></form>"""
_CONSENT: Final = """<!doctype html><title>Allow?</title><form method="post">
<input type="hidden" name="customer" value="{customer}">
<button name="decision" value="allow">Allow</button><button name="decision" value="deny">Deny</button></form>"""


def next_page(form: Mapping[str, str]) -> str | None:
    """The page to show after this form (empty at first); None once the consumer has decided."""
    if form.get("decision"):
        return None
    login = form.get("login", "")
    if login in CUSTOMERS and form.get("password") == PASSWORD:
        return _CONSENT.format(customer=login)
    return _SIGN_IN


def allowed_by(form: Mapping[str, str]) -> str | None:
    """The customer who allowed it; None if it was denied. The form is trusted, because only tests use this."""
    return form["customer"] if form["decision"] == "allow" else None
