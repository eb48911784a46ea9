"""What the first visit of the link page costs: measured by the browser, printed when the run ends, held to bounds."""

from dataclasses import asdict, dataclass
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page

from tests import measurements
from tests.browser.profiles import code_on, profile_of
from tests.browser.stage import Stage

pytestmark = [pytest.mark.xdist_group("product_in_browser"), pytest.mark.timeout(180)]

MOST_BYTES: Final = 20_000
# A slow mobile network as browsers' own tools imitate it: 400 ms there and back, 400 kbit/s.
SLOW: Final = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
AT_ONCE: Final = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}


@dataclass(frozen=True)
class Visit:
    """One load of a page into an empty browser. Only what was asked for before the first paint delays it."""

    requests: int
    requests_before_paint: int
    bytes_over_the_wire: int
    first_paint_ms: int


def visit(page: Page, url: str, network: dict[str, Any]) -> Visit:
    """Load a page over such a network; return what it cost, headers included."""
    session = page.context.new_cdp_session(page)
    asked: list[str] = []
    received: list[int] = []
    session.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    session.on("Network.loadingFinished", lambda event: received.append(int(event["encodedDataLength"])))
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", network)
    page.goto(url, wait_until="networkidle")
    painted = page.wait_for_function("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    blocking = page.evaluate("performance.getEntries().filter(e => e.renderBlockingStatus === 'blocking').length")
    return Visit(len(asked), 1 + blocking, sum(received), round(painted.json_value()))


@pytest.mark.parametrize(("name", "network"), [("at once", AT_ONCE), ("slow 3G", SLOW)])
def test_the_first_visit_is_small(stage: Stage, chromium: Browser, name: str, network: dict[str, Any]) -> None:
    """One request stands before the first paint, so that it comes after one round trip even on a train."""
    challenge = stage.bot("completion_code").challenge(purpose="to look up your order")
    with profile_of(chromium, stage, viewport={"width": 360, "height": 640}) as nobody:
        cost = visit(nobody.context.new_page(), challenge["url"], network)
    measurements.note("first visit of the link page", name, asdict(cost))
    assert cost.bytes_over_the_wire < MOST_BYTES
    assert cost.requests_before_paint == 1
    assert cost.requests <= 3  # the page, then the logo and the icon


def test_on_a_slow_network_the_whole_way_works(stage: Stage, chromium: Browser, signed_in: dict[str, Any]) -> None:
    bot = stage.bot("completion_code")
    with profile_of(chromium, stage, signed_in["victor"]) as victor:
        page = victor.context.new_page()
        session = victor.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", SLOW)
        page.goto(bot.challenge()["url"])
        page.locator("main form button").first.click()
        assert bot.complete(code=code_on(page)).status == 200
