"""Sessions of a reused conversation id: what ends with one, and that nothing of it reaches the next."""

from datetime import timedelta

import pytest
import time_machine
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, SamePersonCheck
from conversations.models import AccessToken, AuditEvent, Challenge, Conversation, Revocation
from tests.cast import Bot, Browser, code_on, heading_of, make_bot, make_server, use_openid
from tests.fake_authorization_server import FakeAuthorizationServer
from tests.reused_ids import authorize, close
from tests.webhook_receiver import Receiver

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("reused")]


@pytest.fixture
def reused(acme_server: AuthorizationServer) -> None:
    Brand.objects.filter(pk=acme_server.brand_id).update(conversation_ids="reused")


def test_closing_ends_the_session_and_the_next_challenge_begins_another(acme_bot: Bot) -> None:
    """S2: the customer's number is the id, and the first close barred that customer for ever."""
    first = acme_bot.challenge()
    close(acme_bot)
    status, problem = acme_bot.token()
    assert (status, problem["code"], problem["next"]["operation"]) == (410, "conversation_closed", "createChallenge")
    second = acme_bot.challenge()
    assert (first["session"], second["session"]) == (1, 2)
    facts = acme_bot.in_chat("GET")[1]
    assert (facts["session"], facts["closed_at"]) == (2, None)
    assert acme_bot.status() == ("challenged", None)


def test_authorize_begins_the_next_session_too(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    authorize(acme_bot, ada, acme_login)
    close(acme_bot)
    status, challenge = acme_bot.in_chat("POST", "/authorize", {})
    assert (status, challenge["session"], challenge["status"]) == (202, 2, "issued")


def test_a_new_session_is_unchallenged_and_reads_nothing_of_the_earlier(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S2: no token, and no word of what was before; not even `rechallenge_required`."""
    authorize(acme_bot, ada, acme_login)
    close(acme_bot)
    second = acme_bot.challenge(context="second")
    acme_bot.call("DELETE", f"/challenges/{second['challenge_id']}")
    assert acme_bot.status() == ("unchallenged", None)
    status, problem = acme_bot.token()
    assert (status, problem["code"]) == (409, "unchallenged")
    assert problem["last_challenge"]["challenge_id"] == second["challenge_id"]
    assert acme_bot.in_chat("DELETE", "/token?session=2")[1]["code"] == "unchallenged"


def test_another_person_signs_in_to_the_next_session(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """S2, A7: Rita has Ada's number now. She is compared with nobody, and she is the one from then on."""
    use_openid(acme_server, acme_login)
    authorize(acme_bot, ada, acme_login)
    close(acme_bot)
    acme_login.subject = "rita"
    authorize(acme_bot, rita, acme_login, session=2)
    assert acme_bot.in_chat("DELETE", "/token?session=2&reason=signed_out")[0] == 200
    acme_login.subject = "ada"
    page = ada.sign_in(acme_bot.challenge(session=2)["url"], acme_login)
    assert heading_of(page) == "That was another account"


def test_a_code_of_the_last_session_is_worth_nothing(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S2, S3, S4: it neither confirms the next person's token nor uses up a try of theirs."""
    code = code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login))
    close(acme_bot)
    right = code_on(rita.sign_in(acme_bot.challenge()["url"], acme_login))
    status, problem = acme_bot.in_chat("POST", "/completion", {"code": code, "session": 1})
    assert (status, problem["code"], problem["session"]) == (409, "session_mismatch", 2)
    assert acme_bot.in_chat("POST", "/completion", {"code": code})[1]["code"] == "session_required"
    assert Challenge.objects.get(conversation__session=2).completion_attempts == 0
    assert acme_bot.in_chat("POST", "/completion", {"code": right, "session": 2})[0] == 200


def test_a_replayed_handle_confirms_nothing(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S2, A11: Ada's handle, in Rita's session."""
    AuthorizationServer.objects.update(same_person_checks=["chat_page"], chat_page_url="https://chat.example/back")
    handles = []
    for browser in (ada, rita):
        back = browser.come_back(browser.begin(acme_bot.challenge()["url"]), acme_login)["Location"]
        handles.append(back.partition("#consumer_delegation_handle=")[2])
        if browser is ada:
            close(acme_bot)
    for named in ({}, {"session": 2}):
        status, problem = acme_bot.in_chat("POST", "/completion", {"handle": handles[0], **named})
        assert (status, problem["code"]) == (422, "handle_unknown")
    assert acme_bot.status() == ("confirmation_needed", None)
    status, answer = acme_bot.in_chat("POST", "/completion", {"handle": handles[1]})
    assert (status, answer["session"], answer["status"]) == (200, 2, "authorized")


def test_a_link_and_an_expected_subject_end_with_their_session(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """S2."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(same_person_checks=[SamePersonCheck.EXPECTED_SUBJECT], subject_claim="sub")
    first = acme_bot.challenge(same_person_check="expected_subject", expected_subject="ada")
    close(acme_bot)
    status, second = acme_bot.in_chat(
        "POST", "/challenges", {"same_person_check": "expected_subject", "expected_subject": "rita"}
    )
    assert (status, second["session"]) == (201, 2)
    assert ada.get(first["url"]).status_code == 404
    ada.sign_in(second["url"], acme_login)
    assert acme_bot.read_challenge(second)["error"] == "subject_mismatch"


def test_a_receipt_shows_and_ends_only_its_own_session(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S6: Ada's receipt is still open in her browser when Rita is signed in."""
    acme_login.subject = "ada"
    challenge = acme_bot.challenge()
    page = ada.sign_in(challenge["url"], acme_login)
    acme_bot.in_chat("POST", "/completion", {"code": code_on(page), "session": 1})
    receipt = ada.get(f"{challenge['url']}/done").content.decode().split('href="/r/')[1].split('"')[0]
    close(acme_bot)
    token = authorize(acme_bot, rita, acme_login, session=2)
    ada.press(f"/r/{receipt}", "/end")
    ada.press(f"{challenge['url']}/done", "/undo")
    assert ada.get(f"/r/{receipt}").status_code == 404
    assert acme_bot.token()[1]["access_token"] == token["access_token"]


def test_a_late_callback_of_the_last_session_stores_nothing(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """S6, A8: Ada was at the brand when her session was closed. She comes back while Rita signs in."""
    url = ada.begin(acme_bot.challenge()["url"])
    close(acme_bot)
    second = acme_bot.challenge()
    rita.begin(second["url"])
    ada.come_back(url, acme_login)
    assert not AccessToken.objects.exists()
    assert acme_bot.read_challenge(second)["status"] == "started"


def test_closing_is_no_way_around_the_limit_of_links(acme_bot: Bot) -> None:
    """S10, G8: whoever answers "bye" and asks again would flood a telephone with links."""
    for session in range(1, 6):
        assert acme_bot.challenge()["session"] == session
        close(acme_bot, session=session)
    status, problem = acme_bot.in_chat("POST", "/challenges")
    assert (status, problem["code"]) == (429, "rate_limited")
    assert Conversation.objects.count() == 5
    assert Bot(acme_bot.key, "sms:another").challenge()["session"] == 1


def test_the_database_refuses_a_second_open_session(acme_bot: Bot) -> None:
    """S1, S7."""
    acme_bot.challenge()
    row = Conversation.objects.get()
    for values in ({"session": 2}, {"session": 1, "closed_at": timezone.now()}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Conversation.objects.create(brand=row.brand, external_id=row.external_id, **values)


@pytest.mark.parametrize("sessions", [1, 3])
def test_pruning_never_gives_a_number_twice(acme_bot: Bot, sessions: int) -> None:
    """S7: the bare rows of the first and of the newest session stay. The bug: with the newest alone, 1 came again."""
    for session in range(1, sessions + 1):
        acme_bot.challenge()
        close(acme_bot, session=session)
    with time_machine.travel(timezone.now() + timedelta(days=400), tick=False):
        call_command("prune")
        assert set(Conversation.objects.values_list("session", flat=True)) == {1, sessions}
        assert acme_bot.challenge()["session"] == sessions + 1


def test_pruning_keeps_an_open_session_without_challenges(acme_bot: Bot) -> None:
    """S7: deleted, the next challenge would begin a session of an earlier number, or find the last one closed."""
    acme_bot.challenge()
    close(acme_bot)
    acme_bot.challenge()
    with time_machine.travel(timezone.now() + timedelta(days=400), tick=False):
        call_command("worker", "--once")
        call_command("prune")
        call_command("prune")
        assert not Challenge.objects.exists()
        Brand.objects.update(conversation_ids="unique")
        assert acme_bot.challenge()["session"] == 2


def test_a_brand_that_switches_back_ends_nothing_and_begins_nothing(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """S9."""
    closed = make_bot(acme_server.brand, chat="sms:closed")
    closed.challenge()
    close(closed)
    acme_bot.challenge()
    close(acme_bot)
    authorize(acme_bot, ada, acme_login, session=2)
    Brand.objects.update(conversation_ids="unique")
    assert acme_bot.token()[1]["session"] == 2
    status, problem = closed.in_chat("POST", "/challenges")
    assert (status, problem["code"], problem["next"]) == (410, "conversation_closed", None)
    assert acme_bot.in_chat("DELETE")[1]["session"] == 2
    assert acme_bot.in_chat("POST", "/challenges")[1]["code"] == "conversation_closed"
    Brand.objects.update(conversation_ids="reused")
    assert acme_bot.challenge()["session"] == 3
    assert closed.challenge()["session"] == 2


def test_with_unique_ids_nothing_has_changed(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    """S9: no call has to name a session, and a closed conversation never opens again."""
    Brand.objects.update(conversation_ids="unique")
    challenge = acme_bot.challenge()
    assert challenge["session"] == 1
    acme_bot.complete(code_on(ada.sign_in(challenge["url"], acme_login)))
    assert acme_bot.in_chat("DELETE", "/token")[0] == 200
    assert acme_bot.in_chat("POST", "/authorize", {"replace": True})[0] == 202
    assert acme_bot.in_chat("DELETE", "?session=2")[1]["code"] == "session_mismatch"
    assert acme_bot.in_chat("DELETE")[0] == 200
    for body in ({}, {"session": 1}, {"session": 2}):
        status, problem = acme_bot.in_chat("POST", "/challenges", body)
        assert (status, problem["code"], problem["next"]) == (410, "conversation_closed", None)


def test_sessions_of_one_id_belong_to_their_brand(
    acme_bot: Bot, rival_bot: Bot, rival_server: AuthorizationServer
) -> None:
    acme_bot.challenge()
    close(acme_bot)
    assert rival_bot.challenge()["session"] == 1
    assert acme_bot.challenge()["session"] == 2
    assert rival_bot.in_chat("GET", "?session=2")[1]["session"] == 1


def test_a_late_webhook_of_the_first_session_names_it(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_hooks: Receiver
) -> None:
    """S6: the receiver was away while the first session ended and the second began."""
    authorize(acme_bot, ada, acme_login)
    close(acme_bot)
    second = acme_bot.challenge()
    acme_hooks.deliver()
    told = [(message.type, message.payload["data"]["session"]) for message in acme_hooks.messages]
    assert sorted(told) == [
        *(("challenge.completed", 1), ("challenge.confirmation_needed", 1), ("challenge.issued", 1)),
        *(("challenge.issued", 2), ("challenge.started", 1), ("conversation.closed", 1)),
        *(("token.ended", 1), ("token.issued", 1)),
    ]
    newest = max(acme_hooks.messages, key=lambda message: message.payload["sequence"])
    assert newest.payload["data"] | {"expires_in": 0} == acme_bot.read_challenge(second) | {"expires_in": 0}


def test_sequences_grow_from_session_to_session(acme_bot: Bot, acme_hooks: Receiver) -> None:
    """Also where the clock stands still, or one process' clock is ahead."""
    with time_machine.travel(timezone.now() + timedelta(seconds=3), tick=False):
        acme_bot.challenge()
        close(acme_bot)
    acme_bot.challenge()
    with time_machine.travel(timezone.now() + timedelta(seconds=9), tick=False):
        acme_hooks.deliver()
    in_order = sorted(acme_hooks.messages, key=lambda message: message.payload["sequence"])
    assert [message.payload["data"]["session"] for message in in_order] == [1, 1, 1, 2]


def test_audit_rows_name_their_session(acme_bot: Bot) -> None:
    """S6: also when the conversation's row was pruned, which its UUID names."""
    acme_bot.challenge()
    close(acme_bot)
    acme_bot.challenge()
    rows = AuditEvent.objects.exclude(conversation_uuid=None).order_by("id")
    assert list(rows.values_list("kind", "session")) == [
        *(("challenge.changed", 1), ("challenge.changed", 1), ("conversation.closed", 1), ("challenge.changed", 2)),
    ]


def test_only_the_closed_sessions_token_is_revoked(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """S6: a revocation that waits for the brand is of the row that it came from."""
    AuthorizationServer.objects.update(revocation_endpoint=f"https://{acme_login.host}/revoke")
    authorize(acme_bot, ada, acme_login)
    first = AccessToken.objects.get()
    close(acme_bot)
    authorize(acme_bot, rita, acme_login, session=2)
    assert [row.access_token_uuid for row in Revocation.objects.all()] == [first.uuid]
    call_command("worker", "--once")
    assert acme_bot.token()[0] == 200


def test_a_second_server_has_its_sessions_with_the_conversation(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """Closing ends the session at every server."""
    authorize(acme_bot, ada, acme_login)
    make_server(acme_server.brand, "loyalty", client_id="another")
    close(acme_bot)
    acme_bot.challenge(authorization_server="loyalty")
    facts = acme_bot.in_chat("GET")[1]["authorization_servers"]
    assert {server["authorization_server"]: server["status"] for server in facts} == {
        "orders": "unchallenged", "loyalty": "challenged",
    }  # fmt: skip
