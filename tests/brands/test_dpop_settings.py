"""The switch that binds tokens to this service (DPoP): in the form, metadata, the doctor and a trial sign-in."""

import json
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from brands.doctor import Verdict, examine
from brands.models import AuthorizationServer, Brand
from conversations.models import TrialSignIn
from oauth_client.discovery import read_metadata
from tests.admin_pages import House, address
from tests.brands.doctor_login import GOOD, always, configured, login, refusal
from tests.brands.test_discover_button import discover, told
from tests.cast import ACME_SECRET, make_server
from tests.conversations.test_object_history import history
from tests.conversations.test_trial_sign_in import TrialBrowser
from tests.dpop import NONCE, DPoPAuthorizationServer
from tests.fake_authorization_server import mounted
from tests.modern_authorization_server import ModernAuthorizationServer

# The fixture, by its name.
__all__ = ["login"]

pytestmark = pytest.mark.django_db

SUPPORTED = "dpop_signing_alg_values_supported"
LABEL = "Bind tokens to this service (DPoP)"
ON: dict[str, Any] = {"dpop_bound_access_tokens": True}


def verdicts(server: AuthorizationServer) -> dict[str, Verdict]:
    return {finding.code: finding.verdict for finding in examine(server)}


def with_dpop(acme: Brand) -> tuple[DPoPAuthorizationServer, AuthorizationServer]:
    login = DPoPAuthorizationServer("login.acme.example", "acme-client", ACME_SECRET, pushed_only=False)
    server = make_server(acme, **login.fields())
    login.redirect_uri = server.redirect_uri
    login.metadata_changes = {SUPPORTED: ["ES256"], "pushed_authorization_request_endpoint": ...}
    return login, server


def test_it_is_off_until_an_admin_switches_it_on(acme: Brand) -> None:
    """L1: metadata says what is supported, and not what is wanted."""
    assert not AuthorizationServer(brand=acme).dpop_bound_access_tokens


@pytest.mark.parametrize(
    "setting", [{"accept_missing_token_type": True}, {"accepted_token_type": "BearerToken"}], ids=str
)
def test_no_setting_that_accepts_another_type_stands_beside_it(setting: dict[str, Any], acme: Brand) -> None:
    """L3: the message is at the field that has to go."""
    server = make_server(acme, **ON, **setting)
    with pytest.raises(ValidationError) as refused:
        server.full_clean()
    assert refused.value.message_dict == {
        name: ["With DPoP the token_type has to be DPoP: leave it empty."] for name in setting
    }
    server.dpop_bound_access_tokens = False
    server.full_clean()


@pytest.mark.parametrize("parameter", ["dpop_jkt", "dpop_jkt[]"])
def test_no_extra_parameter_names_another_key(parameter: str, acme: Brand) -> None:
    """B20, L1: with it the code would be bound to a key of the admin's choice."""
    server = make_server(acme, extra_authorization_parameters={parameter: "another-key"})
    with pytest.raises(ValidationError):
        server.full_clean()
    assert "another-key" not in str(server.configuration("").scope)


def test_the_switch_is_in_the_form_and_in_the_history(houses: tuple[House, House]) -> None:
    """J13."""
    acme, _ = houses
    url = address(AuthorizationServer, "change", acme.server)
    assert acme.admin.send_changed(url, dpop_bound_access_tokens="on").status_code == 302
    assert f"{LABEL}: off → on" in history(acme.admin, acme.server)[0]
    page = acme.admin.get(url).content.decode()
    assert "metadata says what it supports" in page


@pytest.mark.parametrize(
    ("announced", "read"),
    [
        (["ES256", "EdDSA"], ("ES256", "EdDSA")),
        ([], ()),
        (None, ()),
        ("ES256", ()),
        ([7, None, "two words", "ES256"], ("ES256",)),
        ({"ES256": 1}, ()),
    ],
)
def test_metadata_of_any_form_stops_nobody(announced: Any, read: tuple[str, ...]) -> None:
    document = ModernAuthorizationServer(metadata_changes={SUPPORTED: announced}).metadata()
    assert read_metadata(document["issuer"], json.dumps(document).encode()).dpop_signing_alg_values_supported == read


@pytest.mark.parametrize(
    ("announced", "is_on", "code", "verdict"),
    [
        (..., True, "dpop_not_announced", Verdict.NOTE),
        (["ES256"], False, "dpop_not_used", Verdict.GOOD),
        (["RS256"], False, "dpop_not_used", Verdict.GOOD),
        (["RS256"], True, "metadata_differs", Verdict.NOTE),
    ],
)
def test_the_doctor_says_where_metadata_and_switch_differ(
    announced: Any, is_on: bool, code: str, verdict: Verdict, acme: Brand, login: ModernAuthorizationServer
) -> None:
    login.metadata_changes[SUPPORTED] = announced
    server = configured(acme, login, dpop_bound_access_tokens=is_on)
    (finding,) = [finding for finding in examine(server) if finding.field == "dpop_bound_access_tokens"]
    assert (finding.code, finding.verdict) == (code, verdict)
    if announced == ["RS256"] and is_on:
        assert finding.meaning == "The issuer's metadata lists RS256. Our proofs are signed with ES256."


@pytest.mark.parametrize("nonce", ["", NONCE])
def test_the_doctor_sends_proofs_as_a_sign_in_does(nonce: str, acme: Brand) -> None:
    login, server = with_dpop(acme)
    login.proofs.nonce = nonce
    with mounted(login):
        found = verdicts(server)
    assert list(found) == [code for code in GOOD if code != "keys_found"]
    assert login.arrived
    assert set(login.arrived) == {"/token"}


@pytest.mark.parametrize("error", ["invalid_dpop_proof", "use_dpop_nonce"])
def test_the_doctor_names_a_proof_that_is_refused(error: str, acme: Brand, monkeypatch: pytest.MonkeyPatch) -> None:
    """L5: not the client, and not the secret."""
    login, server = with_dpop(acme)
    always(login, monkeypatch, refusal(error))
    with mounted(login):
        (problem,) = [finding for finding in examine(server) if finding.verdict == Verdict.PROBLEM]
    assert (problem.code, problem.field) == ("dpop_proof_refused", "dpop_bound_access_tokens")
    assert "clock" in problem.remedy


def test_discover_shows_what_is_supported_and_switches_nothing_on(houses: tuple[House, House]) -> None:
    """L1, C6."""
    acme, _ = houses
    fake = ModernAuthorizationServer(metadata_changes={SUPPORTED: ["ES256", "EdDSA"]})
    with mounted(fake):
        note = "The server supports it. Switch it on only if your server wants it."
        assert told(discover(acme.admin))[LABEL] == ("ES256, EdDSA", "no", note)
        assert told(discover(acme.admin, dpop_bound_access_tokens="on"))[LABEL] == ("ES256, EdDSA", "yes", "")
        fake.metadata_changes[SUPPORTED] = ["RS256"]
        told_of_rsa = discover(acme.admin, dpop_bound_access_tokens="on")
        assert told(told_of_rsa)[LABEL] == ("RS256", "yes", "The server does not announce ES256.")
        assert "dpop_bound_access_tokens" in told_of_rsa.context["adminform"].form.errors
        fake.metadata_changes[SUPPORTED] = ...
        assert LABEL not in told(discover(acme.admin))
        assert told(discover(acme.admin, dpop_bound_access_tokens="on"))[LABEL] == (
            "-",
            "yes",
            "The server does not announce it.",
        )


@pytest.mark.parametrize("endpoint", ["", "userinfo_endpoint"])
def test_a_trial_has_a_key_of_its_own_and_leaves_none(endpoint: str, acme: Brand, acme_admin: Any) -> None:
    """J11, L1, L6."""
    login, server = with_dpop(acme)
    server.revocation_endpoint = f"{login.issuer}/revoke"
    if endpoint:
        server.userinfo_endpoint = f"{login.issuer}/userinfo"
    server.save()
    browser = TrialBrowser(acme_admin)
    with mounted(login):
        begun = browser.begin_trial(server)["Location"]
        assert TrialSignIn.objects.get().dpop_key_ciphertext is not None
        browser.come_back(begun, login)
        page = browser.page(server)
    assert "A consumer can sign in like this" in page
    trial = TrialSignIn.objects.get()
    assert (trial.dpop_key_ciphertext, trial.error) == (None, "")
    assert len(login.bound) == len(login.revocation_requests) == 1
    assert login.arrived == (["/token", "/userinfo"] if endpoint else ["/token"])


def test_a_trial_shows_that_the_server_binds_nothing(acme: Brand, acme_admin: Any) -> None:
    """J11, L3: the admin learns it before a consumer does."""
    login, server = with_dpop(acme)
    login.binds = False
    with mounted(login):
        page = TrialBrowser(acme_admin).try_sign_in(server, login)
    assert "Code: invalid_token_response." in page
    assert "token_type is not DPoP, although the request had a proof" in page
    assert TrialSignIn.objects.get().dpop_key_ciphertext is None
