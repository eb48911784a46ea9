"""Acme's names for scopes on the consent page, and an addition to its metadata."""

from typing import Any

from allauth.idp.oidc.adapter import DefaultOIDCAdapter


class AcmeAdapter(DefaultOIDCAdapter):  # type: ignore[misc]  # allauth has no types
    scope_display = {
        "openid": "Know that it is you",
        "orders.read": "See your orders",
        "profile": "See your name",
    }

    def populate_server_metadata(self, metadata: dict[str, Any]) -> None:
        """Announce `iss` in every authorization response (RFC 9207 section 3)."""
        metadata["authorization_response_iss_parameter_supported"] = True
