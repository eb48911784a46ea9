"""The forwarded link, in a real browser with two profiles: Mallory asks in her chat, Victor opens her link.

Victor is signed in at the brand already, which remembers his consent and asks him nothing: one press of our button, and
he is back. Whether Mallory's bot then reads his token is up to the same-person check alone.
"""

from urllib.parse import urlsplit

import pytest

from tests.browser.profiles import Profile, code_on, heading
from tests.browser.stage import CHECKS, SUBJECTS, Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]


def see_nothing_of(page_addresses: list[str], profile: Profile, secret: str) -> None:
    """Open addresses in a profile that did not sign in; fail where one leads anywhere or shows the secret."""
    profile.expected = {404}
    for address in page_addresses:
        page = profile.open(address)
        heading(page, "This link no longer works")
        assert secret not in page.content()


def test_with_a_completion_code_mallory_reads_nothing(stage: Stage, mallory: Profile, victor: Profile) -> None:
    """A1, A2, A3, G9: only Victor's browser shows the code; five guesses end it, and then the right one is too late."""
    bot = stage.bot("completion_code")
    challenge = bot.challenge(purpose="to look up your parcel")
    page = victor.follow(challenge["url"])
    code = code_on(page)
    assert bot.refused_token() == "confirmation_needed"

    link = challenge["url"]
    see_nothing_of([link, f"{link}/done", f"{link}/other-browser", victor.callback_url()], mallory, code)
    assert bot.refused_token() == "confirmation_needed"

    guesses = [bot.complete(code=f"{(int(code) + step) % 1_000_000:06}") for step in range(1, 6)]
    assert [(guess.code, guess.body["attempts_left"]) for guess in guesses] == [
        ("completion_code_incorrect", left) for left in (4, 3, 2, 1, 0)
    ]
    assert bot.complete(code=code).status == 409
    assert bot.refused_token() == "unchallenged"
    facts = bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "too_many_codes")
    page.reload()
    heading(page, "Too many wrong codes")


def test_with_the_chat_page_victors_chat_notices(stage: Stage, victor: Profile) -> None:
    """A11: he ends at the brand's own chat, which is his; the handle that his chat posts ends Mallory's challenge."""
    bot, victors_bot = stage.bot("chat_page"), stage.bot("chat_page")
    challenge = bot.challenge()
    victors_bot.challenge()
    page = victor.follow(challenge["url"])
    page.get_by_label("Your message").wait_for()
    landed = urlsplit(page.url)
    name, _, handle = landed.fragment.partition("=")
    assert (f"{landed.scheme}://{landed.netloc}", name) == (stage.addresses.chat, "consumer_delegation_handle")
    assert len(handle) == 43

    assert bot.refused_token() == "confirmation_needed"
    assert bot.complete(handle="a-handle-that-mallory-made-up").code == "handle_unknown"
    assert bot.complete(code="123456").code == "completion_code_incorrect"
    assert bot.refused_token() == "confirmation_needed"

    assert victors_bot.complete(handle=handle).code == "other_conversation"
    assert bot.refused_token() == "unchallenged"
    assert bot.complete(handle=handle).code == "unchallenged"
    assert victors_bot.refused_token() == "challenged"
    facts = bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "other_conversation")
    heading(victor.open(f"{challenge['url']}/done"), "This sign-in was for another chat")


def test_the_handle_is_sent_to_no_server_and_stands_in_no_log(stage: Stage, victor: Profile) -> None:
    """A11: a fragment is sent to no server."""
    page = victor.follow(stage.bot("chat_page").challenge()["url"])
    page.get_by_label("Your message").wait_for()
    handle = urlsplit(page.url).fragment.partition("=")[2]
    assert handle
    assert [log.name for log in stage.demo.folder.glob("*.log") if handle in log.read_text()] == []
    # What Chromium asked servers for, without the fragments that it only shows in its address bar.
    assert [address for address in victor.addresses if handle in address.partition("#")[0]] == []


def test_with_the_expected_subject_victor_is_the_wrong_person(stage: Stage, mallory: Profile, victor: Profile) -> None:
    """A12: the bot named Mallory. That she herself gets through shows that it is the subject that kept Victor's out."""
    bot = stage.bot("expected_subject")
    challenge = bot.challenge(expected_subject=SUBJECTS["mallory"])
    heading(victor.follow(challenge["url"]), "That was another account")
    assert bot.refused_token() == "unchallenged"
    facts = bot.read_challenge(challenge)
    assert (facts["status"], facts["error"]) == ("failed", "subject_mismatch")

    again = bot.challenge(expected_subject=SUBJECTS["mallory"])
    heading(mallory.follow(again["url"]), "You're signed in")
    answer = bot.read_token()
    assert (answer.status, answer.body["assurance"]) == (200, "expected_subject")
    assert stage.customer_of(answer.body["access_token"]) == "mallory"


def test_with_none_mallory_reads_victors_token_as_the_admin_accepted(stage: Stage, victor: Profile) -> None:
    """What `none` means, in the open: whoever is talked into opening the link hands over their account.

    An admin has to choose it alone, after reading so; the assurance says it to the bot with every read, and Victor's
    own page offers to take it back (A9).
    """
    bot = stage.bot("none")
    page = victor.follow(bot.challenge()["url"])
    heading(page, "You're signed in")
    answer = bot.read_token()
    assert (answer.status, answer.body["assurance"]) == (200, "none")
    assert stage.customer_of(answer.body["access_token"]) == "victor"

    page.get_by_role("button", name="Undo").click()
    heading(page, "Undone")
    assert bot.refused_token() == "rechallenge_required"


@pytest.mark.parametrize("check", CHECKS)
def test_the_brands_own_address_forwarded_leads_nowhere(
    stage: Stage, stranger: Profile, victor: Profile, check: str
) -> None:
    """B3, B5: Mallory presses the button and forwards where it led (F2): no same-person check is even needed for this.

    She does it in a browser that is signed in nowhere, so that it stays where the brand asks for a password.
    """
    bot = stage.bot(check)
    wishes = {"expected_subject": SUBJECTS["victor"]} if check == "expected_subject" else {}
    challenge = bot.challenge(**wishes)
    stranger.follow(challenge["url"])
    authorization_url = next(address for address in stranger.addresses if "state=" in address)
    assert authorization_url.startswith(f"{stage.addresses.brand}/identity/o/authorize?")

    page = victor.open(authorization_url)
    heading(page, "You came back in another browser")
    assert page.url == f"{challenge['url']}/other-browser"
    assert bot.refused_token() == "challenged"
    assert bot.read_challenge(challenge)["status"] == "started"
