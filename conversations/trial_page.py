"""The admin's page that tries a sign-in at an authorization server, and shows the result."""

from typing import Any, Final

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from brands.models import AuthorizationServer
from brands.scoped_admin import may_test, own_row_or_404
from conversations.failures_in_words import GOOD, NOTE, PROBLEM, WAITING, duration_in_words
from conversations.flow.trial_sign_in import (
    COOKIE,
    NO_REVOCATION_ENDPOINT,
    REVOKED,
    begin_trial,
    is_lost,
    trials_of,
)
from conversations.models import TRIAL_LIFETIME, TrialSignIn
from oauth_client import MEANINGS
from web.middleware import ADMIN_POLICY

# CSP form-action would also block the redirect to the server that follows the form's POST (B18). The page has one form,
# which is ours.
_POLICY: Final = {name: sources for name, sources in ADMIN_POLICY.items() if name != "form-action"}
_IF_NOT_SENT_BACK: Final = (
    "If the server shows an error page instead of sending you back, register the redirect URI shown above at the "
    "server, exactly as written, and check the client id."
)
_OTHER_BROWSER: Final = "If you signed in with another browser, try again with this one."


@require_http_methods(["GET", "HEAD", "POST"])
def trial_sign_in(request: HttpRequest, pk: int) -> HttpResponse:
    """`/admin/brands/authorizationserver/{pk}/sign-in/`: POST begins a trial, GET shows this session's last ones."""
    server = _server(request, pk)
    if request.method == "POST":
        return _begin(request, server)
    trials = trials_of(server, request.user, request.session.session_key or "")
    context = {
        **admin.site.each_context(request),
        "title": f"Try a sign-in at {server}",
        "server": server,
        "opts": AuthorizationServer._meta,
        "trials": [_representation(trial) for trial in trials[:5]],
        "minutes": int(TRIAL_LIFETIME.total_seconds() // 60),
    }
    response = render(request, "admin/trial_sign_in.html", context)
    response._csp_replace = _POLICY  # type: ignore[attr-defined]  # what csp_replace() sets
    return response


def page_of_trial(trial: TrialSignIn) -> str:
    """Return the URL to which a trial's browser is sent after the callback."""
    return reverse("trial_sign_in", args=[trial.authorization_server_id]) + "#latest"


def _server(request: HttpRequest, pk: int) -> AuthorizationServer:
    """Return the server. Raises `Http404` for another brand's (J1), and `PermissionDenied` for a viewer (J15)."""
    server: AuthorizationServer = own_row_or_404(AuthorizationServer, request, pk, to_change=True)
    if not request.session.session_key:
        raise Http404
    return server


def _begin(request: HttpRequest, server: AuthorizationServer) -> HttpResponse:
    here = reverse("trial_sign_in", args=[server.pk])
    if not may_test(request):
        return redirect(here)
    begun = begin_trial(server, request.user, request.session.session_key or "", timezone.now())
    response = HttpResponseRedirect(begun.authorization_url or f"{here}#latest")
    response.status_code = 303
    response.set_cookie(
        COOKIE,
        begun.cookie.reveal(),
        max_age=int(TRIAL_LIFETIME.total_seconds()),
        secure=True,
        httponly=True,
        samesite="Lax",  # the return from the authorization server is a cross-site top-level GET (B4)
    )
    return response


def _representation(trial: TrialSignIn) -> dict[str, Any]:
    """Build what the page shows of one trial."""
    return {
        "began": trial.created_at,
        "steps": _steps(trial),
        "is_over": trial.finished_at is not None or is_lost(trial, timezone.now()),
    }


def _steps(trial: TrialSignIn) -> list[dict[str, Any]]:
    """Build the steps that the trial has reached: a mark, a title, the moment and lines of text for each."""
    steps = [_step(GOOD, "The browser left for the server", trial.created_at, _asked(trial))]
    if trial.returned_at is None and not trial.error:
        lost = is_lost(trial, timezone.now())
        mark, title = (PROBLEM, "Nothing came back") if lost else (WAITING, "The browser has not come back yet")
        return [*steps, _step(mark, title, None, [_IF_NOT_SENT_BACK, _OTHER_BROWSER])]
    if trial.returned_at is not None:
        after = f"After {duration_in_words(trial.returned_at - trial.created_at)}."
        steps.append(_step(GOOD, "The browser came back", trial.returned_at, [after]))
    if trial.finished_at is None:
        if is_lost(trial, timezone.now()):
            return [*steps, _step(PROBLEM, "No result: our process was stopped. Try again.", None, [])]
        return [*steps, _step(WAITING, "The code is being exchanged", None, [])]
    if "exchange_milliseconds" in trial.report:
        steps.append(_token_step(trial))
        steps += [_id_token_step(trial)] if "claims" in trial.report else _account_steps(trial)
        steps.append(_revocation_step(trial))
    steps.append(_outcome_step(trial))
    return steps


def _asked(trial: TrialSignIn) -> list[str]:
    scope = " ".join(trial.report.get("scope_asked", [])) or "none"
    pushed = trial.stored_configuration().pushed_authorization_request_endpoint
    lines = [f"Scope asked for: {scope}.", "With PKCE (S256)."]
    return [*lines, "The request was pushed to the server first (PAR)."] if pushed else lines


def _token_step(trial: TrialSignIn) -> dict[str, Any]:
    report, lines = trial.report, []
    lines.append(f"The token endpoint answered in {report['exchange_milliseconds']} ms.")
    seconds = report["lifetime_seconds"]
    if report["lifetime_assumed"]:
        default = "the default lifetime set here for this server applies"
        lines.append(f"The response has no expires_in: {default} ({seconds} seconds).")
    else:
        lines.append(f"We treat the token as valid for {seconds} seconds, a little less than the server's expires_in.")
    asked, granted = report.get("scope_asked", []), report.get("scope_granted")
    if granted is not None:
        all_granted = " The response has no scope, so every requested scope counts as granted (RFC 6749)."
        assumed = all_granted if report["scope_assumed"] else ""
        lines.append(f"Scope granted: {' '.join(granted) or 'none'}.{assumed}")
        missing = [name for name in asked if name not in granted]
        lines += [f"Asked for and not granted: {' '.join(missing)}."] if missing else []
    if report["members_left_out"]:
        lines.append(f"Response members set here that bots do not get: {', '.join(report['members_left_out'])}.")
        lines.append("They repeat a token, are nested too deeply or are too large.")
    is_partial = granted is not None and not set(asked) <= set(granted)
    return _step(NOTE if is_partial or report["lifetime_assumed"] else GOOD, "The server issued a token", None, lines)


def _id_token_step(trial: TrialSignIn) -> dict[str, Any]:
    claims, subject_claim = trial.report["claims"], trial.authorization_server.subject_claim
    lines = [f"Its claims, by name: {', '.join(claims)}."]
    is_there = trial.report["has_subject"]
    if not is_there:
        lines.append(f"The subject claim {subject_claim} is not among them: the check expected_subject cannot work.")
    needed = "expected_subject" in trial.authorization_server.same_person_checks
    return _step(PROBLEM if needed and not is_there else GOOD, "The ID token is valid", None, lines)


def _account_steps(trial: TrialSignIn) -> list[dict[str, Any]]:
    """Build the step that says whether later sign-ins can be compared with this one, if it was reached (A17)."""
    if "is_account_known" not in trial.report:
        return []
    if not trial.report["is_account_known"]:
        lines = [
            "The next sign-in in a chat may bring another account, and bots are told so (subject_pinned).",
            "Add openid to the scope, or name an address under Who signed in.",
        ]
        return [_step(NOTE, "The server does not say who signed in", None, lines)]
    lines = [
        f"By the member {trial.stored_configuration().subject_member}. Later sign-ins in a chat need the same account."
    ]
    return [_step(GOOD, "The server says who signed in", None, lines)]


def _revocation_step(trial: TrialSignIn) -> dict[str, Any]:
    how = trial.report.get("revocation")
    if how == REVOKED:
        return _step(GOOD, "The token was discarded and revoked", None, [])
    if how == NO_REVOCATION_ENDPOINT:
        words = "No revocation endpoint is set here for this server: the token is valid at the server until it expires."
        return _step(NOTE, "The token was discarded", None, [words])
    words = f"The revocation failed with {how}: the token is valid at the server until it expires."
    return _step(NOTE, "The token was discarded", None, [words])


def _outcome_step(trial: TrialSignIn) -> dict[str, Any]:
    if not trial.error:
        return _step(GOOD, "A consumer can sign in like this", trial.finished_at, [])
    meaning = MEANINGS.get(trial.error)
    lines = [f"Code: {trial.error}."]
    lines += [f"Detail: {trial.error_detail}."] if trial.error_detail else []
    lines += [meaning.plain_cause, f"What to do: {meaning.plain_remedy}"] if meaning else []
    return _step(PROBLEM, "The sign-in failed", trial.finished_at, lines)


def _step(mark: str, title: str, at: Any, lines: list[str]) -> dict[str, Any]:
    return {"mark": mark, "title": title, "at": at, "lines": lines}
