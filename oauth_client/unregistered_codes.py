"""What servers say in codes and texts of their own, and the error code of ours that means the same."""

from collections.abc import Mapping
from typing import Final

from oauth_client.error_codes import ErrorCode

# Unregistered codes in lower case, and the registered code with the same meaning. These occur in authorization
# responses. Sources: Google, "Using OAuth 2.0 for Web Server Applications"; GitHub, "Troubleshooting authorization
# request errors"; Auth0, rules (`unauthorized`). We never send request objects, so OpenID Connect Core's codes about
# them mean that the server refuses our request. RFC 9470 section 5 names `unmet_authentication_requirements`.
AUTHORIZATION_CODES: Final[Mapping[str, ErrorCode]] = {
    "admin_policy_enforced": ErrorCode.SIGN_IN_REFUSED,
    "application_suspended": ErrorCode.UNAUTHORIZED_CLIENT,
    "deleted_client": ErrorCode.INVALID_CLIENT,
    "invalid_client": ErrorCode.INVALID_CLIENT,
    "org_internal": ErrorCode.SIGN_IN_REFUSED,
    "redirect_uri_mismatch": ErrorCode.REDIRECT_URI_MISMATCH,
    "registration_not_supported": ErrorCode.INVALID_REQUEST,
    "request_not_supported": ErrorCode.INVALID_REQUEST,
    "request_uri_not_supported": ErrorCode.INVALID_REQUEST,
    "unauthorized": ErrorCode.SIGN_IN_REFUSED,
    "unmet_authentication_requirements": ErrorCode.ASSURANCE_NOT_MET,
}
# The same for the endpoints that we call. Sources: GitHub, "Troubleshooting OAuth app access token request errors";
# Slack, oauth.v2.access; Google; Apigee, "OAuthV2 policy", error reference; LinkedIn. Frameworks write `unauthorized`,
# the name of the status 401, into their JSON. Codes with a full stop are Strava's: resource and field of its `errors`.
ENDPOINT_CODES: Final[Mapping[str, ErrorCode]] = {
    "application.": ErrorCode.INVALID_CLIENT,
    "application.client_id": ErrorCode.INVALID_CLIENT,
    "application.redirect_uri": ErrorCode.REDIRECT_URI_MISMATCH,
    "authorization_code_expired": ErrorCode.INVALID_GRANT,
    "authorizationcode.": ErrorCode.INVALID_GRANT,
    "authorizationcode.code": ErrorCode.INVALID_GRANT,
    "bad_client_secret": ErrorCode.INVALID_CLIENT,
    "bad_redirect_uri": ErrorCode.REDIRECT_URI_MISMATCH,
    "bad_verification_code": ErrorCode.INVALID_GRANT,
    "code_already_used": ErrorCode.INVALID_GRANT,
    "deleted_client": ErrorCode.INVALID_CLIENT,
    "incorrect_client_credentials": ErrorCode.INVALID_CLIENT,
    "invalid_client_id": ErrorCode.INVALID_CLIENT,
    "invalid_code": ErrorCode.INVALID_GRANT,
    "invalid_grant_type": ErrorCode.UNSUPPORTED_GRANT_TYPE,
    "invalid_redirect_uri": ErrorCode.REDIRECT_URI_MISMATCH,
    "invalid_request-authorization_code_invalid": ErrorCode.INVALID_GRANT,
    "redirect_uri_mismatch": ErrorCode.REDIRECT_URI_MISMATCH,
    "requesttoken.code": ErrorCode.INVALID_GRANT,
    "unauthorized": ErrorCode.INVALID_CLIENT,
    "unverified_user_email": ErrorCode.SIGN_IN_REFUSED,
}

# Codes by which the consumer said no, in lower case and British spelling (`ll`). Sources: LinkedIn, "Authorization Code
# Flow" (`user_cancelled_login`, and `user_cancelled_authorize`, which Apple also sends); Smartcar, "OEM login
# cancelled". `user_denied` is Facebook's error_reason, which older servers send as the error. Several custom sign-in
# pages send `user_cancelled`.
CANCEL_CODES: Final = frozenset(
    {"oem_cancelled_login", "user_cancelled", "user_cancelled_authorize", "user_cancelled_login", "user_denied"}
)

# Texts in an error_description that are more exact than the code. The first match wins; case is ignored. Sources:
# Azure AD B2C (AADB2C90118: forgotten password; AADB2C90091, a cancel, needs no row); Microsoft Entra (AADSTS65004:
# consent declined; 50105: not assigned to the application; 90094: an administrator has to consent; 53000 to 53009:
# conditional access); Okta ("User is not assigned to the client application.", "Policy evaluation failed"); Google's
# code, passed on by a broker; Amazon Cognito (a brand's own Lambda trigger refuses).
DESCRIPTIONS: Final[tuple[tuple[ErrorCode, str, ErrorCode], ...]] = (
    (ErrorCode.ACCESS_DENIED, "aadb2c90118", ErrorCode.SIGN_IN_INTERRUPTED),
    (ErrorCode.ACCESS_DENIED, "aadsts50105", ErrorCode.SIGN_IN_REFUSED),
    (ErrorCode.ACCESS_DENIED, "aadsts5300", ErrorCode.SIGN_IN_REFUSED),
    (ErrorCode.ACCESS_DENIED, "aadsts90094", ErrorCode.SIGN_IN_REFUSED),
    (ErrorCode.ACCESS_DENIED, "admin_policy_enforced", ErrorCode.SIGN_IN_REFUSED),
    (ErrorCode.ACCESS_DENIED, "not assigned to the client application", ErrorCode.SIGN_IN_REFUSED),
    (ErrorCode.ACCESS_DENIED, "policy evaluation failed", ErrorCode.SIGN_IN_REFUSED),
    (ErrorCode.CONSENT_REQUIRED, "aadsts65004", ErrorCode.ACCESS_DENIED),
    (ErrorCode.INVALID_REQUEST, "presignup failed with error", ErrorCode.SIGN_IN_REFUSED),
    (ErrorCode.INVALID_REQUEST, "preauthentication failed with error", ErrorCode.SIGN_IN_REFUSED),
)

# The same for the endpoints that we call. There `invalid_request` may mean a spent code, for which another
# authorization request helps, or a wrong client. Sources: Shopify; LinkedIn (the second text, with either code);
# Apigee, "OAuth HTTP error response reference".
ENDPOINT_DESCRIPTIONS: Final[tuple[tuple[ErrorCode, str, ErrorCode], ...]] = (
    (ErrorCode.INVALID_REQUEST, "authorization code was not found or was already used", ErrorCode.INVALID_GRANT),
    (ErrorCode.INVALID_REQUEST, "does not match authorization code", ErrorCode.INVALID_GRANT),
    (ErrorCode.REDIRECT_URI_MISMATCH, "does not match authorization code", ErrorCode.INVALID_GRANT),
    (ErrorCode.INVALID_REQUEST, "invalid authorization code", ErrorCode.INVALID_GRANT),
    (ErrorCode.INVALID_REQUEST, "clientid is invalid", ErrorCode.INVALID_CLIENT),
)
