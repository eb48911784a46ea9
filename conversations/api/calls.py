"""What all calls share: method, bot key, scopes, rate limit, query, body, and errors as problems."""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

import msgspec
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from msgspec import Meta, Struct

from brands.authentication import PresentedKey
from brands.models import BotKey
from conversations.api.flow_problems import next_call, problem_of
from conversations.flow.errors import FlowError
from conversations.flow.idempotency import IdempotentRequest
from infrastructure import rate_limits
from infrastructure.crypto import DecryptionError
from oauth_client.validators import MAX_SCOPE_LENGTH
from web.answered_before import COUNTED_BEFORE, FAILED_BEFORE
from web.errors import Problem, json_response, rate_limited
from web.limits import client_address

MAX_BODY_BYTES: Final = 16 * 1024
# Of a call of a brand's API, which may create something there.
MAX_CALL_BODY_BYTES: Final = 64 * 1024
# The column is an integer of four bytes.
MAX_SESSION: Final = 2**31 - 1
# An idempotency key without quotes; and as a String of structured fields (RFC 8941 section 3.3.3), in which only quotes
# and backslashes are escaped.
_BARE: Final = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]{0,254}")
_QUOTED: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')

logger = logging.getLogger("consumer_delegation.api")

Key = Annotated[str, Meta(max_length=64)]
# 2.0 is accepted too: JSON Schema counts it as an integer.
SessionNumber = Annotated[float, Meta(ge=1, le=MAX_SESSION, multiple_of=1)]
ScopeText = Annotated[str, Meta(max_length=MAX_SCOPE_LENGTH)]


# BCP 47, as far as it names a language, script and region.
_LOCALE: Final = r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3}"
MAX_PURPOSE_LOCALES: Final = 20
# Control characters, line separators, and marks that turn the direction of writing.
_PURPOSE: Final = re.compile(r"[^\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]{0,140}")
_PURPOSE_LOCALE: Final = re.compile(_LOCALE)


def _check_locales(purpose: dict[str, str]) -> None:
    """Refuse one locale in two spellings, too: a page could show either."""
    if not 1 <= len(purpose) <= MAX_PURPOSE_LOCALES or not all(map(_PURPOSE_LOCALE.fullmatch, purpose)):
        raise ValueError(f"`purpose` maps 1 to {MAX_PURPOSE_LOCALES} locales, such as `pt-BR`, to texts")
    if len({locale.lower() for locale in purpose}) < len(purpose):
        raise ValueError("Name each locale of `purpose` once")


class ExpectedClaims(Struct, kw_only=True, forbid_unknown_fields=True):
    """What the channel knows of the consumer: one or both."""

    phone_number: Annotated[str, Meta(min_length=1, max_length=40)] | None = None
    email: Annotated[str, Meta(min_length=1, max_length=254)] | None = None

    def __post_init__(self) -> None:
        """Require one. msgspec turns the `ValueError` into a `ValidationError`."""
        if self.phone_number is None and self.email is None:
            raise ValueError("Give `phone_number`, `email` or both")


class ChallengeBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../challenges`; every field is optional."""

    authorization_server: Key = ""
    same_person_check: Annotated[str, Meta(max_length=24)] = ""
    expected_subject: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    expected_claims: ExpectedClaims | None = None
    scope: ScopeText = ""
    # Checked below: msgspec 0.22.0 cannot hold this union with its limits without harm to the process.
    purpose: str | dict[str, str] = ""
    locale: Annotated[str, Meta(pattern=rf"^(?:{_LOCALE})?\Z")] = ""
    context: Annotated[str, Meta(max_length=1024)] | None = None
    replace: bool = False
    session: SessionNumber | None = None

    def __post_init__(self) -> None:
        """Check the purpose. msgspec turns the `ValueError` into a `ValidationError`."""
        texts = self.purpose.values() if isinstance(self.purpose, dict) else [self.purpose]
        if not all(_PURPOSE.fullmatch(text) for text in texts):
            raise ValueError("A text of `purpose` has at most 140 characters, on one line and in one direction")
        if isinstance(self.purpose, dict):
            _check_locales(self.purpose)

    def purpose_in_chat(self) -> str:
        """Return the text in the chat's locale or language, else in English, else any, for logs of token reads."""
        given = self.purpose.items() if isinstance(self.purpose, dict) else ()
        texts = {locale.lower(): text for locale, text in given if text}
        locale = self.locale.lower()
        language = locale.partition("-")[0]
        of_language = [text for other, text in texts.items() if other.partition("-")[0] == language]
        fitting = [texts.get(locale), *of_language, texts.get("en"), *texts.values()]
        return next(filter(None, fitting), "")


class AuthorizeBody(ChallengeBody, kw_only=True, forbid_unknown_fields=True):
    """`POST .../authorize`: a challenge's fields, and how many seconds the token must live."""

    # 30.0 is accepted too: JSON Schema counts it as an integer.
    min_ttl: Annotated[float, Meta(ge=0, le=3600, multiple_of=1)] = 0


class CallBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../calls/{operation}`. A `body` of null is a body, and none is another thing."""

    arguments: dict[str, Any] = {}
    body: Any = msgspec.UNSET
    # A code, as for a token read. The words for the consumer are the challenge's.
    purpose: str | None = None
    session: SessionNumber | None = None
    challenge: ChallengeBody | None = None


class CompletionBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../completion`: a code or a handle."""

    # Whatever the consumer said, also nothing: what is no code gets an answer for the consumer, not for a developer.
    code: Annotated[str, Meta(max_length=4096)] | None = None
    handle: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    authorization_server: Key = ""
    session: SessionNumber | None = None

    def __post_init__(self) -> None:
        """Require exactly one of the two. msgspec turns the `ValueError` into a `ValidationError`."""
        if (self.code is None) == (self.handle is None):
            raise ValueError("Give either `code` or `handle`")


Body = TypeVar("Body")
# Status and body; or a whole response, if it has headers of its own.
Answer = tuple[int, dict[str, Any]] | HttpResponse


@dataclass(frozen=True)
class Call:
    """An authenticated call."""

    request: HttpRequest
    bot_key: BotKey
    # What the query for the key read beside it, if the call asked for more.
    beside: Any = None

    @property
    def actor(self) -> str:
        """The key's name in audit events and log lines."""
        return f"bot:{self.bot_key.public_id}"

    def query(self, *names: str) -> dict[str, str]:
        """Read the query parameters of these names. Raises `Problem` for any other parameter, or a repeated one."""
        for name, values in self.request.GET.lists():
            if name not in names:
                raise Problem(422, "unknown_parameter", f"There is no query parameter {_shortened(name)} here.")
            if len(values) > 1:
                raise Problem(422, "repeated_parameter", f"Give the query parameter {name} once.")
        return {name: self.request.GET[name] for name in names if name in self.request.GET}

    def body(self, shape: type[Body], most_bytes: int = MAX_BODY_BYTES) -> Body:
        """Decode the JSON body strictly. An empty body counts as an empty object. Raises `Problem`."""
        raw = _raw_body(self.request, most_bytes)
        if raw and self.request.content_type != "application/json":
            raise Problem(415, "unsupported_media_type", "Send the body as application/json.")
        try:
            return msgspec.json.decode(raw or b"{}", type=shape)
        except msgspec.ValidationError as error:
            raise Problem(422, "invalid_request_body", f"{error}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Problem(400, "malformed_json", "The body is not valid JSON, or is nested too deeply.") from None


def named_session(given: str | float | None) -> int | None:
    """Read the session that a call names, from its query or its body; None if it names none. Raises `Problem`."""
    if given is None:
        return None
    number = seconds(given, MAX_SESSION) if isinstance(given, str) else int(given)
    if not number:
        raise Problem(422, "invalid_session", "session is a whole number from 1, as the answers name it.")
    return number


def seconds(text: str, most: int) -> int | None:
    """Parse a query parameter as a whole number from 0 to `most`; None if it is not one."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if is_number and int(text) <= most else None


View = Callable[..., Answer]


def endpoint(**views: View) -> Callable[..., HttpResponse]:
    """Build one URL's view from one function for each HTTP method. Errors become problem documents."""

    @csrf_exempt
    def dispatch(request: HttpRequest, **path: str) -> HttpResponse:
        view = views.get(request.method or "")
        try:
            if view is None:
                allowed = ", ".join(views)
                detail = f"This address accepts {allowed}."
                raise Problem(405, "method_not_allowed", detail, headers={"Allow": allowed})
            answer = view(request, **path)
        except (Problem, FlowError, rate_limits.RateLimited, DecryptionError) as error:
            problem = _problem_of(error)
            return _answered(problem, next_call(problem, request, path))
        if isinstance(answer, HttpResponse):
            return answer
        status, body = answer
        return json_response(body, status=status)

    return dispatch


def _answered(problem: Problem, next_: dict[str, str] | None) -> HttpResponse:
    response = problem.response(next_)
    if problem.status in {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}:
        # A brand's fault, which the flow has logged as a warning. Django would log each as an error of ours.
        response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001  # as `log_response` reads it
    return response


def count_call(public_id: str, per_minute: int | None) -> None:
    """Count a call of this key in the store that all processes share. Raises `RateLimited` (G8, G12)."""
    rate_limits.count_in_shares(rate_limits.CALLS_PER_KEY.of(per_minute), public_id)


def count_token_read(public_id: str, per_minute: int | None) -> None:
    """Count a token read in this process, so that no read waits for a write. Raises `RateLimited` (G8, G12)."""
    rate_limits.count_in_process(rate_limits.TOKEN_READS_PER_KEY.of(per_minute), public_id)


def as_call(bot_key: BotKey) -> None:
    """Count a call of this key. Raises `RateLimited`."""
    count_call(bot_key.public_id, bot_key.calls_per_minute)


def as_token_read(bot_key: BotKey) -> None:
    """Count a token read of this key. Raises `RateLimited`."""
    count_token_read(bot_key.public_id, bot_key.token_reads_per_minute)


def as_nothing(bot_key: BotKey) -> None:
    """Used for the second half of a call that has been counted already."""


def _live_key(presented: PresentedKey, now: datetime, **_path: str) -> tuple[BotKey | None, None]:
    return presented.live_key(now), None


def bot_call(
    *scopes: BotKey.Scope,
    counted: Callable[[BotKey], None] = as_call,
    find_key: Callable[..., tuple[BotKey | None, Any]] = _live_key,
) -> Callable[[View], View]:
    """Authenticate the bot and require these scopes. The view gets a `Call` in place of the request.

    The key is read from the Authorization header only (G2); cookies are ignored (G7). `find_key` gets the
    `PresentedKey`, the time and the path, and may read more than the key in the same query.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapper(request: HttpRequest, **path: str) -> Answer:
            if (error := request.META.pop(FAILED_BEFORE, None)) is not None:
                raise error
            presented = PresentedKey.read(request.META.get("HTTP_AUTHORIZATION", ""))
            bot_key, beside = find_key(presented, timezone.now(), **path) if presented else (None, None)
            if bot_key is None:
                # Only failures are counted, so that they cannot lock out a bot that shares the address.
                rate_limits.count(rate_limits.FAILED_KEYS_PER_ADDRESS, client_address(request))
                challenge = {"WWW-Authenticate": "Bearer"}
                raise Problem(401, "invalid_bot_key", "Send a live bot key as a bearer token.", headers=challenge)
            if not request.META.pop(COUNTED_BEFORE, False):
                counted(bot_key)
            refuse_missing_scopes(bot_key, scopes)
            return view(Call(request, bot_key, beside), **path)

        return wrapper

    return decorate


def refuse_missing_scopes(bot_key: BotKey, scopes: Iterable[str]) -> None:
    """Raise `Problem` if the key lacks one of these scopes."""
    missing = sorted(set(scopes) - set(bot_key.scopes))
    if missing:
        challenge = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'}
        detail = f"This bot key lacks the scope {' '.join(missing)}."
        raise Problem(403, "insufficient_scope", detail, headers=challenge)


def holds_scope(scopes: str, scope: BotKey.Scope) -> bool:
    """Whether a bot key's column of scopes, as JSON text, names this scope."""
    try:
        return scope in msgspec.json.decode(scopes, type=list[str])
    except msgspec.ValidationError:  # no list of scopes: what that means is decided elsewhere
        return False


def _problem_of(error: Problem | FlowError | rate_limits.RateLimited | DecryptionError) -> Problem:
    if isinstance(error, FlowError):
        return problem_of(error)
    if isinstance(error, rate_limits.RateLimited):
        return rate_limited(error.retry_after)
    if isinstance(error, DecryptionError):
        # The row was moved or tampered with, or its key was removed from the ring too early (K2).
        logger.error("a stored value could not be read", exc_info=error)
        return Problem(500, "stored_value_unreadable", "A stored value cannot be read. Tell the operator.")
    return error


def _raw_body(request: HttpRequest, most: int) -> bytes:
    if request.headers.get("Transfer-Encoding"):
        # Django reads no body without a Content-Length. The bot's fields would be silently ignored.
        raise Problem(411, "length_required", "Send the body with a Content-Length, not in chunks.")
    length = request.headers.get("Content-Length") or "0"
    if length.isascii() and length.isdecimal() and int(length) > most:
        raise Problem(413, "body_too_large", f"A body has at most {most} bytes.")
    raw = request.read(most + 1)
    if len(raw) > most:
        raise Problem(413, "body_too_large", f"A body has at most {most} bytes.")
    return raw


def _shortened(text: str) -> str:
    return "".join(character for character in text[:40] if character.isprintable())


def idempotent_request(header: str | None, body: ChallengeBody) -> IdempotentRequest | None:
    """Read the header `Idempotency-Key`; None if there is none. Raises `Problem` for a malformed one."""
    if header is None:
        return None
    quoted = _QUOTED.fullmatch(header)
    if quoted is None and not _BARE.fullmatch(header):
        detail = "An Idempotency-Key has 1 to 255 visible ASCII characters, in double quotes or without."
        raise Problem(422, "invalid_idempotency_key", detail)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    # The decoded body is encoded again, so that white space and the order of members do not matter.
    return IdempotentRequest(key, msgspec.json.encode(body))
