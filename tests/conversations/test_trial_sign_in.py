"""An admin tries a sign-in: alone, in one browser and session, with nothing left of the token."""

import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.urls import reverse
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow import retention
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation, Revocation, TrialSignIn
from tests.cast import Bot, Browser, use_openid
from tests.fake_authorization_server import Answer, FakeAuthorizationServer

pytestmark = pytest.mark.django_db

_JSON = {"Content-Type": "application/json"}


class TrialBrowser(Browser):
    """The browser of a signed-in admin."""

    def __init__(self, user: Any) -> None:
        super().__init__()
        self.client.force_login(user)

    def begin_trial(self, server: AuthorizationServer) -> Any:
        return self.press(f"https://delegation.test{reverse('trial_sign_in', args=[server.pk])}")

    def try_sign_in(self, server: AuthorizationServer, login: FakeAuthorizationServer) -> str:
        """Go the whole way; return the text of the page at its end."""
        answer = self.come_back(self.begin_trial(server)["Location"], login)
        assert (answer.status_code, answer["Location"]) == (303, f"{reverse('trial_sign_in', args=[server.pk])}#latest")
        return self.page(server)

    def page(self, server: AuthorizationServer) -> str:
        html = self.get(reverse("trial_sign_in", args=[server.pk])).content.decode()
        return " ".join(re.sub(r"<[^>]+>", " ", html.partition('id="latest"')[2]).split())


@pytest.fixture
def admin(acme_admin: Any) -> TrialBrowser:
    return TrialBrowser(acme_admin)


def test_a_trial_goes_the_whole_way_and_leaves_no_token(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """J11: PKCE, state and one exchange as for a consumer; then the token is revoked, and no row holds it."""
    acme_server.revocation_endpoint = f"{acme_login.issuer}/revoke"
    acme_server.save()
    page = admin.try_sign_in(acme_server, acme_login)
    assert "A consumer can sign in like this" in page
    assert "The token was discarded and revoked" in page
    (request,), (issued,) = acme_login.token_requests, acme_login.issued_access_tokens
    assert {"code", "code_verifier", "redirect_uri"} <= set(request.parameters)
    assert [request.parameters["token"] for request in acme_login.revocation_requests] == [issued]
    assert issued not in page
    trial = TrialSignIn.objects.get()
    assert issued not in str(trial.report)
    assert (trial.nonce_digest, trial.code_verifier_ciphertext) == (None, None)
    rows = (AccessToken, Challenge, Conversation, Revocation)
    assert [model.objects.count() for model in rows] == [0, 0, 0, 0]
    event = AuditEvent.objects.get(kind="authorization_server.sign_in_tried")
    assert (event.outcome, event.object_uuid) == ("ok", acme_server.uuid)


def test_names_of_claims_are_shown_and_no_value(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """J9: the admin learns what the server says of a person, not who signed in."""
    use_openid(acme_server, acme_login)
    acme_login.id_token_changes = {"email": "ada@acme.example"}
    page = admin.try_sign_in(acme_server, acme_login)
    assert "Its claims, by name:" in page
    assert "email" in page
    assert ("ada@acme.example" in page, "ada@acme.example" in str(TrialSignIn.objects.get().report)) == (False, False)
    assert acme_login.subject not in TrialSignIn.objects.get().report["claims"]


def test_a_trial_says_whether_later_sign_ins_are_compared(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """A17, J9: and what fails there, without the account's id."""
    assert "The server does not say who signed in" in admin.try_sign_in(acme_server, acme_login)
    AuthorizationServer.objects.update(userinfo_endpoint=f"{acme_login.issuer}/userinfo", subject_member="id")
    acme_login.account = {"id": "planted-subject-9Kq"}
    page = admin.try_sign_in(acme_server, acme_login)
    assert "The server says who signed in" in page
    acme_login.account = {"login": "planted-subject-9Kq"}
    failed = admin.try_sign_in(acme_server, acme_login)
    assert ("Code: invalid_subject_response." in failed, "there is no id" in failed) == (True, True)
    assert "planted" not in f"{page} {failed} {list(TrialSignIn.objects.values())}"


@pytest.mark.parametrize("name", ["nul\x00byte", "two\nlines", "\u202eright to left"])
def test_a_claim_of_any_name_leaves_a_report(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer, name: str
) -> None:
    """H8: PostgreSQL refuses NUL in JSON, so the report was lost and the callback answered 500."""
    use_openid(acme_server, acme_login)
    acme_login.id_token_changes = {name: "x"}
    assert "A consumer can sign in like this" in admin.try_sign_in(acme_server, acme_login)
    claims = TrialSignIn.objects.get().report["claims"]
    assert " ".join(name.translate(dict.fromkeys((0, 10, 0x202E), " ")).split()) in claims


def test_the_subject_claim_is_found_among_more_claims_than_are_shown(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """With 60 names before it the page said that `sub` was not there, and that expected_subject could not work."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(same_person_checks=["completion_code", "expected_subject"])
    acme_login.id_token_changes = {f"claim_{number}": "x" for number in range(80)}
    assert "is not among them" not in admin.try_sign_in(acme_server, acme_login)
    AuthorizationServer.objects.update(subject_claim="customer_number")
    assert "customer_number is not among them" in admin.try_sign_in(acme_server, acme_login)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((401, _JSON, b'{"error": "invalid_client"}'), "invalid_client"),
        ((200, _JSON, b'{"access_token": "a-token", "token_type": "mac"}'), "invalid_token_response"),
        ((500, {}, b""), "server_error"),
    ],
)
def test_a_failure_names_its_code_and_what_to_do(
    admin: TrialBrowser,
    acme_server: AuthorizationServer,
    acme_login: FakeAuthorizationServer,
    answer: Answer,
    code: str,
) -> None:
    acme_login.next_token_answer = answer
    page = admin.try_sign_in(acme_server, acme_login)
    trial = TrialSignIn.objects.get()
    assert trial.error
    assert f"Code: {trial.error}." in page
    assert "What to do:" in page
    assert "a-token" not in page
    assert trial.error == code


def test_a_denial_and_a_missing_scope_are_told_apart(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    acme_login.denies = True
    assert "Code: access_denied." in admin.try_sign_in(acme_server, acme_login)
    acme_login.denies = False
    AuthorizationServer.objects.update(required_scope="orders.read")
    acme_login.granted_scope = "profile"
    page = admin.try_sign_in(acme_server, acme_login)
    assert "Asked for and not granted: orders.read." in page
    assert "Code: insufficient_scope." in page


def test_a_token_that_fails_the_checks_is_revoked_too(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """J11: also when the ID token is another sign-in's."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(revocation_endpoint=f"{acme_login.issuer}/revoke")
    acme_login.id_token_changes = {"nonce": "of-another-sign-in"}
    page = admin.try_sign_in(AuthorizationServer.objects.get(), acme_login)
    assert "Code: invalid_id_token." in page
    assert len(acme_login.revocation_requests) == 1


def test_a_switched_off_server_can_be_tried_before_it_is_switched_on(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    AuthorizationServer.objects.update(is_active=False)
    assert "A consumer can sign in like this" in admin.try_sign_in(acme_server, acme_login)


def test_only_the_browser_that_began_can_bring_the_code(
    admin: TrialBrowser, acme_admin: Any, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """J11: the attack: an admin has somebody else sign in under the admin's trial."""
    url = admin.begin_trial(acme_server)["Location"]
    victim = Browser()
    assert victim.come_back(url, acme_login)["Location"].startswith("/c/")
    colleague = TrialBrowser(acme_admin)
    colleague.begin_trial(acme_server)
    assert colleague.come_back(url, acme_login)["Location"].startswith("/c/")
    assert acme_login.token_requests == []


@pytest.mark.parametrize("became", ["viewer", "stranger", "inactive", "no staff"])
def test_whoever_may_not_try_any_more_brings_no_code(
    acme_admin: Any, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer, became: str
) -> None:
    """J11, J15: the code was exchanged, and the audit log named somebody who had lost the brand meanwhile."""
    admin = TrialBrowser(acme_admin)
    url = admin.begin_trial(acme_server)["Location"]
    if became in {"viewer", "stranger"}:
        acme_server.brand.admins.clear()
        acme_server.brand.viewers.set([acme_admin] if became == "viewer" else [])
    else:
        acme_admin.is_active, acme_admin.is_staff = became != "inactive", became != "no staff"
        acme_admin.save()
    assert admin.come_back(url, acme_login)["Location"].startswith("/c/")
    assert (acme_login.token_requests, TrialSignIn.objects.get().returned_at) == ([], None)


def test_a_trial_is_shown_in_its_own_session_only(
    admin: TrialBrowser, acme_admin: Any, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    admin.try_sign_in(acme_server, acme_login)
    assert TrialBrowser(acme_admin).page(acme_server) == ""


def test_another_brands_server_is_not_found(
    rival_admin: Any, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """J1."""
    rita = TrialBrowser(rival_admin)
    address = reverse("trial_sign_in", args=[acme_server.pk])
    assert rita.get(address).status_code == 404
    own = rita.client.cookies
    answer = rita.client.post(address, {}, secure=True, headers={"Referer": "https://delegation.test/"})
    assert (answer.status_code in {403, 404}, TrialSignIn.objects.count(), bool(own)) == (True, 0, True)


def test_visitors_are_sent_to_the_sign_in(acme_server: AuthorizationServer) -> None:
    answer = Browser().get(reverse("trial_sign_in", args=[acme_server.pk]))
    assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/admin/login/")


def test_the_same_callback_twice_exchanges_once(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """B10, B11."""
    query = acme_login.authorize(admin.begin_trial(acme_server)["Location"])
    for _ in range(3):
        assert admin.get(f"{acme_login.redirect_uri}?{query}").status_code == 303
    assert len(acme_login.token_requests) == 1


def test_a_server_that_never_sends_anybody_back_is_named_as_such(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """An unregistered redirect URI: the server shows a page of its own, and no error reaches us."""
    admin.begin_trial(acme_server)
    page = admin.page(acme_server)
    assert "Waiting: The browser has not come back yet" in page
    assert "register the redirect URI" in page
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=False):
        assert "Problem: Nothing came back" in admin.page(acme_server)


def test_a_consumers_callback_in_an_admins_browser_is_a_consumers(
    admin: TrialBrowser, acme_bot: Bot, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    admin.begin_trial(acme_server)
    challenge = acme_bot.challenge()
    admin.sign_in(challenge["url"], acme_login)
    assert acme_bot.status() == ("confirmation_needed", None)
    assert TrialSignIn.objects.get().returned_at is None


def test_the_button_may_lead_to_the_server(admin: TrialBrowser, acme_server: AuthorizationServer) -> None:
    """B18: with form-action in its policy, browsers would stop the redirect after the button."""
    policy = admin.get(reverse("trial_sign_in", args=[acme_server.pk]))["Content-Security-Policy"]
    assert ("form-action" in policy, "default-src 'none'" in policy) == (False, True)


def test_the_page_costs_few_queries(
    admin: TrialBrowser,
    acme_server: AuthorizationServer,
    acme_login: FakeAuthorizationServer,
    django_assert_max_num_queries: Any,
) -> None:
    use_openid(acme_server, acme_login)
    for _ in range(5):
        admin.try_sign_in(acme_server, acme_login)
    with django_assert_max_num_queries(8):
        admin.get(reverse("trial_sign_in", args=[acme_server.pk]))


def test_trials_are_limited(admin: TrialBrowser, acme_server: AuthorizationServer) -> None:
    """N9: an admin must not make us call a server as often as they like."""
    answers = [admin.begin_trial(acme_server)["Location"] for _ in range(12)]
    assert sum(answer.startswith("https://login.acme.example") for answer in answers) == 10


def test_old_trials_are_swept(
    admin: TrialBrowser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    admin.try_sign_in(acme_server, acme_login)
    retention.sweep(timezone.now() + timedelta(hours=23))
    assert TrialSignIn.objects.count() == 1
    retention.sweep(timezone.now() + timedelta(hours=25))
    assert TrialSignIn.objects.count() == 0
