"""What every call goes through: method, key, scopes, query, body; and every error as a problem document."""

import base64
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Final, TypeVar

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.utils import timezone
from django.utils.http import parse_etags
from django.views.decorators.csrf import csrf_exempt
from msgspec import Meta, Struct

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api.flow_problems import next_call, problem_of
from conversations.flow.challenges import IdempotentRequest
from conversations.flow.errors import FlowError
from infrastructure import rate_limits
from infrastructure.crypto import DecryptionError, key_ring
from oauth_client.validators import MAX_SCOPE_LENGTH
from web.errors import Problem, json_response, rate_limited
from web.limits import client_address

Key = Annotated[str, Meta(max_length=64)]
ScopeText = Annotated[str, Meta(max_length=MAX_SCOPE_LENGTH)]


class ChallengeBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../challenges`; every field is optional."""

    authorization_server: Key = ""
    same_person_check: Annotated[str, Meta(max_length=24)] = ""
    expected_subject: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    scope: ScopeText = ""
    purpose: Annotated[
        str, Meta(max_length=140, pattern=r"^[^\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z")
    ] = ""
    locale: Annotated[str, Meta(pattern=r"^(?:[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3})?\Z")] = ""
    context: Annotated[str, Meta(max_length=1024)] | None = None
    replace: bool = False


class AuthorizeBody(ChallengeBody, kw_only=True, forbid_unknown_fields=True):
    """`POST .../authorize`: the same, and how long the token must live."""

    # A whole number in either spelling: 30.0 is an integer for JSON, and so for whoever holds us to the contract.
    min_ttl: Annotated[float, Meta(ge=0, le=3600, multiple_of=1)] = 0


class CompletionBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../completion`: a code or a handle."""

    code: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    handle: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    authorization_server: Key = ""

    def __post_init__(self) -> None:
        """Refuse both and neither. msgspec makes it the answer to the call."""
        if (self.code is None) == (self.handle is None):
            raise ValueError("Give either `code` or `handle`")


_TAG_BYTES: Final = 18


def conditional_answer(
    request: HttpRequest, facts: dict[str, Any], headers: dict[str, str] | None = None
) -> HttpResponse:
    """Return the facts with their entity tag, or 304 without a body where `If-None-Match` names it."""
    tag = entity_tag(facts)
    answer = json_response(facts, headers=(headers or {}) | {"ETag": tag})
    if not has_seen(request, tag):
        return answer
    # Django's middleware would say 0, which is not the length that a 200 would have (RFC 9110 section 8.6).
    length = {"Content-Length": str(len(answer.content))}
    unchanged = HttpResponseNotModified(headers=length)
    for name in ("ETag", *(headers or {})):
        unchanged[name] = answer[name]
    return unchanged


def entity_tag(facts: dict[str, Any]) -> str:
    """Return the tag of what a bot reads, weak because the seconds left are not part of it.

    Keyed: tags are written into logs, and nobody is to guess a purpose or context from one.
    """
    digest = key_ring().digest("entity-tag", msgspec.json.encode(_without_seconds(facts)))[-_TAG_BYTES:]
    return f'W/"{base64.urlsafe_b64encode(digest).decode()}"'


def has_seen(request: HttpRequest, tag: str) -> bool:
    """Tell whether `If-None-Match` names what has this entity tag, compared weakly (RFC 9110 section 13.1.2)."""
    tags = parse_etags(request.headers.get("If-None-Match", ""))
    return "*" in tags or tag.removeprefix("W/") in {named.removeprefix("W/") for named in tags}


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_seconds(member) for name, member in value.items() if name != "expires_in"}
    if isinstance(value, list):
        return [_without_seconds(member) for member in value]
    return value


MAX_BODY_BYTES: Final = 16 * 1024

logger = logging.getLogger("consumer_delegation.api")

Body = TypeVar("Body")
# A response where headers of its own belong to it.
Answer = tuple[int, dict[str, Any]] | HttpResponse


@dataclass(frozen=True)
class Call:
    """An authenticated call: whose key, and the request itself."""

    request: HttpRequest
    bot_key: BotKey

    @property
    def actor(self) -> str:
        """Return the key's name for audit rows and log lines."""
        return f"bot:{self.bot_key.public_id}"

    def query(self, *names: str) -> dict[str, str]:
        """Return the query parameters. Raises `Problem` for an unknown or repeated one."""
        for name, values in self.request.GET.lists():
            if name not in names:
                raise Problem(422, "unknown_parameter", f"There is no query parameter {_shortened(name)} here.")
            if len(values) > 1:
                raise Problem(422, "repeated_parameter", f"Give the query parameter {name} once.")
        return {name: self.request.GET[name] for name in names if name in self.request.GET}

    def body(self, shape: type[Body]) -> Body:
        """Decode the JSON body strictly; an empty one is an empty object. Raises `Problem`."""
        raw = _raw_body(self.request)
        if raw and self.request.content_type != "application/json":
            raise Problem(415, "unsupported_media_type", "Send the body as application/json.")
        try:
            return msgspec.json.decode(raw or b"{}", type=shape)
        except msgspec.ValidationError as error:
            raise Problem(422, "invalid_request_body", f"{error}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Problem(400, "malformed_json", "The body is not valid JSON.") from None


def seconds(text: str, most: int) -> int | None:
    """Return a query's number of seconds, 0 to `most`; None where it is none."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if is_number and int(text) <= most else None


View = Callable[..., Answer]


def endpoint(**views: View) -> Callable[..., HttpResponse]:
    """Make one URL's view out of a function for each HTTP method; their docstrings are in the contract."""

    @csrf_exempt
    def dispatch(request: HttpRequest, **path: str) -> HttpResponse:
        view = views.get(request.method or "")
        try:
            if view is None:
                allowed = ", ".join(views)
                problem = f"This address answers {allowed}."
                raise Problem(405, "method_not_allowed", problem, headers={"Allow": allowed})
            answer = view(request, **path)
        except (Problem, FlowError, rate_limits.RateLimited, DecryptionError) as error:
            refusal = _problem_of(error)
            return refusal.response(next_call(refusal, request, path))
        if isinstance(answer, HttpResponse):
            return answer
        status, body = answer
        return json_response(body, status=status)

    return dispatch


def count_call(bot_key: BotKey) -> None:
    """Count a call of this key, in all processes together. Raises `RateLimited` (G8)."""
    rate_limits.count(rate_limits.CALLS_PER_KEY, bot_key.public_id)


def count_token_read(bot_key: BotKey) -> None:
    """Count a token read of this key in this process: no read waits for a write. Raises `RateLimited` (G8)."""
    rate_limits.count_in_process(rate_limits.TOKEN_READS_PER_KEY, bot_key.public_id)


def count_nothing(bot_key: BotKey) -> None:
    """Let a call that was counted before go on."""


def bot_call(
    *scopes: BotKey.Scope,
    counted: Callable[[BotKey], None] = count_call,
    at_once: Callable[..., Answer | None] | None = None,
) -> Callable[[View], View]:
    """Authenticate the bot and demand these scopes; the view gets a `Call` in place of the request.

    The key is taken from the Authorization header and nowhere else (G2); no cookie is looked at (G7). `at_once` gets
    the request and the `PresentedKey`, which it has to recognise itself; where it has no answer, all of this is done.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapper(request: HttpRequest, **path: str) -> Answer:
            presented = PresentedKey.read(request.META.get("HTTP_AUTHORIZATION", ""))
            if at_once and presented and (answer := at_once(request, presented, **path)):
                return answer
            bot_key = presented.live_key(timezone.now()) if presented else None
            if bot_key is None:
                # Only failures are counted, so that a stranger's noise does not lock out a bot behind the same address.
                rate_limits.count(rate_limits.FAILED_KEYS_PER_ADDRESS, client_address(request))
                challenge = {"WWW-Authenticate": "Bearer"}
                raise Problem(401, "invalid_bot_key", "Send a live bot key as a bearer token.", headers=challenge)
            counted(bot_key)
            missing = sorted(set(scopes) - set(bot_key.scopes))
            if missing:
                challenge = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'}
                detail = f"This bot key lacks the scope {' '.join(missing)}."
                raise Problem(403, "insufficient_scope", detail, headers=challenge)
            return view(Call(request, bot_key), **path)

        return wrapper

    return decorate


def _problem_of(error: Problem | FlowError | rate_limits.RateLimited | DecryptionError) -> Problem:
    if isinstance(error, FlowError):
        return problem_of(error)
    if isinstance(error, rate_limits.RateLimited):
        return rate_limited(error.retry_after)
    if isinstance(error, DecryptionError):
        # A row that was moved or tampered with, or a key that was taken out of the ring too early (K2).
        logger.error("a stored value could not be read", exc_info=error)
        return Problem(500, "stored_value_unreadable", "A stored value cannot be read. Tell the operator.")
    return error


def _raw_body(request: HttpRequest) -> bytes:
    if request.headers.get("Transfer-Encoding"):
        # Django reads nothing of a body without a length: what the bot asked for would be ignored without a word.
        raise Problem(411, "length_required", "Send the body with a Content-Length, not in chunks.")
    length = request.headers.get("Content-Length") or "0"
    if length.isascii() and length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise Problem(413, "body_too_large", f"A body has at most {MAX_BODY_BYTES} bytes.")
    raw = request.read(MAX_BODY_BYTES + 1)
    if len(raw) > MAX_BODY_BYTES:
        raise Problem(413, "body_too_large", f"A body has at most {MAX_BODY_BYTES} bytes.")
    return raw


def _shortened(text: str) -> str:
    return "".join(character for character in text[:40] if character.isprintable())


_BARE: Final = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]{0,254}")
# A String of structured fields (RFC 8941 section 3.3.3): quotes and backslashes are escaped, and nothing else is.
_QUOTED: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')


def idempotent_request(call: Call, body: ChallengeBody) -> IdempotentRequest | None:
    """Return the key that came with this body, None where none came. Raises `Problem`."""
    header = call.request.headers.get("Idempotency-Key")
    if header is None:
        return None
    quoted = _QUOTED.fullmatch(header)
    if quoted is None and not _BARE.fullmatch(header):
        detail = "An Idempotency-Key has 1 to 255 visible ASCII characters, in double quotes or without."
        raise Problem(422, "invalid_idempotency_key", detail)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    # The decoded body written anew: spaces and the order of its members make no other request of it.
    return IdempotentRequest(key, msgspec.json.encode(body))
