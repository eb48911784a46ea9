"""What the bot knows from its channel, a telephone number or an e-mail address, against the ID token (A14, A15)."""

import os
import subprocess
import sys
from typing import Any

import pytest

from brands.models import AuthorizationServer, BotKey
from conversations.flow.errors import ExpectedClaimInvalid
from conversations.flow.expectations import normalised_claims
from conversations.models import AccessToken, Challenge, WebhookDelivery
from conversations.outbox.worker import run_once
from infrastructure.models import AuditEvent
from tests.cast import Bot, Browser, code_on, heading_of, make_bot, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.django_db

NUMBER = "447700900123"
ADDRESS = "ada@example.org"
VERIFIED = {"phone_number_verified": True, "email_verified": True}


@pytest.fixture
def channel(acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return Acme's login. Nothing but the channel's claims is checked, and a difference is refused."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(same_person_checks=["none"], revocation_endpoint=f"{acme_login.issuer}/revoke")
    return acme_login


@pytest.fixture
def flagging(channel: FakeAuthorizationServer) -> FakeAuthorizationServer:
    """Return Acme's login. A difference is told to the bot."""
    AuthorizationServer.objects.update(expected_claims_policy="flag")
    return channel


def normalised(name: str, text: str) -> str | None:
    try:
        return normalised_claims({name: text})[name].reveal()
    except ExpectedClaimInvalid:
        return None


@pytest.mark.parametrize(
    "claim",
    ["+44 7700 900123", "+447700900123", "447700900123", "+44 (0)7700 900123", "+44-7700-900.123", 447700900123],
)
@pytest.mark.parametrize("expected", [NUMBER, "+44 7700 900123"])
def test_one_number_is_the_same_however_it_is_written(
    acme_bot: Bot, ada: Browser, channel: FakeAuthorizationServer, claim: object, expected: str
) -> None:
    """A14."""
    channel.id_token_changes = {"phone_number": claim, "phone_number_verified": True}
    page = ada.sign_in(acme_bot.challenge(expected_claims={"phone_number": expected})["url"], channel)
    assert heading_of(page) == "You're signed in"
    assert acme_bot.token()[1]["matched_claims"] == ["phone_number"]


@pytest.mark.parametrize(
    "text",
    [
        "07700900123",
        "00447700900123",
        "7700 900123",
        "44 7700 900123",
        "(212) 555-0100",
        "+1 555 0100",
        "+447700900123;ext=1",
        "+447700900123 x5",
        "tel:+447700900123",
        "+1800FLOWERS",
        "+٤٤٧٧٠٠٩٠٠١٢٣",
        "\uff0b447700900123",
        "+999123456789",
        "+44",
        "++447700900123",
        "+447700900123\n",
        "+447700900123, +33123456789",
        "-447700900123",
    ],
)
def test_what_needs_a_region_or_is_no_number_can_never_match(text: str) -> None:
    """A14: the bot learns it when it creates the challenge."""
    assert normalised("phone_number", text) is None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("+390612345678", "+39 06 12345678"),
        ("+12125550100", "+1 (212) 555-0100"),
        ("5511912345678", "+55 11 91234-5678"),
        ("447700900123", "+4407700900123"),
    ],
)
def test_numbers_of_other_countries(text: str, same: str) -> None:
    assert normalised("phone_number", text) == normalised("phone_number", same) is not None


@pytest.mark.parametrize(
    ("in_the_channel", "at_the_brand"),
    [
        ("5215512345678", "+52 55 1234 5678"),
        ("+52 1 55 1234 5678", "525512345678"),
        ("559281723241", "+55 92 98172-3241"),
        ("551187654321", "+55 (11) 98765-4321"),
    ],
)
def test_a_number_from_before_its_country_changed_them_is_the_one_of_today(
    in_the_channel: str, at_the_brand: str
) -> None:
    """A14. The bug: WhatsApp's ids of old Mexican and Brazilian accounts; their owners were "another account"."""
    assert normalised("phone_number", in_the_channel) == normalised("phone_number", at_the_brand) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("551130031234", "5511930031234"),  # a landline of Brazil has no 9
        ("525512345678", "5255123456789"),
        ("5211234567890", "525512345678"),
        ("5515512345678", "555512345678"),
        ("15215512345", "1525512345"),
        ("559281723241", "559291723241"),
    ],
)
def test_no_other_number_becomes_the_same(one: str, other: str) -> None:
    """A14: nobody passes with a number that is one digit longer or shorter."""
    assert normalised("phone_number", one) != normalised("phone_number", other)


def test_neighbouring_numbers_differ() -> None:
    assert normalised("phone_number", "+390612345678") != normalised("phone_number", "+39612345678")
    assert normalised("phone_number", "447700900123") != normalised("phone_number", "447700900124")


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("ada@example.org", "ada@EXAMPLE.Org", True),
        ("ada@bücher.example", "ada@BÜCHER.example", True),
        ("ada@bücher.example", "ada@xn--bcher-kva.example", True),
        ("ada@xn--bcher-kva.example", "ada@XN--BCHER-KVA.EXAMPLE", True),
        ("Ada@example.org", "ada@example.org", False),
        ("ada+shop@example.org", "ada@example.org", False),
        ("a.da@example.org", "ada@example.org", False),
        ("ada@straße.example", "ada@strasse.example", False),
        ("ada@\u0435xample.org", "ada@example.org", False),
        ("ada@example.org", "ada@example.org.", False),
    ],
)
def test_an_address_is_exact_but_for_its_domain(one: str, other: str, are_same: bool) -> None:
    """A14: a domain is one name however it is written; the part before the @ belongs to its server."""
    assert None not in {normalised("email", one), normalised("email", other)}
    assert (normalised("email", one) == normalised("email", other)) is are_same


@pytest.mark.parametrize(
    "text",
    ["ada", "@example.org", "ada@", "a@b@example.org", "Ada <ada@example.org>", "ada @x.example", "ada\x00@x.org"],
)
def test_what_is_no_address_can_never_match(text: str) -> None:
    assert normalised("email", text) is None


@pytest.mark.parametrize(("name", "value"), [("phone_number", "07700900123"), ("email", "ada")])
def test_a_bot_learns_of_a_value_that_can_never_match(
    acme_bot: Bot, channel: FakeAuthorizationServer, name: str, value: str
) -> None:
    """A14: it is named by its member; the value is not repeated."""
    for path in ("/challenges", "/authorize"):
        status, problem = acme_bot.in_chat("POST", path, {"expected_claims": {name: value}})
        assert (status, problem["code"], problem["claim"]) == (422, "expected_claim_invalid", name)
        assert value not in problem["detail"].replace("address", "")


@pytest.mark.parametrize(
    "expected", [{}, {"phone_number": None}, {"phone_number": ""}, {"phone_number": 447700900123}, {"sub": "ada"}, "x"]
)
def test_expected_claims_are_a_number_an_address_or_both(acme_bot: Bot, expected: object) -> None:
    answer = acme_bot.in_chat("POST", "/challenges", {"expected_claims": expected})
    assert (answer[0], answer[1]["code"]) == (422, "invalid_request_body")


def test_without_an_id_token_nothing_can_be_expected(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """A14."""
    answer = acme_bot.in_chat("POST", "/challenges", {"expected_claims": {"email": ADDRESS}})
    assert (answer[0], answer[1]["code"]) == (422, "expected_claims_refused")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"phone_number": "+447700900123"},
        {"phone_number": "+447700900123", "phone_number_verified": False},
        {"phone_number": "+447700900123", "phone_number_verified": 1},
        {"phone_number": "+447700900123", "email_verified": True},
        {"phone_number": "07700900123", "phone_number_verified": True},
        {"phone_number": ["+447700900123"], "phone_number_verified": True},
    ],
)
def test_a_number_that_proves_nothing_accuses_nobody(
    acme_bot: Bot, ada: Browser, channel: FakeAuthorizationServer, claims: dict[str, Any]
) -> None:
    """A14: refused like an expected subject that cannot be compared, and the token is revoked."""
    channel.id_token_changes = claims
    challenge = acme_bot.challenge(expected_claims={"phone_number": NUMBER})
    page = ada.sign_in(challenge["url"], channel)
    assert heading_of(page) == "Acme cannot sign you in right now"
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["error"], facts["last_error"]) == ("started", None, "claim_unusable")
    assert not AccessToken.objects.exists()
    run_once()
    assert [sent.parameters["token"] for sent in channel.revocation_requests] == channel.issued_access_tokens


@pytest.mark.parametrize(
    "claims",
    [
        {"phone_number": "+447700900124", "email": ADDRESS, **VERIFIED},
        {"phone_number": "+447700900123", "email": "rita@example.org", **VERIFIED},
        {"phone_number": "+447700900124", "phone_number_verified": True},
    ],
)
def test_somebody_elses_number_or_address_ends_the_challenge(
    acme_bot: Bot, ada: Browser, channel: FakeAuthorizationServer, claims: dict[str, Any]
) -> None:
    """A14: one difference is enough, whatever the other claim says."""
    channel.id_token_changes = claims
    challenge = acme_bot.challenge(expected_claims={"phone_number": NUMBER, "email": ADDRESS})
    page = ada.sign_in(challenge["url"], channel)
    assert heading_of(page) == "That was another account"
    facts = acme_bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "subject_mismatch")
    assert AuditEvent.objects.get(kind="token.discarded").outcome == "unexpected_subject"
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize(
    ("claims", "matched"),
    [
        ({"phone_number": "+44 7700 900123", "email": "ada@EXAMPLE.org", **VERIFIED}, ["phone_number", "email"]),
        ({"phone_number": "+44 7700 900123", "email": "rita@example.org", **VERIFIED}, ["phone_number"]),
        ({"phone_number": "+44 7700 900123", "email": ADDRESS, "email_verified": True}, ["email"]),
        ({"phone_number": "+44 7700 900124", **VERIFIED}, []),
        ({}, []),
    ],
)
def test_a_flagged_token_says_which_claims_agreed(
    acme_bot: Bot,
    ada: Browser,
    flagging: FakeAuthorizationServer,
    acme_hooks: Receiver,
    claims: dict[str, Any],
    matched: list[str],
) -> None:
    """A14: the token's answer, the webhook and `authorize` say the same."""
    flagging.id_token_changes = claims
    expected = {"expected_claims": {"phone_number": NUMBER, "email": ADDRESS}}
    page = ada.sign_in(acme_bot.challenge(**expected)["url"], flagging)
    assert heading_of(page) == "You're signed in"
    assert acme_hooks.deliver()[-1] == "token.issued"
    told = [acme_bot.token()[1], acme_bot.in_chat("POST", "/authorize", expected)[1]]
    for facts in (*told, acme_hooks.messages[-1].payload["data"]):
        assert facts["matched_claims"] == matched


def test_a_code_is_still_needed_beside_a_match(acme_bot: Bot, ada: Browser, channel: FakeAuthorizationServer) -> None:
    """A1, A14: the match is beside the check, never in place of it."""
    AuthorizationServer.objects.update(same_person_checks=["completion_code"])
    channel.id_token_changes = {"phone_number": f"+{NUMBER}", "phone_number_verified": True}
    page = ada.sign_in(acme_bot.challenge(expected_claims={"phone_number": NUMBER})["url"], channel)
    assert acme_bot.token()[1]["code"] == "confirmation_needed"
    acme_bot.complete(code_on(page))
    token = acme_bot.token()[1]
    assert (token["assurance"], token["matched_claims"]) == ("completion_code", ["phone_number"])


def test_the_library_of_numbers_is_loaded_when_one_is_compared() -> None:
    """No token read pays for it."""
    script = (
        "import django, sys; django.setup(); import delegation_site.urls\n"
        "from conversations.flow.expectations import normalised_claims\n"
        "found = ['phonenumbers' in sys.modules]; normalised_claims({'phone_number': '447700900123'})\n"
        "print(found, 'phonenumbers' in sys.modules)"
    )
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert run.stdout == "[False] True\n"


def test_other_expected_claims_are_another_challenge(acme_bot: Bot, channel: FakeAuthorizationServer) -> None:
    """A14."""
    first = acme_bot.challenge(expected_claims={"phone_number": NUMBER})
    same = {"expected_claims": {"phone_number": "+44 7700 900123"}}
    for path, status in (("/challenges", 200), ("/authorize", 202)):
        answer = acme_bot.in_chat("POST", path, same)
        assert (answer[0], answer[1]["challenge_id"]) == (status, first["challenge_id"])
    both = {"phone_number": NUMBER, "email": ADDRESS}
    for other in ({"phone_number": "447700900124"}, {"email": ADDRESS}, both, None):
        for path in ("/challenges", "/authorize"):
            answer = acme_bot.in_chat("POST", path, {"expected_claims": other})
            assert (answer[0], answer[1]["code"]) == (409, "challenge_differs")


def test_a_token_that_was_matched_with_others_does_not_satisfy(
    acme_bot: Bot, ada: Browser, flagging: FakeAuthorizationServer
) -> None:
    """A14: a flagged one satisfies the same claims, or the consumer would be asked again without end."""
    ada.sign_in(acme_bot.challenge(expected_claims={"phone_number": NUMBER})["url"], flagging)
    for expected, status in (
        ({"phone_number": f"+{NUMBER}"}, 200),
        (None, 200),
        ({"phone_number": "447700900124"}, 202),
    ):
        assert acme_bot.in_chat("POST", "/authorize", {"expected_claims": expected})[0] == status


def test_a_token_without_expected_claims_does_not_satisfy_them(
    acme_bot: Bot, ada: Browser, channel: FakeAuthorizationServer
) -> None:
    """A14."""
    ada.sign_in(acme_bot.challenge()["url"], channel)
    assert acme_bot.token()[1]["matched_claims"] == []
    assert acme_bot.in_chat("POST", "/authorize", {"expected_claims": {"email": ADDRESS}})[0] == 202


def test_no_value_is_kept_or_told(
    acme_bot: Bot, ada: Browser, flagging: FakeAuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A15: neither what the bot expects nor what the account has can be read anywhere; closing erases the digests."""
    caplog.set_level("DEBUG")
    flagging.id_token_changes = {"phone_number": "+33612345678", "email": "rita@example.org", **VERIFIED}
    challenge = acme_bot.challenge(expected_claims={"phone_number": NUMBER, "email": ADDRESS})
    ada.sign_in(challenge["url"], flagging)
    rows = [list(model.objects.values()) for model in (Challenge, AccessToken, AuditEvent, WebhookDelivery)]
    answers = [acme_bot.token(), acme_bot.read_challenge(challenge), caplog.text]
    for value in (NUMBER, "7700", ADDRESS, "33612345678", "rita@"):
        assert value not in repr(rows) + repr(answers)
    acme_bot.in_chat("DELETE", "")
    row = Challenge.objects.get()
    assert (row.expected_phone_number_digest, row.expected_email_digest) == (None, None)


def test_the_same_number_has_another_digest_in_another_conversation(
    acme_bot: Bot, acme_server: AuthorizationServer, channel: FakeAuthorizationServer
) -> None:
    """A15: two chats of one person cannot be linked in the database."""
    for bot in (acme_bot, make_bot(acme_server.brand, chat="web:other")):
        bot.challenge(expected_claims={"phone_number": NUMBER})
    first, second = Challenge.objects.values_list("expected_phone_number_digest", flat=True)
    assert first is not None
    assert second is not None
    assert bytes(first) != bytes(second)


def test_a_key_may_be_narrowed_to_some_of_the_checks(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """A16: it gets the first check that is left, and no other by name. A key without a list may use all."""
    AuthorizationServer.objects.update(
        same_person_checks=["chat_page", "completion_code"], chat_page_url="https://www.acme.example/chat"
    )
    BotKey.objects.update(same_person_checks=["completion_code", "none"])
    for path in ("/challenges", "/authorize"):
        refused = [
            acme_bot.in_chat("POST", path, {"same_person_check": name})[1]["code"] for name in ("chat_page", "none")
        ]
        assert refused == ["same_person_check_forbidden", "same_person_check_refused"]
    assert acme_bot.challenge()["same_person_check"] == "completion_code"
    other = make_bot(acme_server.brand, chat="web:other")
    assert other.challenge()["same_person_check"] == "chat_page"


@pytest.mark.parametrize("body", [{}, {"same_person_check": "none"}])
def test_a_key_that_may_use_none_of_the_servers_checks_is_told(
    acme_bot: Bot, acme_server: AuthorizationServer, body: dict[str, str]
) -> None:
    """A16: the key's list never widens what the server accepts, and the server's never widens the key's."""
    AuthorizationServer.objects.update(same_person_checks=["none"])
    BotKey.objects.update(same_person_checks=["completion_code"])
    for path in ("/challenges", "/authorize"):
        answer = acme_bot.in_chat("POST", path, body)
        assert (answer[0], answer[1]["code"]) == (403, "same_person_check_forbidden")


def test_a_token_says_whether_its_account_is_pinned(
    acme_bot: Bot, ada: Browser, acme_server: AuthorizationServer, acme_login: FakeAuthorizationServer
) -> None:
    """A7: without OpenID nothing says whose account it is, and a re-challenge may bring another."""
    AuthorizationServer.objects.update(same_person_checks=["none"])
    ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert acme_bot.token()[1]["subject_pinned"] is False
    use_openid(acme_server, acme_login)
    ada.sign_in(acme_bot.challenge(replace=True)["url"], acme_login)
    assert acme_bot.token()[1]["subject_pinned"] is True
