"""What two requests do to one conversation at the same moment; and faults in the middle of it."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.db import OperationalError
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.api import fast_token_read as token_call
from conversations.flow import challenges, readable_tokens, sign_in
from conversations.flow.authorization_status import authorization_of
from conversations.flow.outcomes import record_denial
from conversations.flow.transitions import end_expired
from conversations.models import AccessToken, AuthorizationRequest, Challenge, Conversation
from tests.cast import Bot, Browser, code_on, heading_of, make_bot, make_server, use_openid
from tests.concurrency import at_once
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db


@pytest.mark.django_db(transaction=True)
def test_a_failing_callback_and_a_withdrawal_never_deadlock(
    ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """The bug: a failure locked both rows in the other order than an ending; PostgreSQL killed one transaction."""
    for number in range(15):
        bot = make_bot(acme_server.brand, chat=f"web:{number}")
        challenge = bot.challenge()
        query = acme_login.authorize(ada.begin(challenge["url"])).split("&state=")[1].split("&")[0]
        failing = f"{acme_login.redirect_uri}?error=server_error&state={query}"

        def call(which: int, bot: Bot = bot, challenge: dict[str, Any] = challenge, failing: str = failing) -> int:
            if which:
                return int(bot.send("DELETE", f"/challenges/{challenge['challenge_id']}").status_code)
            return int(ada.get(failing).status_code)

        assert at_once(2, call) == [303, 200]


def test_a_second_tabs_no_does_not_undo_what_the_first_one_brought(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The bug: a denial that was claimed before the success was stored wiped the pending token."""
    challenge = acme_bot.challenge()
    ada.begin(challenge["url"])
    denied = AuthorizationRequest.objects.select_related("challenge__conversation__brand").get()
    code = code_on(ada.sign_in(challenge["url"], acme_login))
    record_denial(denied, "", timezone.now())
    assert acme_bot.complete(code)[0] == 200


@pytest.mark.parametrize("fault", [OperationalError("the database went away"), UnicodeEncodeError("x", "", 0, 1, "y")])
def test_a_fault_while_storing_ends_the_authorization_request_and_leaves_no_code_in_the_address_bar(
    acme_bot: Bot,
    ada: Browser,
    acme_login: FakeAuthorizationServer,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
) -> None:
    """B15, K7: and the consumer can try again at once."""

    def fail(*_: object) -> None:
        raise fault

    challenge = acme_bot.challenge()
    with monkeypatch.context() as context:
        context.setattr(sign_in, "store_result", fail)
        page = ada.sign_in(challenge["url"], acme_login)
    assert heading_of(page) == "That sign-in did not work"
    assert acme_bot.read_challenge(challenge)["last_error"] == "internal_error"
    authorization_request = AuthorizationRequest.objects.get()
    assert (
        authorization_request.error,
        authorization_request.code_verifier_ciphertext,
        authorization_request.nonce_digest,
    ) == ("internal_error", None, None)
    assert code_on(ada.sign_in(challenge["url"], acme_login))


@pytest.mark.parametrize("claim", ["sub", "nonce"])
def test_half_a_surrogate_pair_in_an_id_token_is_no_fault_of_ours(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer, claim: str
) -> None:
    """E17: JSON can hold it, UTF-8 cannot."""
    use_openid(acme_server, acme_login)
    acme_login.id_token_changes = {claim: "ada\ud800"}
    challenge = acme_bot.challenge()
    answer = ada.come_back(ada.begin(challenge["url"]), acme_login)
    assert answer.status_code == 303
    assert acme_bot.read_challenge(challenge)["last_error"] in {"invalid_id_token", None}
    assert not AccessToken.objects.exclude(confirmed_at=None).exists()


def test_a_read_during_the_close_says_closed(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: 409 with a reason that the contract does not know, in the moment between two queries."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))

    def closed_meanwhile(*arguments: Any) -> Any:
        acme_bot.in_chat("DELETE")
        return authorization_of(*arguments)

    monkeypatch.setattr(token_call, "token_by_one_query", lambda *_: None)  # one query has no moment between two
    monkeypatch.setattr(readable_tokens, "authorization_of", closed_meanwhile)
    status, problem = acme_bot.token()
    assert (status, problem["code"]) == (410, "conversation_closed")


def test_a_closed_conversation_never_reopens_however_long_ago(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """The bug: pruning deleted the row, and the next challenge made it anew."""
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge()["url"], acme_login)))
    acme_bot.in_chat("DELETE")
    with time_machine.travel(timezone.now() + timedelta(days=400), tick=False):
        call_command("prune")
        assert acme_bot.in_chat("POST", "/challenges")[1]["code"] == "conversation_closed"
    assert (Challenge.objects.count(), AccessToken.objects.count(), Conversation.objects.count()) == (0, 0, 1)


def test_closed_comes_before_everything_else_that_is_wrong(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    acme_bot.challenge()
    acme_bot.in_chat("DELETE")
    make_server(acme_server.brand, "loyalty", client_id="another")
    for method, what, body in (
        ("POST", "/challenges", {"scope": "everything"}),
        ("POST", "/authorize", {"same_person_check": "none"}),
        ("POST", "/completion", {"code": "123456"}),
        ("GET", "/token", None),
        ("DELETE", "/token", None),
    ):
        assert acme_bot.in_chat(method, what, body)[1]["code"] == "conversation_closed"


def test_an_undone_sign_in_binds_nobody(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """The bug: whoever undid a forwarded link's sign-in locked the rightful consumer out of her own chat (A7, A9)."""
    use_openid(acme_server, acme_login)
    AuthorizationServer.objects.update(same_person_checks=["none"])
    acme_login.subject = "rita"
    challenge = acme_bot.challenge()
    rita.sign_in(challenge["url"], acme_login)
    rita.press(f"{challenge['url']}/done", "/undo")
    acme_login.subject = "ada"
    page = ada.sign_in(acme_bot.challenge()["url"], acme_login)
    assert heading_of(page) == "You're signed in"


def test_a_token_asked_for_with_less_does_not_hide_what_is_asked_for_now(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer
) -> None:
    """`authorize` names a scope or a check: a live token of less is not the answer, and nonsense is refused."""
    AuthorizationServer.objects.update(
        scope="orders.read orders.write",
        same_person_checks=["completion_code", "chat_page"],
        chat_page_url="https://x.example/",
    )
    acme_login.scope = "orders.read orders.write"
    acme_bot.complete(code_on(ada.sign_in(acme_bot.challenge(scope="orders.read")["url"], acme_login)))
    assert acme_bot.in_chat("POST", "/authorize")[0] == 200
    assert acme_bot.in_chat("POST", "/authorize", {"scope": "orders.read"})[0] == 200
    assert acme_bot.in_chat("POST", "/authorize", {"scope": "nonsense"})[1]["code"] == "invalid_scope"
    status, challenge = acme_bot.in_chat("POST", "/authorize", {"scope": "orders.write"})
    assert (status, challenge["scope"]) == (202, "orders.write")
    answer = acme_bot.in_chat("POST", "/authorize", {"same_person_check": "chat_page", "replace": True})
    assert (answer[0], answer[1]["same_person_check"]) == (202, "chat_page")


def test_pruning_an_empty_conversation_does_not_fail_the_challenge_that_is_being_issued(
    acme_bot: Bot, acme_server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: the row was found, pruned, and then not there to be locked."""
    row = Conversation.objects.create(brand=acme_server.brand, external_id=acme_bot.chat)

    def check(conversation: Conversation, now: Any) -> None:
        assert conversation.pk == row.pk
        end_expired(conversation, now)

    monkeypatch.setattr(challenges, "end_expired", check)
    assert acme_bot.challenge()["status"] == "issued"


@pytest.mark.parametrize("path", ["/callback/%00", "/callback/abc%00?code=x", "/c/%00", "/c/x?y=%00"])
def test_a_nul_character_is_nobodys_fault_of_ours(ada: Browser, path: str) -> None:
    """The bug: PostgreSQL cannot look for it, and answered 500."""
    assert ada.get(f"https://delegation.test{path}").status_code in {303, 400, 404}


def test_a_body_in_chunks_is_refused_and_not_ignored(acme_bot: Bot, acme_server: AuthorizationServer) -> None:
    """The bug: Django reads nothing of it, and the call did something else than it said."""
    headers = {"Transfer-Encoding": "chunked"}
    status, problem = acme_bot.call("POST", "/conversations/x/challenges", {"purpose": "to pay"}, **headers)
    assert (status, problem["code"]) == (411, "length_required")
    assert not Conversation.objects.exists()


def test_closing_erases_what_was_typed_too(
    acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer, acme_server: AuthorizationServer
) -> None:
    """K6."""
    use_openid(acme_server, acme_login)
    challenge = acme_bot.challenge(purpose="to look up a test result", context="resume")
    ada.sign_in(challenge["url"], acme_login)
    # What other checks, and an authorization request that failed before, leave behind.
    others = {"completion_handle_digest": b"handle", "expected_subject_digest": b"customer"}
    Challenge.objects.update(**others, last_error_detail="what the server said")
    assert AccessToken.objects.get().receipt_digest is not None
    acme_bot.in_chat("DELETE")
    facts = acme_bot.read_challenge(challenge)
    assert (facts["purpose"], facts["context"]) == (None, None)
    row, token = Challenge.objects.get(), AccessToken.objects.get()
    assert (row.completion_code_digest, row.link_token_ciphertext, row.context_ciphertext) == (None, None, None)
    assert (row.completion_handle_digest, row.expected_subject_digest, row.last_error_detail) == (None, None, "")
    assert (token.ciphertext, token.subject_ciphertext, token.receipt_digest) == (None, None, None)
