"""Every page that a consumer can see, and how to get there: the one table behind the tests of looks and the gallery.

A page is reached the way a consumer reaches it. What only time or a fault would bring is written to the database.
"""

from playwright.sync_api import Page

from tests.browser.profiles import code_on
from tests.browser.scene import STATES, Scene, state
from tests.browser.stage import NAMED, STUBBORN, SUBJECTS

__all__ = ["STATES"]

SECONDS_TO_OPEN = 5


@state("consumer/link.html")
def link(scene: Scene) -> Page:
    """The link of the chat was opened."""
    return scene.consumer.open(scene.challenge(NAMED)[1]["url"])


@state("consumer/front_page.html")
def front_page(scene: Scene) -> Page:
    """The address without a link."""
    return scene.stranger.open(f"{scene.stage.addresses.product}/")


@state("consumer/completion_code.html")
def completion_code(scene: Scene) -> Page:
    """Signed in at the brand; one step is left in the chat."""
    return scene.consumer.follow(scene.challenge()[1]["url"])


@state("consumer/signed_in.html")
def signed_in(scene: Scene) -> Page:
    """The code has arrived in the chat."""
    return scene.signed_in()[1]


@state("consumer/back_to_chat.html")
def back_to_chat(scene: Scene) -> Page:
    """The brand has a chat page, and the consumer came back here instead."""
    _, challenge = scene.challenge("chat_page")
    scene.consumer.follow(challenge["url"])
    return scene.consumer.open(f"{challenge['url']}/done")


@state("consumer/receipt.html")
def receipt(scene: Scene) -> Page:
    """The receipt that the consumer kept."""
    _, page = scene.signed_in()
    page.locator("a[href*='/r/']").click()
    page.wait_for_load_state()
    return page


@state("consumer/receipt_over.html")
def receipt_over(scene: Scene) -> Page:
    """The access was ended with the receipt."""
    page = receipt(scene)
    page.locator("main form button").click()
    page.wait_for_load_state()
    return page


@state("consumer/undone.html")
def undone(scene: Scene) -> Page:
    """The sign-in was taken back."""
    _, page = scene.signed_in()
    page.locator("form[action$='/undo'] button").click()
    page.wait_for_load_state()
    return page


@state("consumer/not_me.html")
def not_me(scene: Scene) -> Page:
    """Somebody who did not ask for the link said so."""
    page = scene.consumer.open(scene.challenge()[1]["url"])
    page.locator("form[action$='/cancel'] button").click()
    page.wait_for_load_state()
    return page


@state("consumer/denied.html")
def denied(scene: Scene) -> Page:
    """The consumer said no at the brand."""
    scene.begun_by_stranger()
    return scene.stranger.open(scene.stranger.callback_with(error="access_denied"))


@state("consumer/one_moment.html")
def one_moment(scene: Scene) -> Page:
    """The brand is still answering, and the page was loaded again."""
    _, challenge = scene.challenge(STUBBORN)
    tab = scene.consumer.open(challenge["url"])
    with scene.stage.stubborn.hanging():
        scene.consumer.begin(tab)
        scene.stage.stubborn.wait_for(1)
        return scene.consumer.open(f"{challenge['url']}/done")


@state("consumer/server_busy.html", 503)
def server_busy(scene: Scene) -> Page:
    """As many sign-ins wait for the brand as are allowed to."""
    *waiting, page = [scene.consumer.open(scene.challenge(STUBBORN)[1]["url"]) for _ in range(5)]
    with scene.stage.stubborn.hanging():
        for tab in waiting:
            scene.consumer.begin(tab)
        scene.stage.stubborn.wait_for(len(waiting))
        page.locator("main form button").first.click()
        page.wait_for_load_state()
        return page


@state("consumer/not_answering.html")
def not_answering(scene: Scene) -> Page:
    """The brand failed after the consumer had signed in there."""
    return scene.consumer.follow(scene.challenge(STUBBORN)[1]["url"])


@state("consumer/not_completed.html")
def not_completed(scene: Scene) -> Page:
    """The brand answered with a code that nobody knows, or with no answer at all."""
    scene.begun_by_stranger()
    return scene.stranger.open(scene.stranger.callback_with(error="17"))


@state("consumer/cannot_sign_in.html")
def cannot_sign_in(scene: Scene) -> Page:
    """Something is wrong that no other try mends, such as a client secret."""
    scene.begun_by_stranger()
    return scene.stranger.open(scene.stranger.callback_with(error="unauthorized_client"))


@state("consumer/missing_permission.html")
def missing_permission(scene: Scene) -> Page:
    """The brand granted less than the bot needs."""
    with scene.stage.stubborn.granting("profile"):
        return scene.consumer.follow(scene.challenge(STUBBORN)[1]["url"])


@state("consumer/start_again.html")
def start_again(scene: Scene) -> Page:
    """Something opened the link many times meanwhile."""
    _, challenge = scene.begun_by_stranger()
    for _ in range(10):
        scene.consumer.post(challenge["url"])
    return scene.stranger.open(f"{challenge['url']}/done")


@state("consumer/other_browser.html")
def other_browser(scene: Scene) -> Page:
    """The sign-in came back where it did not begin."""
    scene.begun_by_stranger()
    return scene.consumer.open(scene.stranger.authorization_url())


@state("consumer/elsewhere.html")
def elsewhere(scene: Scene) -> Page:
    """Another device was faster."""
    _, challenge = scene.begun_by_stranger()
    scene.consumer.follow(challenge["url"])
    return scene.stranger.open(f"{challenge['url']}/done")


@state("consumer/other_person.html")
def other_person(scene: Scene) -> Page:
    """Another customer signed in than in this chat before."""
    bot, _ = scene.signed_in()
    scene.stranger.sign_in_at_the_brand("mallory")
    return scene.stranger.follow(bot.challenge(locale=scene.locale)["url"])


@state("consumer/other_person.html")
def unexpected_person(scene: Scene) -> Page:
    """Another customer signed in than the bot expects."""
    _, challenge = scene.challenge("expected_subject", expected_subject=SUBJECTS["mallory"])
    return scene.consumer.follow(challenge["url"])


@state("consumer/assurance_not_met.html")
def assurance_not_met(scene: Scene) -> Page:
    """The brand's API demands a second factor, and the brand did not ask for it."""
    _, challenge = scene.challenge()
    scene.rewrite(challenge, "acr_values = 'urn:acme:loa:2'")
    return scene.consumer.follow(challenge["url"])


@state("consumer/too_many_codes.html")
def too_many_codes(scene: Scene) -> Page:
    """Five wrong codes were sent in the chat."""
    bot, challenge = scene.challenge()
    page = scene.consumer.follow(challenge["url"])
    code = int(code_on(page))
    for step in range(1, 6):
        bot.complete(code=f"{(code + step) % 1_000_000:06}")
    page.reload()
    return page


@state("consumer/other_conversation.html")
def other_conversation(scene: Scene) -> Page:
    """The link was one of somebody else's chat."""
    _, challenge = scene.challenge("chat_page")
    page = scene.consumer.follow(challenge["url"])
    other, _ = scene.challenge("chat_page")
    assert other.complete(handle=page.url.partition("#consumer_delegation_handle=")[2]).code == "other_conversation"
    return scene.consumer.open(f"{challenge['url']}/done")


@state("consumer/too_late.html")
def too_late(scene: Scene) -> Page:
    """The time for the sign-in ran out."""
    _, challenge = scene.begun_by_stranger()
    scene.rewrite(challenge, "expires_at = '2026-01-01 00:00:00'")
    return scene.stranger.open(f"{challenge['url']}/done")


@state("consumer/replaced.html")
def replaced(scene: Scene) -> Page:
    """The bot sent another link."""
    bot, challenge = scene.begun_by_stranger()
    bot.challenge(replace=True)
    return scene.stranger.open(f"{challenge['url']}/done")


@state("consumer/withdrawn.html")
def withdrawn(scene: Scene) -> Page:
    """The bot took the link back."""
    bot, challenge = scene.begun_by_stranger()
    assert bot.withdraw(challenge).status == 200
    return scene.stranger.open(f"{challenge['url']}/done")


@state("consumer/over.html")
def over(scene: Scene) -> Page:
    """The consumer signed out in the chat, or the token's time is over."""
    bot, page = scene.signed_in()
    assert bot.end_token().status == 200
    page.reload()
    return page


@state("consumer/link_no_longer_works.html", 404)
def link_no_longer_works(scene: Scene) -> Page:
    """The link is unknown, or another browser's and over."""
    return scene.stranger.open(f"{scene.stage.addresses.product}/c/{'A' * 43}")


@state("errors/400.html", 400)
def error_400(scene: Scene) -> Page:
    """The address was damaged on its way."""
    return scene.stranger.open(f"{scene.stage.addresses.product}/c/{'A' * 43}?from=%00")


@state("errors/403.html", 403)
def error_403(scene: Scene) -> Page:
    """The browser keeps no cookies, or the form is another site's."""
    page = scene.stranger.open(scene.challenge()[1]["url"])
    scene.stranger.context.clear_cookies()
    page.locator("main form button").first.click()
    page.wait_for_load_state()
    return page


@state("errors/403.html", 403)
def error_403_add_on(scene: Scene) -> Page:
    """Something in the browser changes what it sends."""
    page = scene.stranger.open(scene.challenge()[1]["url"])
    page.evaluate("document.querySelector('[name=csrfmiddlewaretoken]').value = 'changed'")
    page.locator("main form button").first.click()
    page.wait_for_load_state()
    return page


@state("errors/404.html", 404)
def error_404(scene: Scene) -> Page:
    """The address leads nowhere."""
    return scene.stranger.open(f"{scene.stage.addresses.product}/nowhere")


@state("errors/429.html", 429)
def error_429(scene: Scene) -> Page:
    """The page was loaded more than 60 times in a minute, which is not just over: its limit would begin anew."""
    _, challenge = scene.challenge()
    seconds_left = 0
    while seconds_left < SECONDS_TO_OPEN:
        refused = scene.stranger.context.request.get(challenge["url"])
        seconds_left = int(refused.headers.get("retry-after", 0))
    return scene.stranger.open(challenge["url"])


@state("errors/500.html", 500)
def error_500(scene: Scene) -> Page:
    """A fault of ours."""
    _, challenge = scene.challenge()
    scene.rewrite(challenge, "status = 'unheard-of'")
    return scene.stranger.open(challenge["url"])


@state("errors/503.html", 503)
def error_503(scene: Scene) -> Page:
    """The database does not take what the page writes."""
    page = scene.stranger.open(scene.challenge()[1]["url"])
    with scene.locked():
        page.locator("main form button").first.click(timeout=40_000)
        page.wait_for_load_state(timeout=40_000)
        return page
