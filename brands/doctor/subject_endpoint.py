"""The doctor's step at the userinfo or introspection endpoint: one request about a made-up token."""

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


def subject_endpoint(examination: Examination) -> Iterator[Finding]:
    """Ask whose account a made-up token is for. Only a server that looks at tokens refuses it."""
    configuration = examination.configuration
    if configuration.uses_openid or not (configuration.introspection_endpoint or configuration.userinfo_endpoint):
        return
    field = "introspection_endpoint" if configuration.introspection_endpoint else "userinfo_endpoint"
    tried = f"{'POST to' if field == 'introspection_endpoint' else 'GET'} {getattr(configuration, field)}"
    tried += " with a made-up token"
    try:
        response = _ask(examination, field)
    except AuthorizationServerError as error:
        if error.unanswered:
            raise Unanswered(error.unanswered, field, tried) from None
        yield found("request_not_sent", field="token_endpoint_auth_method", detail=error.detail)
        return
    examination.heard()
    judge = _judge_introspection if field == "introspection_endpoint" else _judge_userinfo
    yield found(judge(response), field=field, tried=tried, answer=f"HTTP status {response.status_code}")


def _ask(examination: Examination, field: str) -> transport.Response:
    token = Secret(random_token())
    if field == "userinfo_endpoint":
        return get_userinfo(examination.configuration, token)
    return introspect(examination.configuration, token, examination.credentials)


def _judge_userinfo(response: transport.Response) -> str:
    if response.status_code in _REFUSALS:
        return "subject_endpoint_answers"
    return "subject_for_any_token" if response.status_code == HTTPStatus.OK else _judge_status(response.status_code)


def _judge_introspection(response: transport.Response) -> str:
    if response.status_code in _REFUSALS:
        return "introspection_refused"
    if response.status_code != HTTPStatus.OK:
        return _judge_status(response.status_code)
    active = members_of_refusal(response.content).get("active")
    if active is False:
        return "subject_endpoint_answers"
    return "subject_for_any_token" if active is True else "subject_endpoint_not_proven"


def _judge_status(status: int) -> str:
    is_redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return "subject_endpoint_not_found" if is_redirect or status in NO_PAGE else "subject_endpoint_not_proven"
