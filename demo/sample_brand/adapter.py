"""How Acme names the permissions on its consent page."""

from allauth.idp.oidc.adapter import DefaultOIDCAdapter


class AcmeAdapter(DefaultOIDCAdapter):  # type: ignore[misc]  # allauth has no types
    scope_display = {
        "openid": "Know that it is you",
        "orders.read": "See your orders",
        "profile": "See your name",
    }
