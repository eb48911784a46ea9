"""WSGI variables by which what answers before Django's handler says what it has done."""

from typing import Final

# The name of the route and the status of what was answered.
ANSWERED_BEFORE: Final = "consumer_delegation.answered_before"
# The exception that ended a fast path. It is raised again where every call begins, so that nothing is counted, asked or
# sent twice.
FAILED_BEFORE: Final = "consumer_delegation.failed_before"
# Whether a fast path has counted the call, and leaves the rest to the full way.
COUNTED_BEFORE: Final = "consumer_delegation.counted_before"
# The view's response, which only lacks what the middleware adds to it.
RESPONSE_BEFORE: Final = "consumer_delegation.response_before"
