"""How sign-ins went, in words for a brand's admins: why one failed, what to do, what to compare, how long it took."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils.text import capfirst

from brands.models import AuthorizationServer
from brands.server_rules import host_of
from conversations.flow.authorization_requests import DROPPED, UNEXPECTED_SUBJECT
from conversations.models import AuthorizationRequest, Challenge
from oauth_client import MEANINGS, ErrorCode, ServerConfiguration

# The marks of steps; `static/admin_steps.css` draws them.
GOOD, NOTE, PROBLEM, WAITING = "good", "note", "problem", "waiting"
# Errors of authorization requests that are not in the table of codes, because no server sent them.
_OURS: Final = {
    DROPPED: ("More than ten sign-ins of this challenge were begun: the oldest one was dropped.", "Nothing."),
    "challenge_ended": ("The challenge had ended before the sign-in was over. The token was discarded.", "Nothing."),
}
_CLIENT: Final = ("client_id", "token_endpoint_auth_method", "basic_encoding", "send_client_id_with_basic")
# What the request that failed had, to be compared with what the server wants or says. Nothing that may hold a secret.
_SUBJECT: Final = ("userinfo_endpoint", "introspection_endpoint")
_TO_COMPARE: Final[dict[str, tuple[str, ...]]] = {
    ErrorCode.REDIRECT_URI_MISMATCH: ("redirect_uri", "client_id"),
    ErrorCode.INVALID_REQUEST: ("redirect_uri", "scope", "resource"),
    ErrorCode.INVALID_GRANT: ("redirect_uri", "client_id"),
    ErrorCode.INVALID_SCOPE: ("scope",),
    ErrorCode.INSUFFICIENT_SCOPE: ("scope", "required_scope", "scope_separator"),
    ErrorCode.INVALID_TARGET: ("resource",),
    ErrorCode.INVALID_CLIENT: _CLIENT,
    ErrorCode.UNAUTHORIZED_CLIENT: (*_CLIENT, "scope"),
    ErrorCode.ISSUER_MISMATCH: ("issuer", "authorization_response_iss_parameter_supported"),
    ErrorCode.INVALID_ID_TOKEN: ("issuer", "client_id", "id_token_signing_alg_values", "trusted_audiences"),
    ErrorCode.INVALID_SUBJECT_RESPONSE: (*_SUBJECT, "subject_member"),
    ErrorCode.SUBJECT_ENDPOINT_BUSY: _SUBJECT,
    ErrorCode.SUBJECT_ENDPOINT_TIMEOUT: _SUBJECT,
    ErrorCode.SUBJECT_ENDPOINT_UNREACHABLE: _SUBJECT,
    ErrorCode.SUBJECT_REQUEST_REFUSED: (*_SUBJECT, "scope"),
    ErrorCode.INVALID_TOKEN_RESPONSE: (
        "accept_form_encoded_tokens", "accept_missing_token_type", "accepted_token_type", "accept_zero_expires_in",
        "dpop_bound_access_tokens",
    ),
}  # fmt: skip
# Of addresses only the host is shown.
_HOSTS: Final = (
    *("authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri"),
    *_SUBJECT,
    "pushed_authorization_request_endpoint",
)
_ADDRESS_OF: Final = {
    "token_endpoint": "token_endpoint",
    "revocation_endpoint": "revocation_endpoint",
    "par_endpoint": "pushed_authorization_request_endpoint",
    "jwks": "jwks_uri",
}
# Values that may be shown if a setting was changed during a sign-in.
_LISTED: Final = frozenset(
    {*_HOSTS, "redirect_uri", "issuer"} | {name for names in _TO_COMPARE.values() for name in names}
)


# Of so many sign-ins in a row, in the last day and begun before the last five minutes.
_MOST_UNRETURNED: Final = 10
_FEWEST_UNRETURNED: Final = 3
_CHALLENGES_LOOKED_AT: Final = 30


def unreturned_sign_ins(server: AuthorizationServer, now: datetime) -> int:
    """Count the newest sign-ins that left for the server if not one of them came back; otherwise 0. One query.

    Most servers show a page of their own for an unregistered redirect URI, so no error ever reaches us. Fewer than
    three say nothing: consumers do close the window.

    There is no index by server and age, on purpose: PostgreSQL would use it to find the newest challenge of one
    conversation, too, and read a server's challenges one by one. Without it, the newest are found in the order of the
    ids if a server has many, and by the server if it has few.
    """
    newest = Challenge.objects.filter(authorization_server=server).order_by("-id").values("pk")[:_CHALLENGES_LOOKED_AT]
    requests = AuthorizationRequest.objects.filter(challenge__in=newest, created_at__gt=now - timedelta(days=1))
    left, waiting_since = 0, now - timedelta(minutes=5)
    for created_at, claimed_at in requests.order_by("-id").values_list("created_at", "claimed_at")[:_MOST_UNRETURNED]:
        if claimed_at is not None:
            return 0
        left += created_at <= waiting_since
    return left if left >= _FEWEST_UNRETURNED else 0


def failure_lines(code: str, detail: str = "", request: AuthorizationRequest | None = None) -> list[str]:
    """Return cause, remedy, detail and the values to compare; without a request only what the table says."""
    meaning = MEANINGS.get(Challenge.Error.SUBJECT_MISMATCH if code == UNEXPECTED_SUBJECT else code)
    cause, remedy = (meaning.plain_cause, meaning.plain_remedy) if meaning else _OURS.get(code, ("", ""))
    lines = [cause, f"What to do: {remedy}"] if cause else []
    lines += [f"Detail: {detail}"] if detail else []
    return [*lines, *(_values(code, request) if request else ())]


def _values(code: str, request: AuthorizationRequest) -> Iterator[str]:
    configuration = request.stored_configuration()
    if code == ErrorCode.CONFIGURATION_CHANGED:
        yield from _differences(configuration, request)
    for name in _names(code):
        if value := _shown(name, getattr(configuration, name)):
            yield f"{_label(name)} in our request: {value}"


def _names(code: str) -> Iterator[str]:
    yield from _TO_COMPARE.get(code, ())
    yield from (name for prefix, name in _ADDRESS_OF.items() if code.startswith(prefix))


def _differences(before: ServerConfiguration, request: AuthorizationRequest) -> Iterator[str]:
    """Return the settings of the request that differ from the current settings, which may have changed again since."""
    now = request.challenge.authorization_server.configuration(before.scope, before.demand)
    for name in ServerConfiguration.__struct_fields__:
        old, new = getattr(before, name), getattr(now, name)
        if old == new:
            continue
        if name not in _LISTED or _shown(name, old) == _shown(name, new):
            yield f"{_label(name)} differs from the settings of now."
        else:
            yield f"{_label(name)}: {_shown(name, old) or 'empty'} in the request, {_shown(name, new) or 'empty'} now"


def _shown(name: str, value: Any) -> str:
    if name in _HOSTS:
        return host_of(value) or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _label(name: str) -> str:
    if name == "redirect_uri":
        return "Redirect URI"
    field: Any = AuthorizationServer._meta.get_field(name)
    return str(capfirst(field.verbose_name))


def duration_in_words(duration: timedelta) -> str:
    """Write a duration as "20.0 seconds", or from a minute on as "3 minutes 4 seconds"."""
    if duration < timedelta(minutes=1):
        return f"{duration.total_seconds():.1f} seconds"
    minutes, seconds = divmod(round(duration.total_seconds()), 60)
    return f"{minutes} minute{'s' * (minutes != 1)} {seconds} second{'s' * (seconds != 1)}"
