"""What a server's metadata fills in for its admin, and where it contradicts what the admin typed (C6).

Metadata is asked for where an issuer is given and the authorization or the token endpoint is not. Whoever types both
asks nobody. What was found is stored and shown, and never looked up again: it changes when an admin changes it. What an
admin has switched off (`ignored_metadata`) stays off, whatever the metadata says and however often it is looked up.
"""

from typing import Any, Final

from brands.oauth import DiscoveryFailed, ServerMetadata
from brands.validators import ID_TOKEN_ALGORITHMS

NEEDED_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint")
ENDPOINTS: Final = (
    *NEEDED_ENDPOINTS,
    "jwks_uri",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
)
ISS_PARAMETER: Final = "authorization_response_iss_parameter_supported"
# Everything that metadata may decide.
DISCOVERED: Final = (*ENDPOINTS, ISS_PARAMETER, "id_token_signing_alg_values")


def asks_for_metadata(values: dict[str, Any]) -> bool:
    """Tell whether these values of an authorization server are to be completed by its metadata."""
    return bool(values.get("issuer")) and not all(values.get(name) for name in NEEDED_ENDPOINTS)


def fill_in(values: dict[str, Any], metadata: ServerMetadata) -> dict[str, str]:
    """Complete `values` in place; return in words, by field, what contradicts the metadata or is missing in it."""
    problems = {}
    ignored = values.get("ignored_metadata") or ()
    for name in [name for name in ENDPOINTS if name not in ignored]:
        found = getattr(metadata, name)
        if not values.get(name):
            values[name] = found
        elif values[name] != found:
            problems[name] = _other(found)
        if name in NEEDED_ENDPOINTS and not values[name]:
            problems[name] = "The issuer's metadata does not name it: type it."
    if metadata.authorization_response_iss_parameter_supported and ISS_PARAMETER not in ignored:
        values[ISS_PARAMETER] = True
    return _unsupported(values, metadata) | problems


def default_algorithms(metadata: ServerMetadata) -> list[str]:
    """Return what ID tokens may be signed with where nobody said: RS256, or what the server knows instead of it."""
    supported = metadata.id_token_signing_alg_values_supported
    if not supported or "RS256" in supported:
        return ["RS256"]
    return [name for name in ID_TOKEN_ALGORITHMS if name in supported and name != "HS256"]


def problem_of(failure: DiscoveryFailed) -> tuple[str, str]:
    """Return the field that shows a failure, and its words; what is no field of ours is the issuer's."""
    return failure.field if failure.field in ENDPOINTS else "issuer", failure.message


def _unsupported(values: dict[str, Any], metadata: ServerMetadata) -> dict[str, str]:
    problems = {}
    methods = metadata.token_endpoint_auth_methods_supported
    if methods and values.get("token_endpoint_auth_method") not in methods:
        problems["token_endpoint_auth_method"] = f"The issuer's metadata says: {_listed(methods)}."
    algorithms = metadata.id_token_signing_alg_values_supported
    # HS256 is an admin's own choice and never the default: some servers announce a key set, and sign with the secret.
    chosen = set(values.get("id_token_signing_alg_values") or ()) - {"HS256"}
    if "openid" in (values.get("scope") or "").split() and algorithms and not chosen <= set(algorithms):
        problems["id_token_signing_alg_values"] = f"The issuer's metadata says: {_listed(algorithms)}."
    challenges = metadata.code_challenge_methods_supported
    if challenges and "S256" not in challenges:
        problems["issuer"] = (
            "Its metadata does not name the code challenge method S256, which every request of ours has."
        )
    return problems


def _other(found: str) -> str:
    return f"The issuer's metadata says: {found}" if found else "The issuer's metadata does not name one."


def _listed(names: tuple[str, ...]) -> str:
    """Quote what could be a name of ours and nothing else: the rest is the server's text."""
    known = [name for name in names if len(name) <= 32 and name.replace("_", "").isalnum() and name.isascii()]  # noqa: PLR2004
    return ", ".join(known[:20]) or "something else"
