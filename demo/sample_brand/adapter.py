"""allauth's adapter for Acme: names of the scopes on the consent page, and server metadata."""

from typing import Any

from allauth.idp.oidc.adapter import DefaultOIDCAdapter


class AcmeAdapter(DefaultOIDCAdapter):  # type: ignore[misc]  # allauth has no types
    scope_display = {
        "openid": "Know that it is you",
        "orders.read": "See your orders",
        "profile": "See your name",
    }

    def populate_server_metadata(self, metadata: dict[str, Any]) -> None:
        """Announce that every authorization response contains `iss` (RFC 9207 section 3)."""
        metadata["authorization_response_iss_parameter_supported"] = True
