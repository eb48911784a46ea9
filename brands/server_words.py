"""Parts, labels and help texts of a server's page. If a label is a plain word, its help text has the RFC's name."""

from typing import Any, Final

LABELS: Final = {"issuer": "Issuer (your server's own address)", "scope": "Scope to ask for"}

HELP_TEXTS: Final = {
    "key": "The name that bots use in the API (key), for example orders. It never changes.",
    "is_active": "Off: bots cannot send anybody to this server. What was issued before is still revoked there.",
    "issuer": "Exactly as your server writes it, to the last slash (iss). The address of its metadata is "
    "understood, too.",
    "authorization_endpoint": "Where people sign in: authorization_endpoint of RFC 6749 section 3.1.",
    "token_endpoint": "Where we exchange a code for a token: token_endpoint of RFC 6749 section 3.2.",
    "revocation_endpoint": "Tokens that end before they expire are revoked there (revocation_endpoint, RFC 7009).",
    "pushed_authorization_request_endpoint": "If set, authorization requests are pushed there "
    "(pushed_authorization_request_endpoint, RFC 9126).",
    "userinfo_endpoint": "For a server without OpenID Connect: userinfo_endpoint, or an address of your API such as "
    "https://api.github.com/user. It gets the consumer's token (Authorization: Bearer) and answers with JSON. Then the "
    "next sign-in in a chat needs the same account.",
    "introspection_endpoint": "The same by RFC 7662 (introspection_endpoint): it gets the token and our client "
    "authentication.",
    "subject_member": "The member of that answer that is the account's own id (subject): a name such as sub or id, or "
    "a JSON Pointer such as /data/id. If this or the host changes, people who have signed in need a new chat.",
    "jwks_uri": "They verify ID tokens: jwks_uri of RFC 8414. Needed for openid.",
    "authorization_response_iss_parameter_supported": "Normally set from the server's metadata "
    "(authorization_response_iss_parameter_supported). If on, a success response without iss is refused.",
    "client_id": "The name under which your server knows us (client_id).",
    "token_endpoint_auth_method": "How we prove to your server who we are (token_endpoint_auth_method, RFC 7591).",
    "send_client_id_with_basic": "Only for HTTP Basic. Some servers require it (MCP's Python SDK), others refuse it.",
    "scope": "What a token may be used for (scope, RFC 6749 section 3.3). Separate scopes with spaces, whatever the "
    "scope separator is.",
    "required_scope": "A grant that lacks one of these scopes is refused. Some consent pages let consumers untick "
    "scopes.",
    "scope_separator": "In requests to the server and its responses. Bots and this page always use spaces.",
    "resource": "URLs of the APIs that the token is for, one per line (resource). Only for servers that support RFC "
    "8707.",
    "scope_descriptions": "Texts for consumers, one for each scope. They are shown only if all requested scopes "
    "have one.",
    "prompt": "login: the consumer signs in again, even with an open session at the server (OpenID Connect).",
    "max_age": "After that your server asks for a new sign-in (max_age, OpenID Connect). Empty: no limit.",
    "denial_codes": "Error codes that mean that the consumer cancelled, separated by spaces. access_denied and "
    "other well-known codes are understood without this.",
    "trusted_audiences": "Further values that aud may contain beside our client id, in ID tokens without azp; one "
    "per line.",
    "accept_scope_in_authorization_response": "If the token response has no scope, a narrower scope in the redirect "
    "counts.",
    "accepted_token_type": "What the server sends as token_type instead of Bearer, such as BearerToken (Apigee) or "
    "User Access Token (eBay).",
    "accept_zero_expires_in": "expires_in 0 means that the lifetime is unknown (Mailchimp, VK). The default below "
    "is used.",
    "expected_claims_policy": "A bot may name what its channel has verified (expected_claims). Your ID token has to "
    "confirm it: phone_number with phone_number_verified, email with email_verified.",
    "subject_claim": "The claim of the ID token with which the bot's expected_subject is compared. sub is the "
    "account's own id.",
    "chat_page_url": "For the check chat_page: the URL to which the consumer returns, with a handle in the fragment.",
    "default_token_lifetime": "Used if the server does not send expires_in.",
    "max_token_lifetime": "A token ends after that, even if expires_in is longer.",
    "challenge_lifetime": "After that the consumer needs a new link (challenge_lifetime). A sign-in with a second "
    "factor takes a while.",
    "basic_encoding": "Only for HTTP Basic (RFC 6749 section 2.3.1). raw is for a server that refuses the right ID "
    "and secret because it does not decode them. The set-up doctor tells.",
    "accept_form_encoded_tokens": "The server answers the token request with a form, such as "
    "access_token=...&scope=..., in place of JSON.",
    "dpop_bound_access_tokens": "Only if your server wants it: its metadata says what it supports, and not what it "
    "wants. A token then works only with a key that this service keeps (dpop_bound_access_tokens, RFC 9449), so bots "
    "make calls with it and cannot read it.",
    "accept_missing_token_type": "The server's answer has no token_type; its tokens are bearer tokens.",
}

# The part of the page that only `private_key_jwt` needs.
OUR_KEYS: Final = "Our public keys, for private_key_jwt"
# The four steps of a set-up; what is rare is folded away. Django opens a folded part that has an error.
FIELDSETS: Final[tuple[tuple[str, Any], ...]] = (
    (
        "1. Name it, and register us at your server",
        {
            "description": "Register the redirect URI at your server exactly as it is shown here, and copy from "
            "there what step 3 asks for.",
            "fields": ("brand", "key", "is_active", "redirect_uri"),
        },
    ),
    (
        "2. Find your server",
        {
            "description": "The issuer alone is enough if the server publishes its metadata: the endpoints below "
            "are filled in when you save, and never later. You may paste the address of the metadata. Issuer and "
            "JWKS URI are needed for openid.",
            "fields": ("issuer",),
        },
    ),
    (
        "Endpoints, if the issuer publishes none",
        {
            "classes": ("collapse",),
            "description": "The client secret is only ever sent to the hosts that it was typed for. If a new host "
            "would receive it, and for a new issuer or JWKS host, type it again.",
            "fields": (
                "authorization_endpoint",
                "token_endpoint",
                "jwks_uri",
                "revocation_endpoint",
                "pushed_authorization_request_endpoint",
                "ignored_metadata",
            ),
        },
    ),
    (
        "3. Our registration",
        {
            "description": "What the authorization server gave out when this product was registered there.",
            "fields": ("client_id", "client_secret", "token_endpoint_auth_method"),
        },
    ),
    (
        OUR_KEYS,
        {
            "classes": ("collapse",),
            "description": "Register this address at your server in place of a secret. If your server reads no "
            "address, register the keys that it shows.",
            "fields": ("client_jwks_uri", "signing_keys"),
        },
    ),
    (
        "Client authentication of unusual servers",
        {"classes": ("collapse",), "fields": ("basic_encoding", "send_client_id_with_basic")},
    ),
    (
        "4. What the bot may ask for, and how the person is checked",
        {
            "description": "A link can be forwarded: whoever signs in gives access to their own account to the "
            "chat that the link came from. With the completion code, the token stays locked until the "
            "code from the sign-in page was typed into that chat. With None, nothing is checked: a stranger who "
            "gets a customer to open a forwarded link reads that customer's data in the stranger's chat. "
            "None can only stand alone.",
            "fields": ("scope", "required_scope", "same_person_checks", "default_check"),
        },
    ),
    (
        "Checks in detail",
        {"classes": ("collapse",), "fields": ("chat_page_url", "subject_claim", "expected_claims_policy")},
    ),
    (
        "Who signed in, if there is no OpenID Connect",
        {
            "classes": ("collapse",),
            "description": "With openid in the scope the ID token says who signed in: leave the addresses empty. "
            "Without, one of them can say it. Otherwise the next sign-in in a chat may bring another account, and bots "
            "are told so.",
            "fields": ("userinfo_endpoint", "introspection_endpoint", "subject_member"),
        },
    ),
    (
        "The authorization request in detail",
        {
            "classes": ("collapse",),
            "description": 'Extra parameters are written as JSON, for example {"audience": "orders"}.',
            "fields": (
                "scope_descriptions",
                "scope_separator",
                "resource",
                "prompt",
                "max_age",
                "extra_authorization_parameters",
            ),
        },
    ),
    (
        "What comes back",
        {
            "classes": ("collapse",),
            "description": "Most of these accept what RFC 6749 forbids: leave off what your server does not need.",
            "fields": (
                "authorization_response_iss_parameter_supported",
                "id_token_signing_alg_values",
                "denial_codes",
                "trusted_audiences",
                "token_response_members",
                "accept_scope_in_authorization_response",
                "accept_form_encoded_tokens",
                "accept_missing_token_type",
                "accepted_token_type",
                "accept_zero_expires_in",
                "dpop_bound_access_tokens",
            ),
        },
    ),
    (
        "Lifetimes, in seconds",
        {
            "classes": ("collapse",),
            "fields": ("default_token_lifetime", "max_token_lifetime", "challenge_lifetime"),
        },
    ),
)
