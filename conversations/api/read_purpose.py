"""What a token is read for: a code such as `order.status`, which a brand can demand of each read."""

import re
from typing import Final

from django.http import HttpRequest
from django.http.request import HttpHeaders

from brands.models import Brand
from delegation_site.problems import Problem

HEADER: Final = "X-Purpose"
# Asked for by this name: `request.headers` is made anew for each request, and nothing else of a token read needs it.
_WSGI_NAME: Final = HttpHeaders.to_wsgi_name(HEADER)
PARAMETER: Final = "purpose"
# A code and no prose: it is counted, and stands in log lines.
_PURPOSE: Final = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")


def read_purpose(request: HttpRequest, brand: Brand, parameter: str | None = None) -> str:
    """Return the purpose of the header or of the query; empty where none is named and none is needed.

    Raises `Problem`.
    """
    header: str | None = request.META.get(_WSGI_NAME)
    purpose = parameter if header is None else header
    if None not in {header, parameter} and header != parameter:
        raise Problem(422, "invalid_purpose", f"{HEADER} and {PARAMETER} name different purposes. Send one of them.")
    if not purpose and brand.token_read_purpose_required:
        raise Problem(422, "purpose_required", f"This brand demands a purpose of each token read: send {HEADER}.")
    if purpose is None:
        return ""
    if not _PURPOSE.fullmatch(purpose):
        detail = "A purpose has 1 to 64 characters of a-z 0-9 _ . : - and begins with a letter or a digit."
        raise Problem(422, "invalid_purpose", detail)
    return purpose
