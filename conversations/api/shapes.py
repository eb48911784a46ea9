"""What bots send, as typed shapes. The contract (`openapi.yaml`) is held against these by tests."""

from typing import Annotated

from msgspec import Meta, Struct

from brands.validators import MAX_SCOPE_LENGTH

Key = Annotated[str, Meta(max_length=64)]
ScopeText = Annotated[str, Meta(max_length=MAX_SCOPE_LENGTH)]


class ChallengeBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../challenges`; every field is optional."""

    authorization_server: Key = ""
    same_person_check: Annotated[str, Meta(max_length=24)] = ""
    expected_subject: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    scope: ScopeText = ""
    purpose: Annotated[
        str, Meta(max_length=140, pattern=r"^[^\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z")
    ] = ""
    locale: Annotated[str, Meta(pattern=r"^(?:[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3})?\Z")] = ""
    context: Annotated[str, Meta(max_length=1024)] | None = None
    replace: bool = False


class AuthorizeBody(ChallengeBody, kw_only=True, forbid_unknown_fields=True):
    """`POST .../authorize`: the same, and how long the token must live."""

    # A whole number in either spelling: 30.0 is an integer for JSON, and so for whoever holds us to the contract.
    min_ttl: Annotated[float, Meta(ge=0, le=3600, multiple_of=1)] = 0


class CompletionBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST .../completion`: a code or a handle."""

    code: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    handle: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    authorization_server: Key = ""

    def __post_init__(self) -> None:
        """Refuse both and neither. msgspec makes it the answer to the call."""
        if (self.code is None) == (self.handle is None):
            raise ValueError("Give either `code` or `handle`")
