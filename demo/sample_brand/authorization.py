"""allauth's authorization and token endpoints, changed by the scenario that the consumer chose.

Every authorization response contains `iss` (RFC 9207), which allauth does not add.
"""

import json
import time
from datetime import timedelta
from typing import Any

from allauth.core.internal.httpkit import add_query_params
from allauth.idp.oidc import views as allauth_views
from allauth.idp.oidc.adapter import get_adapter
from allauth.idp.oidc.models import Token
from django.contrib.auth.models import User
from django.forms import Form
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from demo.sample_brand.scenarios import (
    EXPIRES_IN,
    SLOW_SECONDS,
    Scenario,
    chosen,
    of_code,
    pass_on_to_code,
)

# Error codes of the authorization response (RFC 6749 section 4.1.2.1).
ACCESS_DENIED = "access_denied"
ERRORS = {Scenario.DENY: ACCESS_DENIED, Scenario.SERVER_ERROR: "server_error"}
ERROR_PAGE = "<!doctype html><title>502 Bad Gateway</title><h1>Bad Gateway</h1>"


class AuthorizationView(allauth_views.AuthorizationView):  # type: ignore[misc]  # allauth has no types
    def render_to_response(self, context: dict[str, Any], **options: Any) -> HttpResponse:
        """Show the consent page for a valid request, or redirect with the scenario's error."""
        scenario = chosen(self._state)
        if scenario in ERRORS:
            return self._error(ERRORS[scenario])
        if scenario == Scenario.OTHER_PERSON:
            self.request.user = somebody_else(self.request.user.pk)
        response: HttpResponse = super().render_to_response(context, **options)
        return response

    def form_valid(self, form: Form) -> HttpResponse:
        """Issue a code for the scopes that the consumer allowed, or as the scenario changes them."""
        scenario = chosen(self._state)
        if scenario == Scenario.NARROWER_SCOPE:
            form.cleaned_data["scopes"] = [scope for scope in form.cleaned_data["scopes"] if scope == "openid"]
        if scenario == Scenario.OTHER_PERSON:
            self.request.user = somebody_else(self.request.user.pk)
        response: HttpResponse = super().form_valid(form)
        if "Location" in response:
            pass_on_to_code(response["Location"], scenario)
            response["Location"] = add_query_params(response["Location"], {"iss": get_adapter().get_issuer()})
        return response

    def _respond_with_access_denied(self) -> HttpResponse:
        return self._error(ACCESS_DENIED)

    @property
    def _state(self) -> str:
        return self._request_info.get("state") or ""

    def _error(self, error: str) -> HttpResponse:
        """Redirect to the redirect URI with an error. allauth has checked that the URI is registered."""
        answer = {"error": error, "state": self._state, "iss": get_adapter().get_issuer()}
        return HttpResponse(
            status=302, headers={"Location": add_query_params(self._request_info["redirect_uri"], answer)}
        )


def somebody_else(user_id: int) -> User:
    return User.objects.exclude(pk=user_id).order_by("pk")[0]


@csrf_exempt
def token(request: HttpRequest) -> HttpResponse:
    scenario = of_code(request.POST.get("code", ""))
    if scenario == Scenario.HTML_ERROR:
        return HttpResponse(ERROR_PAGE, status=502)
    if scenario == Scenario.SLOW:
        time.sleep(SLOW_SECONDS)
    response: HttpResponse = allauth_views.token(request)
    return apply_scenario(response, scenario) if response.status_code == 200 else response  # noqa: PLR2004


def apply_scenario(response: HttpResponse, scenario: Scenario) -> HttpResponse:
    """Change the token response (RFC 6749 section 5.1), and the stored token with it."""
    answer: dict[str, Any] = json.loads(response.content)
    issued = Token.objects.by_value(answer["access_token"])
    if scenario == Scenario.REVOKED:
        issued.delete()
    elif scenario == Scenario.EXPIRES_IN_10:
        issued.update(expires_at=timezone.now() + timedelta(seconds=EXPIRES_IN))
        answer["expires_in"] = EXPIRES_IN
    elif scenario == Scenario.NO_EXPIRES_IN:
        del answer["expires_in"]
    else:
        return response
    return JsonResponse(answer, headers={"Cache-Control": "no-store"})


authorization = AuthorizationView.as_view()
