"""Ten vendors, each with the configuration that docs/servers.md shows: sign-in to token, a no, refusals in words."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from brands.doctor import Verdict, examine
from brands.models import AuthorizationServer, Brand
from conversations.models import AccessToken, AuthorizationRequest, Challenge
from oauth_client import MEANINGS, ConsumerPage
from tests.admin_pages import AdminBrowser, address
from tests.cast import Bot, Browser, code_on, heading_of
from tests.conversations.test_failed_authorization_requests import HEADINGS
from tests.fake_authorization_server import PLANTED_REFRESH_TOKEN
from tests.stored import everything_stored
from tests.vendors.vendor import Vendor, played
from tests.vendors.vendors import (
    LINE,
    VENDORS,
    Apigee,
    AzureB2C,
    Cognito,
    GitHub,
    LinkedIn,
    Okta,
    Shopify,
    Strava,
)

pytestmark = pytest.mark.django_db

DOCUMENT = Path(__file__).parents[2] / "docs" / "servers.md"
BRAND = '[brand]\nslug = "acme"\nname = "Acme"\n'
REFUSALS = [(vendor, code) for vendor in VENDORS for code, played_so in vendor.refusals.items() if played_so]


def shown(key: str) -> str:
    """Return the configuration that the document shows for this vendor, as a file."""
    blocks: list[str] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if f'key = "{key}"' in block]
    return BRAND + block


def secret_name(key: str) -> str:
    return f"{key.upper().replace('-', '_')}_CLIENT_SECRET"


def applied(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> AuthorizationServer:
    """Apply the document's file by the command, as an operator does, and register the redirect URI at the vendor."""
    text = shown(vendor.key)
    for name, value in changes.items():
        text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}" if value else "", text)
    monkeypatch.setenv(secret_name(vendor.key), vendor.client_secret)
    (tmp_path / "acme.toml").write_text(text, encoding="utf-8")
    call_command("apply_config", str(tmp_path / "acme.toml"))
    server = AuthorizationServer.objects.get(brand__slug="acme")
    vendor.redirect_uri = server.redirect_uri
    return server


@pytest.fixture
def vendor(request: pytest.FixtureRequest) -> Iterator[Vendor]:
    with played(request.param()) as played_one:
        yield played_one


@pytest.fixture
def server(vendor: Vendor, acme: Brand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AuthorizationServer:
    return applied(vendor, tmp_path, monkeypatch)


def each(*vendors: type[Vendor]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vendor", vendors, indirect=True, ids=[vendor.key for vendor in vendors])


def signed_in(bot: Bot, browser: Browser, vendor: Vendor) -> dict[str, Any]:
    """Go the whole way, and return what the bot reads."""
    challenge = bot.challenge()
    page = browser.sign_in(challenge["url"], vendor)
    assert bot.complete(code_on(page))[0] == 200, bot.read_challenge(challenge)
    status, token = bot.token()
    assert status == 200, token
    return token


def refused(bot: Bot, browser: Browser, vendor: Vendor) -> tuple[str, str, str]:
    """Sign in where that fails; return the code, its detail for the admin, and the heading that the consumer reads."""
    challenge = bot.challenge()
    heading = heading_of(browser.sign_in(challenge["url"], vendor))
    code = bot.read_challenge(challenge)["last_error"]
    assert not AccessToken.objects.exists()
    return code, Challenge.objects.get().last_error_detail, heading


@each(*VENDORS)
def test_a_sign_in_ends_with_a_token_that_the_bot_reads(
    vendor: Vendor, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """E7, E9, E14, E16: and nothing that is stored holds the vendor's refresh token (E15)."""
    token = signed_in(acme_bot, ada, vendor)

    assert [token["access_token"]] == vendor.issued_access_tokens
    assert (token["token_type"], token["scope"], token["missing_scope"]) == ("Bearer", vendor.granted, "")
    assert token["lifetime_assumed"] == vendor.lifetime_assumed
    assert token.get("token_response_members", {}) == vendor.members
    assert PLANTED_REFRESH_TOKEN not in everything_stored()


@each(GitHub)
def test_github_says_by_its_api_whose_token_it_is(
    vendor: GitHub, server: AuthorizationServer, acme_bot: Bot, ada: Browser, rita: Browser
) -> None:
    """A17: a number that never changes; the name beside it may be changed, and then be another person's."""
    assert signed_in(acme_bot, ada, vendor)["subject_pinned"] is True
    vendor.account = {"login": "renamed", "id": 1}
    acme_bot.in_chat("DELETE", "/token")
    assert signed_in(acme_bot, ada, vendor)["subject_pinned"] is True
    vendor.account = {"login": "octocat", "id": 2}
    challenge = acme_bot.challenge(replace=True)
    rita.sign_in(challenge["url"], vendor)
    assert acme_bot.read_challenge(challenge)["error"] == "subject_mismatch"


@each(*VENDORS)
def test_the_same_file_again_changes_nothing(
    vendor: Vendor, server: AuthorizationServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C6."""
    before = AuthorizationServer.objects.values().get()
    applied(vendor, tmp_path, monkeypatch)
    assert AuthorizationServer.objects.values().get() == before


@each(*VENDORS)
def test_a_no_at_the_vendor_is_a_denial(
    vendor: Vendor, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """B14."""
    vendor.denies = True
    challenge = acme_bot.challenge()

    assert heading_of(ada.sign_in(challenge["url"], vendor)) == "You are not signed in"
    assert acme_bot.read_challenge(challenge)["status"] == "denied"
    assert vendor.token_requests == []


def broken(vendor: Vendor, code: str) -> None:
    """Have the vendor refuse as it does a wrong client, or a code that is spent."""
    if code == "invalid_client":
        vendor.client_secret = "another"
    else:
        vendor.on_token_request = lambda _request: vendor._grants.clear()


@pytest.mark.parametrize(
    ("vendor", "code"), REFUSALS, indirect=["vendor"], ids=[f"{vendor.key}-{code}" for vendor, code in REFUSALS]
)
def test_a_refusal_in_the_vendors_own_shape_is_told_in_words(
    vendor: Vendor, code: str, server: AuthorizationServer, acme_bot: Bot, ada: Browser, acme_admin: Any
) -> None:
    """E1, E2: the consumer's page, the admin's remedy and the bot's code are of one row of the table.

    The bug: Strava's and Apigee's were `token_request_refused`, and Shopify's and LinkedIn's spent codes a dead end.
    """
    broken(vendor, code)
    expected = "invalid_request" if vendor.key == "line" else code

    found, detail, heading = refused(acme_bot, ada, vendor)

    assert (found, heading) == (expected, HEADINGS[MEANINGS[expected].page])
    assert expected in detail or "error" in detail
    page = AdminBrowser(acme_admin).get(address(Challenge, "change", Challenge.objects.get())).content.decode()
    assert expected in page


# The set-up doctor. Each vendor as it is, with a wrong secret, and without our redirect URI.

# Their documents do not tell a wrong secret from a made-up code.
SECRET_NOT_TOLD = {"line"}


def judged(server: AuthorizationServer) -> dict[str, Verdict]:
    return {finding.code: finding.verdict for finding in examine(server)}


@each(*VENDORS)
def test_the_doctor_invents_no_problem(vendor: Vendor, server: AuthorizationServer) -> None:
    """Strava, Shopify, GitHub, Apigee and LinkedIn refuse a made-up code in words of their own."""
    found = judged(server)
    assert Verdict.PROBLEM not in found.values(), found
    assert found["client_accepted"] == Verdict.GOOD


@each(*VENDORS)
def test_the_doctor_calls_no_wrong_secret_right(vendor: Vendor, server: AuthorizationServer) -> None:
    vendor.client_secret = "another"
    found = judged(server)
    assert "client_accepted" not in found
    assert ("client_refused" in found) == (vendor.key not in SECRET_NOT_TOLD)


@each(*VENDORS)
def test_the_doctor_calls_no_other_redirect_uri_right(vendor: Vendor, server: AuthorizationServer) -> None:
    vendor.redirect_uri = "https://delegation.test/callback/another"
    found = judged(server)
    assert found["client_or_redirect_uri_refused"] == Verdict.PROBLEM
    assert "redirect_uri_registered" not in found


# What is one vendor's alone.


@each(Strava)
def test_strava_says_on_the_redirect_alone_what_the_consumer_unticked(
    vendor: Vendor, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """E14."""
    vendor.scope_in_redirect = "read"

    assert signed_in(acme_bot, ada, vendor)["missing_scope"] == "activity:read_all"
    assert vendor.authorization_requests[0]["scope"] == "read,activity:read_all"
    assert vendor.authorization_requests[0]["approval_prompt"] == "force"


@each(Shopify)
def test_shopify_is_asked_for_a_users_own_token_by_a_list(
    vendor: Vendor, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """B20. The bug: the name `grant_options[]` could not be configured."""
    signed_in(acme_bot, ada, vendor)

    assert vendor.authorization_requests[0]["grant_options[]"] == "per-user"


@each(Shopify)
def test_shopify_may_add_to_the_way_back_what_it_likes(
    vendor: Vendor, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """B13: also twice, and long."""
    query = vendor.authorize(ada.begin(acme_bot.challenge()["url"])) + "&hmac=1&locale=de&session=" + "x" * 5000
    assert ada.get(f"{vendor.redirect_uri}?{query}").status_code == 303
    assert AuthorizationRequest.objects.get().error == ""


@each(LINE)
def test_line_signs_with_its_secret_whatever_it_announces(
    vendor: Vendor, acme: Brand, acme_admin: Any, acme_bot: Bot, ada: Browser
) -> None:
    """E16: the form takes it, too."""
    form = AdminBrowser(acme_admin)
    typed = {"brand": acme.pk, "key": "line", "client_id": vendor.client_id, "client_secret": vendor.client_secret}
    chosen = {
        "issuer": vendor.issuer,
        "scope": "openid profile",
        "token_endpoint_auth_method": "client_secret_post",
        "id_token_signing_alg_values": "HS256",
    }
    assert form.send_changed(address(AuthorizationServer, "add"), **typed, **chosen).status_code == 302
    vendor.redirect_uri = AuthorizationServer.objects.get().redirect_uri

    assert signed_in(acme_bot, ada, vendor)["scope"] == "openid profile"
    assert vendor.jwks_requests == 0


@each(Okta)
def test_okta_without_the_word_is_pushed_to_and_says_so(
    vendor: Okta, acme: Brand, acme_bot: Bot, ada: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B21, C6: the empty endpoint of the document's file is what keeps us from it."""
    applied(vendor, tmp_path, monkeypatch, pushed_authorization_request_endpoint="")
    challenge = acme_bot.challenge()
    page = ada.press(challenge["url"])
    page = ada.get(page["Location"]) if page.status_code == 303 else page

    assert heading_of(page) == HEADINGS[ConsumerPage.CANNOT_SIGN_IN]
    assert acme_bot.read_challenge(challenge)["last_error"] == "invalid_client"
    assert (len(vendor.pushes), vendor.authorization_requests) == (1, [])


@each(Okta, AzureB2C, Cognito)
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("User is not assigned to the client application.", "sign_in_refused"),
        ("AADB2C90118: The user has forgotten their password.\r\nCorrelation ID: 1deeca31", "sign_in_interrupted"),
    ],
)
def test_what_is_no_denial_ends_no_challenge(
    vendor: Vendor, said: str, code: str, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """B14."""
    vendor.denies, vendor.described_as = True, said

    found, _, heading = refused(acme_bot, ada, vendor)

    assert (found, heading) == (code, HEADINGS[MEANINGS[code].page])
    assert Challenge.objects.get().status == "started"


@each(AzureB2C)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("https://acme.b2clogin.com/4c2f1234-0123-4567-7654-123321828afd/v2.0", "differs by the last slash"),
        ("https://login.microsoftonline.com/4c2f1234-0123-4567-7654-123321828afd/v2.0/", "differs"),
    ],
)
def test_an_issuer_of_b2c_that_was_mistyped_is_shown_beside_the_other(
    vendor: Vendor, wrong: str, words: str, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """E17: host and last slash are what its issuers differ by."""
    AuthorizationServer.objects.update(issuer=wrong)

    found, detail, _ = refused(acme_bot, ada, vendor)

    assert found == "invalid_id_token"
    assert detail.startswith(f"iss {words}: found https://acme.b2clogin.com/")


@each(Cognito)
@pytest.mark.parametrize(("verified", "ends"), [("true", "completed"), ("false", "claim_unusable")])
def test_cognito_says_in_a_text_that_an_address_is_verified(
    vendor: Vendor, verified: str, ends: str, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """A12."""
    AuthorizationServer.objects.update(same_person_checks=["expected_subject"], subject_claim="email")
    vendor.id_token_changes["email_verified"] = verified
    challenge = acme_bot.challenge(expected_subject="ada@acme.example")
    ada.sign_in(challenge["url"], vendor)

    facts = acme_bot.read_challenge(challenge)

    assert ends in (facts["status"], facts["last_error"])


@each(Cognito)
def test_a_trigger_that_refuses_at_cognito_is_a_rule_of_the_brands(
    vendor: Vendor, server: AuthorizationServer, acme_bot: Bot, ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B14. The bug: the admin was told to compare the redirect URI."""
    vendor.denies = True
    said = {"error": "invalid_request", "error_description": "PreSignUp failed with error User already exists.. "}
    monkeypatch.setattr(Cognito, "denial", said)

    found, detail, _ = refused(acme_bot, ada, vendor)

    assert (found, detail) == ("sign_in_refused", "PreSignUp failed with error User already exists..")


@each(LinkedIn)
def test_linkedin_has_another_code_for_a_cancel_before_the_sign_in(
    vendor: Vendor, server: AuthorizationServer, acme_bot: Bot, ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B14."""
    vendor.denies = True
    monkeypatch.setattr(LinkedIn, "denial", {"error": "user_cancelled_login"})
    challenge = acme_bot.challenge()
    ada.sign_in(challenge["url"], vendor)

    assert acme_bot.read_challenge(challenge)["status"] == "denied"


@each(LinkedIn)
def test_linkedin_takes_pkce_for_a_wrong_secret_and_the_doctor_finds_out(
    vendor: Vendor, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """B2. The bug: the admin was told to type the secret again, which was right all the time."""
    vendor.pkce = "refused"

    assert refused(acme_bot, ada, vendor)[0] == "invalid_client"
    (problem,) = [found for found in examine(server) if found.verdict == Verdict.PROBLEM]
    assert problem.code == "pkce_refused"


@each(Apigee)
@pytest.mark.parametrize("token_type", ["DPoP", "mac", "BearerTokens", "User Access Token"])
def test_apigees_name_for_bearer_is_the_only_other_one(
    vendor: Vendor, token_type: str, server: AuthorizationServer, acme_bot: Bot, ada: Browser
) -> None:
    """E7."""
    vendor.next_token_answer = (200, {"Content-Type": "application/json"}, _answer(token_type))

    assert refused(acme_bot, ada, vendor)[0] == "invalid_token_response"


def _answer(token_type: str) -> bytes:
    return b'{"access_token": "at", "token_type": "%s", "expires_in": "60"}' % token_type.encode()
