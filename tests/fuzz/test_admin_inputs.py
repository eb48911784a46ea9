"""Whatever an admin, or an issuer's metadata, or a configuration file says: taken and usable, or refused in words.

N1, N3, B20, C6, E16: what was accepted can be stored, and a consumer can be sent to it; what was refused leaves no row.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.exceptions import ValidationError
from django.http import HttpResponseRedirect
from hypothesis import strategies as st

from brands.audited_changes import save_audited
from brands.configuration_file import ConfigurationRefused, apply_configuration, read_configuration
from brands.forms import AuthorizationServerForm
from brands.models import AuthorizationServer, Brand
from brands.models.same_person import validate_same_person_checks
from oauth_client import DiscoveryFailed, ServerMetadata, authorization_url, transport, validators
from oauth_client.discovery import read_metadata
from tests.brands.id_tokens import KeyServer
from tests.fuzz.cases import ANY_TEXT, BROKEN_TEXT, DEEP_JSON, JSON_VALUES, LONG_TEXT, as_json, fuzzed, rolled_back

pytestmark = pytest.mark.timeout(900)

# The readers of QueryDict and TOML let no lone surrogate through; every other character may come.
TEXT: Final = ANY_TEXT | LONG_TEXT
ADDRESS_PARTS: Final = st.sampled_from(
    [
        *("https://", "http://", "HTTPS://", "//", "login.acme.example", "xn--bcher-kva.example", "user:password@"),
        *("localhost", "127.0.0.1", "[::1]", "[::ffff:7f00:1]", "2130706433", "0x7f.1", ":443", ":22", ":99999", ":"),
        *(
            "/",
            "/token",
            "?",
            "?a=b",
            "?state=x",
            "#",
            "\\",
            "%",
            "%2F",
            "%00",
            " ",
            "\t",
            "\n",
            "\0",
            "@",
            "é",
            "。",
            "..",
        ),
    ]
)
ADDRESSES: Final = (
    st.lists(ADDRESS_PARTS, min_size=1, max_size=6).map("".join)
    | st.sampled_from(["https://login.acme.example/x", "https://rival.example", "http://127.0.0.1:1/x"])
    | TEXT
)
NAMES: Final = [field.name for field in AuthorizationServer._meta.get_fields() if hasattr(field, "attname")]
GOOD_FORM: Final[dict[str, Any]] = {
    "key": "shop",
    "is_active": "on",
    "issuer": "https://login.acme.example",
    "authorization_endpoint": "https://login.acme.example/authorize",
    "token_endpoint": "https://login.acme.example/token",
    "jwks_uri": "https://login.acme.example/jwks",
    "client_id": "consumer-delegation",
    "client_secret": "a-secret",
    "token_endpoint_auth_method": "client_secret_basic",
    "basic_encoding": "form",
    "scope": "openid orders.read",
    "prompt": "login",
    "same_person_checks": ["completion_code"],
    "default_check": "completion_code",
    "subject_claim": "sub",
    "id_token_signing_alg_values": ["RS256"],
    "extra_authorization_parameters": "{}",
    "default_token_lifetime": "3600",
    "max_token_lifetime": "86400",
    "challenge_lifetime": "900",
}
FORM_VALUES: Final = (
    ADDRESSES
    | st.sampled_from(
        ["", "none", "private_key_jwt", "chat_page", "expected_subject", "openid", "-1", "1e9", "9" * 400]
    )
    | st.integers().map(str)
    | st.lists(TEXT | st.sampled_from(["none", "chat_page", "HS256", "completion_code"]), max_size=3)
    | (JSON_VALUES | st.dictionaries(TEXT, TEXT, max_size=3)).map(json.dumps)
)
CHANGES: Final = st.dictionaries(st.sampled_from([*NAMES, "client_secret", "default_check"]), FORM_VALUES, max_size=2)


def is_taken(validate: Any, value: Any) -> bool:
    """Tell whether a validator takes a value; what it raises otherwise has words and a code."""
    try:
        validate(value)
    except ValidationError as refused:
        return not (refused.messages and refused.code)
    return True


@fuzzed(200, 16_000, address=ADDRESSES | BROKEN_TEXT)
def test_any_address(address: str) -> None:
    """N1: whatever is taken is read in one way, and leads to a named host or to this machine."""
    for validate in (
        validators.validate_endpoint,
        validators.validate_authorization_endpoint,
        validators.validate_issuer,
    ):
        if is_taken(validate, address):
            parts = urlsplit(address)
            assert parts.hostname
            assert (parts.username, parts.password, parts.fragment) == (None, None, "")
            assert parts.scheme == "https" or parts.hostname in {"localhost", "127.0.0.1", "::1"}
            assert address.isascii()


@fuzzed(100, 8_000, value=JSON_VALUES | st.dictionaries(BROKEN_TEXT, BROKEN_TEXT, max_size=3), text=BROKEN_TEXT)
def test_any_value_of_a_list_or_a_dictionary(value: Any, text: str) -> None:
    """B20, E16."""
    is_taken(validators.validate_scope, text)
    is_taken(validators.validate_id_token_algorithms, value)
    is_taken(validate_same_person_checks, value)
    if is_taken(validators.validate_extra_authorization_parameters, value):
        assert not any(validators.is_reserved_parameter(name) for name in value)


@fuzzed(
    100,
    10_000,
    members=st.dictionaries(
        st.sampled_from(list(ServerMetadata.__dataclass_fields__)), ADDRESSES | JSON_VALUES, max_size=4
    ),
    raw=st.none() | DEEP_JSON | st.binary(max_size=60),
)
def test_any_metadata(members: dict[str, Any], raw: bytes | None) -> None:
    """C6."""
    issuer = "https://login.acme.example"
    try:
        metadata = read_metadata(issuer, as_json({"issuer": issuer, **members}) if raw is None else raw)
    except DiscoveryFailed:
        return
    assert metadata.issuer == issuer


@pytest.fixture(autouse=True, scope="module")
def _no_metadata_anywhere() -> Iterator[None]:
    """Let every issuer answer that it has none."""
    with mock.patch.object(transport, "adapter_for", return_value=KeyServer(status=404)):
        yield


def check_usable(server: AuthorizationServer) -> None:
    """Send a consumer to a server as it was stored."""
    stored = AuthorizationServer.objects.get(pk=server.pk)
    configuration = stored.configuration(stored.scope)
    url = authorization_url(configuration, state="state", nonce="nonce", code_challenge="challenge")
    assert HttpResponseRedirect(url)["Location"]
    # The address is written once for a configuration. With another kind of text it is written anew.
    anew = {"state": "state~", "nonce": "nonce~", "code_challenge": "challenge~"}
    assert authorization_url(configuration, **anew) == re.sub("(=state|=nonce|=challenge)(?=&|$)", r"\1~", url)
    query = parse_qs(urlsplit(url).query)
    assert (query["state"], query["redirect_uri"]) == (["state"], [stored.redirect_uri])
    assert stored.default_same_person_check in stored.same_person_checks
    stored.reveal_credentials()


@fuzzed(80, 5_000, changes=CHANGES, left_out=st.sets(st.sampled_from(list(GOOD_FORM)), max_size=1))
@pytest.mark.django_db
def test_any_form(acme: Brand, changes: dict[str, Any], left_out: set[str]) -> None:
    """N1, H7: the form of the admin, some fields of which hold anything, or nothing."""
    kept = {name: value for name, value in GOOD_FORM.items() if name not in left_out}
    form = AuthorizationServerForm({"brand": str(acme.pk), **kept, **changes}, instance=AuthorizationServer())
    form.signed_in_recently = True
    with rolled_back():
        if not form.is_valid():
            assert form.errors
            assert not AuthorizationServer.objects.exists()
            return
        server = form.save(commit=False)
        form.apply_secret()
        save_audited(server)
        check_usable(server)


# Texts as TOML writes them, values of every other type, and text that is no TOML at all.
TOML_VALUES: Final = (
    (ADDRESSES | TEXT).map(lambda text: json.dumps(text.replace("\x7f", ""), ensure_ascii=False))
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["true", "2026-01-01", "00:00:00", "0000-00-00", "[]", '["none"]', "{}", "{a = 1}", "nan"])
    | st.sampled_from(["9" * 5000, "[" * 3000, '"\\ud800"', '"\\u0000"', "0x" + "f" * 6000, '{"state" = "x"}'])
)
TOML_NAMES: Final = st.sampled_from([*NAMES, "client_secret", "client_secret_env", "unknown", '"\\u0000"', "a.b.c"])
GOOD_TOML: Final = """[brand]
slug = "shop"
name = "Shop"
[[authorization_servers]]
"""


@fuzzed(80, 5_000, members=st.dictionaries(TOML_NAMES, TOML_VALUES, max_size=2), more=st.just("") | TEXT | TOML_VALUES)
@pytest.mark.django_db
def test_any_configuration_file(members: dict[str, str], more: str) -> None:
    """N1: applied whole, or not at all."""
    good = {
        "key": '"orders"',
        "authorization_endpoint": '"https://login.acme.example/authorize"',
        "token_endpoint": '"https://login.acme.example/token"',
        "client_id": '"consumer-delegation"',
        "client_secret": '"a-secret"',
    }
    text = GOOD_TOML + "\n".join(f"{name} = {value}" for name, value in {**good, **members}.items()) + f"\n{more}"
    with rolled_back():
        try:
            applied = apply_configuration(read_configuration(text))
        except ConfigurationRefused:
            assert not Brand.objects.exists()
            return
        assert applied["brand"] == "shop"
        for server in AuthorizationServer.objects.all():
            check_usable(server)
