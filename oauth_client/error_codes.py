"""The error codes of failed sign-ins and revocations, with page, cause and remedy; docs/brand-admin.md lists them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """Codes of RFC 6749 (4.1.2.1, 5.2), RFC 7009 (2.2.1), RFC 8707 (2), RFC 9449 (5, 8), OpenID Connect, and ours."""

    # Ours, about the token endpoint.
    TOKEN_ENDPOINT_TIMEOUT = "token_endpoint_timeout"
    TOKEN_ENDPOINT_UNREACHABLE = "token_endpoint_unreachable"
    TOKEN_REQUEST_REFUSED = "token_request_refused"
    INVALID_TOKEN_RESPONSE = "invalid_token_response"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    # Ours, about the revocation endpoint.
    REVOCATION_ENDPOINT_TIMEOUT = "revocation_endpoint_timeout"
    REVOCATION_ENDPOINT_UNREACHABLE = "revocation_endpoint_unreachable"
    REVOCATION_REFUSED = "revocation_refused"
    INVALID_REVOCATION_RESPONSE = "invalid_revocation_response"
    # Ours, about the pushed authorization request (PAR) endpoint.
    PAR_ENDPOINT_TIMEOUT = "par_endpoint_timeout"
    PAR_ENDPOINT_UNREACHABLE = "par_endpoint_unreachable"
    INVALID_PAR_RESPONSE = "invalid_par_response"
    # Ours, about the userinfo or introspection endpoint, which says whose account a token is for.
    SUBJECT_ENDPOINT_BUSY = "subject_endpoint_busy"
    SUBJECT_ENDPOINT_TIMEOUT = "subject_endpoint_timeout"
    SUBJECT_ENDPOINT_UNREACHABLE = "subject_endpoint_unreachable"
    SUBJECT_REQUEST_REFUSED = "subject_request_refused"
    INVALID_SUBJECT_RESPONSE = "invalid_subject_response"
    # Ours, about the ID token and its keys.
    INVALID_ID_TOKEN = "invalid_id_token"
    JWKS_UNAVAILABLE = "jwks_unavailable"
    CLAIM_UNUSABLE = "claim_unusable"
    ASSURANCE_NOT_MET = "assurance_not_met"
    # Ours, about the authorization response.
    AUTHORIZATION_REQUEST_REFUSED = "authorization_request_refused"
    ISSUER_MISMATCH = "issuer_mismatch"
    SIGN_IN_INTERRUPTED = "sign_in_interrupted"
    SIGN_IN_REFUSED = "sign_in_refused"
    # Ours, about this product.
    CONFIGURATION_CHANGED = "configuration_changed"
    INTERNAL_ERROR = "internal_error"
    STORED_SECRET_UNREADABLE = "stored_secret_unreadable"
    # The server's.
    ACCESS_DENIED = "access_denied"
    ACCOUNT_SELECTION_REQUIRED = "account_selection_required"
    CONSENT_REQUIRED = "consent_required"
    INTERACTION_REQUIRED = "interaction_required"
    INVALID_CLIENT = "invalid_client"
    INVALID_DPOP_PROOF = "invalid_dpop_proof"
    INVALID_GRANT = "invalid_grant"
    INVALID_REQUEST = "invalid_request"
    INVALID_SCOPE = "invalid_scope"
    INVALID_TARGET = "invalid_target"
    LOGIN_REQUIRED = "login_required"
    REDIRECT_URI_MISMATCH = "redirect_uri_mismatch"
    SERVER_ERROR = "server_error"
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    UNSUPPORTED_RESPONSE_TYPE = "unsupported_response_type"
    UNSUPPORTED_TOKEN_TYPE = "unsupported_token_type"
    USE_DPOP_NONCE = "use_dpop_nonce"


class ConsumerPage(StrEnum):
    """The page that the consumer sees, by its template's name; empty if no consumer sees one."""

    NONE = ""
    ASSURANCE_NOT_MET = "assurance_not_met"
    CANNOT_SIGN_IN = "cannot_sign_in"
    DENIED = "denied"
    MISSING_PERMISSION = "missing_permission"
    NOT_ANSWERING = "not_answering"
    NOT_COMPLETED = "not_completed"
    OTHER_CONVERSATION = "other_conversation"
    OTHER_PERSON = "other_person"
    TOO_MANY_CODES = "too_many_codes"


# These pages have a button that starts another authorization request. The others have none.
_OFFER_ANOTHER_TRY: Final = frozenset(
    {ConsumerPage.MISSING_PERMISSION, ConsumerPage.NOT_ANSWERING, ConsumerPage.NOT_COMPLETED}
)


def _without_markdown(text: str) -> str:
    return text.replace("*", "").replace("`", "")


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row. `is_repeatable`: the same request may be sent again, as for a revocation. Never for a code (E20)."""

    page: ConsumerPage
    cause: str
    remedy: str
    is_repeatable: bool = False

    @property
    def plain_cause(self) -> str:
        """`cause` without Markdown, for a page."""
        return _without_markdown(self.cause)

    @property
    def plain_remedy(self) -> str:
        """`remedy` without Markdown, for a page."""
        return _without_markdown(self.remedy)

    @property
    def another_try_helps(self) -> bool:
        """Whether the consumer may succeed by trying again. Otherwise somebody has to change something first."""
        return self.page in _OFFER_ANOTHER_TRY


_CANNOT, _LATER, _AGAIN = ConsumerPage.CANNOT_SIGN_IN, ConsumerPage.NOT_ANSWERING, ConsumerPage.NOT_COMPLETED
_NETWORK: Final = "Check the server's status and the network between it and us."
# A blocked address is one that "could not be reached", too: a brand's admin must not learn which it is (N9).
_ADDRESS: Final = (
    "Compare the address with your server's: https, a public host, port 443. If it is right, check the server's "
    "status. The operator's log gives the reason."
)
_DIALECT: Final = "Read the detail. *Check the set-up* tests the endpoint; settings under *What comes back* may help."
_LET_IT_ASK: Final = (
    "Nothing, if it works at the next try. Otherwise let the server show its sign-in page to our client."
)
_ANNOUNCED: Final = "The server does not allow our client the authorization code flow."
_ALLOW_CODES: Final = "Allow our client the authorization code flow at the server."

# Values of `last_error`, and the four values of `error` with which a challenge ends as failed.
MEANINGS: Final[Mapping[str, Meaning]] = {
    ErrorCode.ACCESS_DENIED: Meaning(
        ConsumerPage.DENIED,
        "The consumer, or the server itself, said no: the challenge ends as denied.",
        "Nothing, if it was the consumer. If the detail names a rule of the server, change that rule.",
    ),
    ErrorCode.ACCOUNT_SELECTION_REQUIRED: Meaning(
        _AGAIN, "The server needs the consumer to choose an account.", _LET_IT_ASK
    ),
    ErrorCode.ASSURANCE_NOT_MET: Meaning(
        ConsumerPage.ASSURANCE_NOT_MET,
        "The brand's API demands a stronger or newer sign-in than this one was, or than the server can do.",
        "Nothing, if it is rare. If always: let the server obey `acr_values` and `max_age`, and send `acr` and "
        "`auth_time` in its ID tokens.",
    ),
    ErrorCode.AUTHORIZATION_REQUEST_REFUSED: Meaning(
        _AGAIN,
        "The server answered with an unknown code, which the detail shows.",
        "Look the code up at the server's vendor. If it means that the consumer said no, put it into *Denial codes*.",
    ),
    ErrorCode.CLAIM_UNUSABLE: Meaning(
        _CANNOT,
        "The ID token lacks the *Subject claim*, or the telephone number or e-mail address that the bot expects; or "
        "it has not verified it.",
        "Have the server send the claim, and for an e-mail address or phone number that it is verified; "
        "or choose another claim.",
    ),
    ErrorCode.CONFIGURATION_CHANGED: Meaning(
        _AGAIN,
        "The server's settings were changed while somebody signed in.",
        "Nothing: the next try uses the new settings.",
    ),
    ErrorCode.CONSENT_REQUIRED: Meaning(_AGAIN, "The server has not asked the consumer for consent.", _LET_IT_ASK),
    ErrorCode.INSUFFICIENT_SCOPE: Meaning(
        ConsumerPage.MISSING_PERMISSION,
        "The consumer, or the server, granted less than *Required scope*.",
        "Nothing, if the consumer unticked it. Otherwise allow our client these scopes.",
    ),
    ErrorCode.INTERACTION_REQUIRED: Meaning(_AGAIN, "The server needs to ask the consumer something.", _LET_IT_ASK),
    ErrorCode.INTERNAL_ERROR: Meaning(
        _AGAIN, "An internal error of this product.", "Tell the operator: the log has a line with the challenge's id."
    ),
    ErrorCode.INVALID_CLIENT: Meaning(
        _CANNOT,
        "The server does not know our client id, or does not take the secret or key.",
        "Type client id and secret again. *Check the set-up* says which client authentication the server takes.",
    ),
    ErrorCode.INVALID_DPOP_PROOF: Meaning(
        _CANNOT,
        "The server does not accept our proof (DPoP): mostly its clock and ours differ. Or it wants one.",
        "Compare the clocks. See that *Bind tokens to this service* is as it wants, and that it takes ES256.",
    ),
    ErrorCode.INVALID_GRANT: Meaning(
        _AGAIN,
        "The server refused the code: too old, used before, or of another client, redirect URI or PKCE challenge.",
        "Nothing, if it happens now and then. If always: compare the redirect URI; see whether the detail names PKCE.",
    ),
    ErrorCode.INVALID_ID_TOKEN: Meaning(
        _CANNOT,
        "The ID token is invalid; the detail says why.",
        "Compare issuer, client id and *ID token algorithms* with the server's, and its clock with ours.",
    ),
    ErrorCode.INVALID_PAR_RESPONSE: Meaning(
        _CANNOT,
        "The answer to the pushed authorization request cannot be used.",
        "Read the detail. If you remove the endpoint, requests go through the browser.",
    ),
    ErrorCode.INVALID_REQUEST: Meaning(
        _CANNOT,
        "The server says that our request is wrong.",
        "Compare the redirect URI, the scope and the extra parameters with what the server wants.",
    ),
    ErrorCode.INVALID_REVOCATION_RESPONSE: Meaning(
        ConsumerPage.NONE, "The revocation endpoint's answer cannot be used.", "Check the endpoint's address."
    ),
    ErrorCode.INVALID_SCOPE: Meaning(
        _CANNOT,
        "The server does not know a scope that we ask for, or does not allow it to our client.",
        "Correct *Scope*, or allow our client these scopes.",
    ),
    ErrorCode.INVALID_SUBJECT_RESPONSE: Meaning(
        _CANNOT,
        "The answer of the userinfo or introspection endpoint does not say whose account it is; the detail says why.",
        "Compare the endpoint's address, and *Member that is the account*, with what your server answers.",
    ),
    ErrorCode.INVALID_TARGET: Meaning(
        _CANNOT,
        "The server does not know a resource that we ask for, does not allow it to our client, or wants one named.",
        "Write each *Resource* exactly as the server knows it, its last slash included, or allow it to our client.",
    ),
    ErrorCode.INVALID_TOKEN_RESPONSE: Meaning(_CANNOT, "The token answer cannot be used.", _DIALECT),
    ErrorCode.ISSUER_MISMATCH: Meaning(
        _AGAIN,
        "The answer names another issuer than the configured one, or none; the detail shows both.",
        "Copy the server's issuer exactly, its last slash included. If it was right, this may be a mix-up attack.",
    ),
    ErrorCode.JWKS_UNAVAILABLE: Meaning(
        _LATER,
        "The server's signing keys could not be fetched, or are newer than our copy of less than a minute ago.",
        "Nothing, if it passes. Otherwise look at *JWKS URI*. Publish a new key some minutes before signing with it.",
        is_repeatable=True,
    ),
    ErrorCode.LOGIN_REQUIRED: Meaning(_AGAIN, "The server did not show its sign-in page.", _LET_IT_ASK),
    ErrorCode.PAR_ENDPOINT_TIMEOUT: Meaning(
        _LATER, "The endpoint for pushed requests was too slow.", _NETWORK, is_repeatable=True
    ),
    ErrorCode.PAR_ENDPOINT_UNREACHABLE: Meaning(
        _LATER, "The endpoint for pushed requests could not be reached.", _ADDRESS, is_repeatable=True
    ),
    ErrorCode.REDIRECT_URI_MISMATCH: Meaning(
        _CANNOT,
        "Our redirect URI is not registered at the server.",
        "Register the *Redirect URI* that the server's page here shows, exactly as it stands.",
    ),
    ErrorCode.REVOCATION_ENDPOINT_TIMEOUT: Meaning(
        ConsumerPage.NONE, "The revocation endpoint was too slow.", _NETWORK, is_repeatable=True
    ),
    ErrorCode.REVOCATION_ENDPOINT_UNREACHABLE: Meaning(
        ConsumerPage.NONE, "The revocation endpoint could not be reached.", _ADDRESS, is_repeatable=True
    ),
    ErrorCode.REVOCATION_REFUSED: Meaning(
        ConsumerPage.NONE,
        "The server refused to revoke a token, with an unknown error code.",
        "Allow our client to revoke its tokens.",
    ),
    ErrorCode.SERVER_ERROR: Meaning(_LATER, "An error at the server.", _NETWORK, is_repeatable=True),
    ErrorCode.SIGN_IN_INTERRUPTED: Meaning(
        _AGAIN,
        "The consumer left the server's sign-in page for something else, such as a new password.",
        "Nothing. If the server can do that on its own page, enable it there.",
    ),
    ErrorCode.SIGN_IN_REFUSED: Meaning(
        _CANNOT,
        "A rule of the server refuses this account. The consumer did not say no.",
        "Read the detail. Assign the account to our client at the server, approve the client, or change the rule.",
    ),
    ErrorCode.STORED_SECRET_UNREADABLE: Meaning(
        _CANNOT,
        "A stored secret or token cannot be decrypted.",
        "Tell the operator: a key is missing in the ring. Or type the client secret again.",
    ),
    ErrorCode.SUBJECT_ENDPOINT_BUSY: Meaning(
        _LATER, "The userinfo or introspection endpoint is busy, or has an error of its own.", _NETWORK
    ),
    ErrorCode.SUBJECT_ENDPOINT_TIMEOUT: Meaning(
        _LATER, "The userinfo or introspection endpoint was too slow.", _NETWORK
    ),
    ErrorCode.SUBJECT_ENDPOINT_UNREACHABLE: Meaning(
        _LATER, "The userinfo or introspection endpoint could not be reached.", _ADDRESS
    ),
    ErrorCode.SUBJECT_REQUEST_REFUSED: Meaning(
        _CANNOT,
        "The userinfo or introspection endpoint does not tell us whose account it is.",
        "Add the scope that it needs, or allow our client to ask there. Without the endpoint, accounts are not pinned.",
    ),
    ErrorCode.TEMPORARILY_UNAVAILABLE: Meaning(
        _LATER,
        "The server is busy or down, or our limit of simultaneous calls to it is reached.",
        _NETWORK,
        is_repeatable=True,
    ),
    ErrorCode.TOKEN_ENDPOINT_TIMEOUT: Meaning(_LATER, "The token endpoint was too slow.", _NETWORK),
    ErrorCode.TOKEN_ENDPOINT_UNREACHABLE: Meaning(_LATER, "The token endpoint could not be reached.", _ADDRESS),
    ErrorCode.TOKEN_REQUEST_REFUSED: Meaning(
        _AGAIN, "The server refused the code with an unknown error code, or with none.", _DIALECT
    ),
    ErrorCode.UNAUTHORIZED_CLIENT: Meaning(
        _CANNOT,
        "The server does not allow our client to do this. Some servers also say so of a wrong secret.",
        "Type client id and secret again. Allow our client the authorization code flow and these scopes.",
    ),
    ErrorCode.UNSUPPORTED_GRANT_TYPE: Meaning(_CANNOT, _ANNOUNCED, _ALLOW_CODES),
    ErrorCode.UNSUPPORTED_RESPONSE_TYPE: Meaning(_CANNOT, _ANNOUNCED, _ALLOW_CODES),
    ErrorCode.UNSUPPORTED_TOKEN_TYPE: Meaning(
        ConsumerPage.NONE, "The server does not revoke access tokens.", "Leave the revocation endpoint empty."
    ),
    ErrorCode.USE_DPOP_NONCE: Meaning(
        _AGAIN,
        "The server wants a nonce in our proof (DPoP), and did not accept the one that it gave us.",
        "Nothing, if it passes. If always: switch on *Bind tokens to this service*, or have its machines share nonces.",
    ),
    "subject_mismatch": Meaning(
        ConsumerPage.OTHER_PERSON,
        "A different account signed in than before in this chat, or than the bot named.",
        "Nothing: that is what the check is for.",
    ),
    "too_many_codes": Meaning(
        ConsumerPage.TOO_MANY_CODES, "Five wrong completion codes were typed.", "Nothing: the bot asks again."
    ),
    "other_conversation": Meaning(
        ConsumerPage.OTHER_CONVERSATION,
        "The chat page's handle came from another chat than the link.",
        "Nothing, if a link was forwarded. Otherwise see that the chat page gives the handle to its own chat's bot.",
    ),
}
