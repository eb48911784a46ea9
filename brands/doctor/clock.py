"""Compare a server's clock with ours."""

from collections.abc import Iterator
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from django.utils import timezone

from brands.doctor.examination import Examination
from brands.doctor.findings import Finding, found
from brands.doctor.table import Verdict

# ID tokens are refused beyond this (`oauth_client.id_token`).
_TOLERATED_SKEW: Final = timedelta(seconds=60)


def clock(examination: Examination, date: str) -> Iterator[Finding]:
    """Compare clocks by the `Date` of an answer that no cache stored."""
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return
    # RFC 9110 section 5.6.7 requires GMT, so a date without a zone counts as GMT.
    ahead = (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)) - timezone.now()
    if abs(ahead) <= _TOLERATED_SKEW:
        return
    configuration = examination.configuration
    signs = configuration.token_endpoint_auth_method == "private_key_jwt"
    fails = signs or (configuration.uses_openid and ahead > _TOLERATED_SKEW)
    effect = "What one signs, the other refuses." if fails else "Sign-ins may fail."
    seconds = int(abs(ahead).total_seconds())
    yield found("clock_differs", Verdict.PROBLEM if fails else Verdict.NOTE, seconds=seconds, effect=effect)
