"""The doctor's steps at the userinfo and the introspection endpoint: one request about a made-up token."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from brands.doctor.examination import NO_PAGE, Examination, Unanswered
from brands.doctor.findings import Finding, found
from infrastructure.crypto import Secret, random_token
from oauth_client import AuthorizationServerError, transport
from oauth_client.answers import members_of_refusal
from oauth_client.subject import get_userinfo, introspect

_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


def userinfo(examination: Examination) -> Iterator[Finding]:
    """Ask whose account a made-up token is for, if sign-ins ask there. A server that looks at tokens refuses it."""
    configuration = examination.configuration
    if configuration.uses_openid or configuration.introspection_endpoint or not configuration.userinfo_endpoint:
        return
    tried = f"GET {configuration.userinfo_endpoint} with a made-up token"
    try:
        response = get_userinfo(configuration, Secret(random_token()))
    except AuthorizationServerError as error:
        yield _not_asked(error, "userinfo_endpoint", tried)
        return
    examination.heard()
    code = (
        "subject_for_any_token"
        if response.status_code == HTTPStatus.OK
        else _judge(response, "subject_endpoint_answers")
    )
    yield found(code, field="userinfo_endpoint", tried=tried, answer=f"HTTP status {response.status_code}")


def introspection(examination: Examination) -> Iterator[Finding]:
    """The same by introspection, which tells that our client may ask."""
    configuration = examination.configuration
    if configuration.uses_openid or not configuration.introspection_endpoint:
        return
    tried = f"POST to {configuration.introspection_endpoint} with a made-up token"
    try:
        response = introspect(configuration, Secret(random_token()), examination.credentials)
    except AuthorizationServerError as error:
        yield _not_asked(error, "introspection_endpoint", tried)
        return
    examination.heard()
    code = (
        _judge_active(response) if response.status_code == HTTPStatus.OK else _judge(response, "introspection_refused")
    )
    yield found(code, field="introspection_endpoint", tried=tried, answer=f"HTTP status {response.status_code}")


def _not_asked(error: AuthorizationServerError, field: str, tried: str) -> Finding:
    """Return the finding of a request that cannot be sent. Raises `Unanswered` if no answer came."""
    if error.unanswered:
        raise Unanswered(error.unanswered, field, tried) from None
    return found("request_not_sent", field="token_endpoint_auth_method", detail=error.detail)


def _judge_active(response: transport.Response) -> str:
    active = members_of_refusal(response.content).get("active")
    if active is False:
        return "subject_endpoint_answers"
    return "subject_for_any_token" if active is True else "subject_endpoint_not_proven"


def _judge(response: transport.Response, refusal: str) -> str:
    """Return the finding for another status than 200; `refusal` is the one for a refusal."""
    status = response.status_code
    if status in _REFUSALS:
        return refusal
    is_redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return "subject_endpoint_not_found" if is_redirect or status in NO_PAGE else "subject_endpoint_not_proven"
