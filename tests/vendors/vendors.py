"""Ten vendors' differences from the strict server, as docs/servers.md describes them.

Names, members and codes are from the vendors' documents and public reports. docs/servers.md names the sources.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.fake_authorization_server import Answer, _Grant, _json
from tests.vendors.vendor import Vendor


@dataclass
class Strava(Vendor):
    """Commas between scopes; the granted scope is only in the redirect; errors list resource, field and code."""

    key = "strava"
    paths = {"/authorize": "/oauth/authorize", "/token": "/oauth/token"}
    granted = "read activity:read_all"
    refusals = {
        "invalid_client": (
            400,
            {
                "message": "Bad Request",
                "errors": [{"resource": "Application", "field": "client_id", "code": "invalid"}],
            },
        ),
        "invalid_grant": (
            400,
            {
                "message": "Bad Request",
                "errors": [{"resource": "AuthorizationCode", "field": "code", "code": "invalid"}],
            },
        ),
    }

    host: str = "www.strava.com"
    scope: str = "read activity:read_all"
    scope_separator: str = ","
    scope_in_redirect: str | None = "read,activity:read_all"
    names_granted_scope: bool = False
    pkce: str = "ignored"
    further_members: dict[str, Any] = field(
        default_factory=lambda: {"expires_at": 1568775134, "athlete": {"id": 6958432, "firstname": "Ada"}}
    )


@dataclass
class Shopify(Vendor):
    """One host for each shop; commas; no token type; `hmac` and more in the response; a used code is a bad request."""

    key = "shopify"
    paths = {"/authorize": "/admin/oauth/authorize", "/token": "/admin/oauth/access_token"}
    way_back = {"hmac": "10976937c09a1f1e", "shop": "acme.myshopify.com", "timestamp": "1647547764", "host": "YWNtZQ"}
    granted = "read_orders read_customers"
    members = {"associated_user": {"id": 902541635, "locale": "en"}, "associated_user_scope": "read_orders"}
    lifetime_assumed = True
    refusals = {
        "invalid_client": (401, {"error": "invalid_client"}),
        "invalid_grant": (
            400,
            {
                "error": "invalid_request",
                "error_description": "The authorization code was not found or was already used",
            },
        ),
    }

    host: str = "acme.myshopify.com"
    scope: str = "read_orders read_customers"
    scope_separator: str = ","
    expires_in: int | None = None

    def _token_response(self, grant: _Grant) -> dict[str, Any]:
        usual = super()._token_response(grant)
        return {name: value for name, value in usual.items() if name != "token_type"} | self.members


@dataclass
class GitHub(Vendor):
    """Refuses with status 200; commas in the answer only; tokens without expiry; the API says whose they are."""

    key = "github"
    paths = {
        "/authorize": "/login/oauth/authorize",
        "/token": "/login/oauth/access_token",
        "/userinfo": "https://api.github.com/user",
    }
    denial = {
        "error": "access_denied",
        "error_description": "The user has denied your application access.",
        "error_uri": "/apps/managing-oauth-apps/troubleshooting-authorization-request-errors/#access-denied",
    }
    granted = "repo gist"
    lifetime_assumed = True
    refusals = {
        "invalid_client": (
            200,
            {"error": "incorrect_client_credentials", "error_description": "...", "error_uri": "/"},
        ),
        "invalid_grant": (200, {"error": "bad_verification_code", "error_description": "...", "error_uri": "/"}),
    }

    host: str = "github.com"
    scope: str = "repo gist"
    granted_scope: str | None = "repo,gist"
    expires_in: int | None = None
    account: dict[str, Any] | None = field(
        default_factory=lambda: {"login": "octocat", "id": 1, "node_id": "MDQ6VXNlcjE="}
    )


@dataclass
class LINE(Vendor):
    """Announces ES256 and signs with the channel's secret; requires the secret in the body."""

    key = "line"
    paths = {
        "/authorize": "/oauth2/v2.1/authorize",
        "/token": "https://api.line.me/oauth2/v2.1/token",
        "/jwks": "https://api.line.me/oauth2/v2.1/certs",
        "/revoke": "https://api.line.me/oauth2/v2.1/revoke",
    }
    published = {
        "authorization_endpoint": "https://access.line.me/oauth2/v2.1/authorize",
        "token_endpoint": "https://api.line.me/oauth2/v2.1/token",
        "revocation_endpoint": "https://api.line.me/oauth2/v2.1/revoke",
        "jwks_uri": "https://api.line.me/oauth2/v2.1/certs",
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
    }
    granted = "openid profile"
    # For a secret by HTTP Basic. No source was found for a wrong secret or a used code.
    refusals = {
        "invalid_client": (
            400,
            {"error": "invalid_request", "error_description": "some parameters missed or invalid"},
        ),
        "invalid_grant": None,
    }

    host: str = "access.line.me"
    client_secret: str = "a-channel-secret-of-32-characters"
    scope: str = "profile"
    openid: bool = True
    signs_with_secret: bool = True
    expires_in: int | None = 2592000
    metadata_path: str = "/.well-known/openid-configuration"


@dataclass
class Mailchimp(Vendor):
    """`expires_in` is 0, which means no expiry; `scope` is null; no token type."""

    key = "mailchimp"
    paths = {"/authorize": "/oauth2/authorize", "/token": "/oauth2/token"}
    lifetime_assumed = True
    refusals = {"invalid_client": None, "invalid_grant": (400, {"error": "invalid_grant"})}

    host: str = "login.mailchimp.com"
    scope: str = ""
    pkce: str = "ignored"

    def _token_response(self, grant: _Grant) -> dict[str, Any]:
        return {"access_token": super()._token_response(grant)["access_token"], "expires_in": 0, "scope": None}


@dataclass
class Apigee(Vendor):
    """`BearerToken`, numbers as strings, a dozen further members; faults and errors in its own formats."""

    key = "apigee"
    paths = {"/authorize": "/oauth/authorize", "/token": "/oauth/token"}
    granted = "orders.read"
    refusals = {
        "invalid_client": (
            401,
            {
                "fault": {
                    "faultstring": "ClientId is Invalid",
                    "detail": {"errorcode": "keymanagement.service.invalid_client-invalid_client_id"},
                }
            },
        ),
        "invalid_grant": (400, {"ErrorCode": "invalid_request", "Error": "Invalid Authorization Code"}),
    }

    host: str = "api.acme.example"
    token_endpoint_auth_method: str = "client_secret_basic"
    pkce: str = "ignored"

    def _token_response(self, grant: _Grant) -> dict[str, Any]:
        return super()._token_response(grant) | {
            "token_type": "BearerToken",
            "expires_in": "179999",
            "refresh_token_expires_in": "0",
            "refresh_token_status": "approved",
            "refresh_count": "0",
            "issued_at": "1557891212144",
            "api_product_list": "[orders]",
            "api_product_list_json": ["orders"],
            "organization_name": "acme",
            "developer.email": "dev@acme.example",
            "application_name": "317d0b2f-6536-4cac-a5f0-3bc9908815b3",
            "client_id": self.client_id,
            "status": "approved",
        }


@dataclass
class Okta(Vendor):
    """Announces the endpoint for pushed requests, but this client may not use it."""

    key = "okta"
    named_issuer = "https://acme.okta.com/oauth2/default"
    paths = {
        "/authorize": "/oauth2/default/v1/authorize",
        "/token": "/oauth2/default/v1/token",
        "/jwks": "/oauth2/default/v1/keys",
        "/revoke": "/oauth2/default/v1/revoke",
        "/par": "/oauth2/default/v1/par",
    }
    published = {
        "authorization_endpoint": f"{named_issuer}/v1/authorize",
        "token_endpoint": f"{named_issuer}/v1/token",
        "revocation_endpoint": f"{named_issuer}/v1/revoke",
        "jwks_uri": f"{named_issuer}/v1/keys",
        "pushed_authorization_request_endpoint": f"{named_issuer}/v1/par",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "code_challenge_methods_supported": ["S256"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    granted = "openid orders.read"
    refusals = {
        "invalid_client": (
            401,
            {"error": "invalid_client", "error_description": "The client secret supplied ... is invalid."},
        ),
        "invalid_grant": (
            400,
            {"error": "invalid_grant", "error_description": "The authorization code is invalid or has expired."},
        ),
    }

    host: str = "acme.okta.com"
    token_endpoint_auth_method: str = "client_secret_basic"
    openid: bool = True
    metadata_path: str = "/oauth2/default/.well-known/openid-configuration"

    def _answer_push(self, seen: Any) -> Answer:
        self.pushes.append(seen)
        return _json(*self.refusals["invalid_client"])  # type: ignore[misc]  # it is there


@dataclass
class AzureB2C(Vendor):
    """The policy is part of each path except the issuer's, which ends in a slash; numbers as strings."""

    key = "azure-b2c"
    named_issuer = "https://acme.b2clogin.com/4c2f1234-0123-4567-7654-123321828afd/v2.0/"
    paths = {
        "/authorize": "/acme.onmicrosoft.com/b2c_1_sign_in/oauth2/v2.0/authorize",
        "/token": "/acme.onmicrosoft.com/b2c_1_sign_in/oauth2/v2.0/token",
        "/jwks": "/acme.onmicrosoft.com/b2c_1_sign_in/discovery/v2.0/keys",
    }
    denial = {
        "error": "access_denied",
        "error_description": "AADB2C90091: The user has cancelled entering information.\r\nCorrelation ID: 1",
    }
    granted = "openid orders.read"
    refusals = {
        "invalid_client": (
            400,
            {
                "error": "invalid_client",
                "error_description": "AADB2C90081: The specified client_secret does not match.\r\nCorrelation ID: 1",
            },
        ),
        "invalid_grant": (
            400,
            {
                "error": "invalid_grant",
                "error_description": "AADB2C90080: The provided grant has expired.\r\nCorrelation ID: 1",
            },
        ),
    }

    host: str = "acme.b2clogin.com"
    openid: bool = True

    def _token_response(self, grant: _Grant) -> dict[str, Any]:
        return super()._token_response(grant) | {"not_before": "1442340812", "expires_in": "3600"}


@dataclass
class Cognito(Vendor):
    """The issuer has another host than the sign-in; `email_verified` is a string; no `scope` in answers."""

    key = "cognito"
    named_issuer = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Acme12345"
    paths = {
        "/authorize": "/oauth2/authorize",
        "/token": "/oauth2/token",
        "/revoke": "/oauth2/revoke",
        "/jwks": f"{named_issuer}/.well-known/jwks.json",
    }
    granted = "openid email orders/read"
    refusals = {
        "invalid_client": (400, {"error": "invalid_client"}),
        "invalid_grant": (400, {"error": "invalid_grant"}),
    }

    host: str = "acme.auth.eu-central-1.amazoncognito.com"
    token_endpoint_auth_method: str = "client_secret_basic"
    basic_encoding: str = "raw"
    scope: str = "email orders/read"
    names_granted_scope: bool = False
    openid: bool = True
    id_token_changes: dict[str, Any] = field(
        default_factory=lambda: {
            "email": "ada@acme.example",
            "email_verified": "true",
            "token_use": "id",
            "at_hash": ...,
        }
    )


@dataclass
class LinkedIn(Vendor):
    """Two codes for a cancelled sign-in; commas in the answer. By default it refuses PKCE; here PKCE is enabled."""

    key = "linkedin"
    paths = {"/authorize": "/oauth/v2/authorization", "/token": "/oauth/v2/accessToken"}
    denial = {"error": "user_cancelled_authorize", "error_description": "The user cancelled the authorization"}
    granted = "profile w_member_social"
    refusals = {
        "invalid_client": (401, {"error": "invalid_client", "error_description": "Client authentication failed"}),
        "invalid_grant": (
            400,
            {
                "error": "invalid_request",
                "error_description": "Unable to retrieve access token: appid/redirect uri/code verifier does not match "
                "authorization code. Or authorization code expired. Or external member binding exists",
            },
        ),
    }

    host: str = "www.linkedin.com"
    scope: str = "profile w_member_social"
    granted_scope: str | None = "profile,w_member_social"
    expires_in: int | None = 5183999


VENDORS = [Strava, Shopify, GitHub, LINE, Mailchimp, Apigee, Okta, AzureB2C, Cognito, LinkedIn]
