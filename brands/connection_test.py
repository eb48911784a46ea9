"""Does an authorization server answer us? For the admin, and without becoming a scanner of our network (N9)."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from brands import transport
from brands.models import AuthorizationServer

# Every failure is told after exactly so long: an address that is blocked, a port that is closed and a host that drops
# packets look alike, also on a stopwatch. Padding alone could not do that, since a time-out has no upper bound that a
# slow resolver keeps; so nobody waits for the call itself, and what comes later than this counts as no answer. A
# success is told at once: that something answers is what the button is for.
SECONDS_UNTIL_NO: Final = 5.0
# Calls that nobody waits for any more end by the transport's own deadline. While both threads are taken the answer is
# no, in the same time.
_callers: Final = ThreadPoolExecutor(max_workers=2, thread_name_prefix="connection-test")


def server_answers(server: AuthorizationServer) -> bool:
    """Fetch the JWKS, or the token endpoint where there is none; tell whether any HTTP answer came, nothing more."""
    no_at = time.monotonic() + SECONDS_UNTIL_NO
    call: Future[bool] = _callers.submit(_answers, server.jwks_uri or server.token_endpoint)
    try:
        answered = call.result(timeout=SECONDS_UNTIL_NO)
    except TimeoutError:
        call.cancel()
        return False
    if not answered:
        time.sleep(max(0.0, no_at - time.monotonic()))
    return answered


def _answers(url: str) -> bool:
    try:
        transport.get(url)
    except transport.OutboundError:
        return False
    return True
