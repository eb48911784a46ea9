"""The validators of admin input, and their messages."""

from urllib.parse import urlsplit

import pytest
from django.core.exceptions import ValidationError
from pytest_django import Settings

from oauth_client import urls, validators

GOOD_ENDPOINTS = [
    "https://login.acme.example",
    "https://login.acme.example/",
    "https://login.acme.example:443/oauth2/token",
    "https://Login.Acme.example/realms/a%20b/token?tenant=acme&x=1",
    "https://xn--bcher-kva.example/token",
    "https://a.b.c.d.e.example/~user/;v=1/token.php",
]
LOCAL_ENDPOINTS = [
    "http://localhost:8001/token",
    "https://localhost/token",
    "http://brand.localhost:8001/token",
    "http://127.0.0.1:8001/token",
    "https://127.8.9.10/token",
    "http://[::1]:8001/token",
]
BAD_ENDPOINTS = [
    ("", "endpoint_malformed"),
    ("login.acme.example", "endpoint_malformed"),
    ("//login.acme.example/", "endpoint_malformed"),
    ("https:/login.acme.example/", "endpoint_malformed"),
    ("https:///token", "endpoint_malformed"),
    ("http://login.acme.example/token", "endpoint_scheme"),
    ("ftp://login.acme.example/token", "endpoint_scheme"),
    ("javascript://login.acme.example/%0aalert(1)", "endpoint_scheme"),
    ("https://user:password@login.acme.example/", "endpoint_userinfo"),
    ("https://user@login.acme.example/", "endpoint_userinfo"),
    ("https://login.acme.example/#frag", "endpoint_fragment"),
    ("https://login.acme.example/#", "endpoint_fragment"),
    ("https://host.example\\@127.0.0.1/", "endpoint_characters"),
    ("https://login.acme.example/to ken", "endpoint_characters"),
    (" https://login.acme.example/", "endpoint_characters"),
    ("https://login.acme.example/\r\nHost: x", "endpoint_characters"),
    ("https://login.acme.example/\n", "endpoint_characters"),
    ("https://login.ac\tme.example/", "endpoint_characters"),
    ("https://login.acme.example/\x00", "endpoint_characters"),
    ("https://b\u00fccher.example/", "endpoint_characters"),
    ("https://login.acme\u3002example/", "endpoint_characters"),
    ("https://login.acme.example/a%2", "endpoint_malformed"),
    ("https://login.acme.example/a%zz", "endpoint_malformed"),
    ("https://login.acme.example/<a>", "endpoint_malformed"),
    ("https://login.acme.example:/", "endpoint_malformed"),
    ("https://login.acme.example:port/", "endpoint_malformed"),
    ("https://login.acme.example:70000/", "endpoint_malformed"),
    ("https://[::1/", "endpoint_malformed"),
    ("https://[1:2]/", "endpoint_malformed"),
    ("https://login.acme.example:22/", "endpoint_port"),
    ("https://login.acme.example:8443/", "endpoint_port"),
    ("https://login.acme.example:0/", "endpoint_port"),
    ("https://8.8.8.8/", "endpoint_ip_address"),
    ("https://127.0.0.1/", "endpoint_ip_address"),
    ("https://[::1]/", "endpoint_ip_address"),
    ("https://[2606:4700::1111]/", "endpoint_ip_address"),
    ("https://2130706433/", "endpoint_ip_address"),
    ("https://127.1/", "endpoint_ip_address"),
    ("https://0x7f.1/", "endpoint_ip_address"),
    ("https://0177.0.0.1/", "endpoint_ip_address"),
    ("https://127.0.0.1./", "endpoint_ip_address"),
    ("https://localhost/", "endpoint_local"),
    ("https://brand.localhost/", "endpoint_local"),
    ("https://intranet/", "endpoint_host"),
    ("https://login.acme.example./", "endpoint_host"),
    ("https://login..example/", "endpoint_host"),
    ("https://-login.example/", "endpoint_host"),
    (f"https://{'a' * 64}.example/", "endpoint_host"),
    (f"https://{'a.' * 125}example/", "endpoint_host"),
    (f"https://login.acme.example/{'a' * 2048}", "endpoint_too_long"),
]


@pytest.fixture(autouse=True)
def _no_local_endpoints(settings: Settings) -> None:
    settings.ALLOW_LOCAL_ENDPOINTS = False


def code_of(refused: pytest.ExceptionInfo[ValidationError]) -> str | None:
    """Return the error's code, after a check of its message."""
    assert refused.value.message.endswith((".", "_ -"))
    assert "!" not in refused.value.message
    return refused.value.code


@pytest.mark.parametrize("value", GOOD_ENDPOINTS)
def test_a_public_https_endpoint_is_accepted(value: str) -> None:
    validators.validate_endpoint(value)


@pytest.mark.parametrize(("value", "code"), BAD_ENDPOINTS)
def test_every_other_endpoint_is_refused(value: str, code: str) -> None:
    """N1: https only, a DNS name, port 443, no userinfo, fragment, backslash or control character, and a length cap."""
    with pytest.raises(ValidationError) as refused:
        validators.validate_endpoint(value)

    assert code_of(refused) == code


@pytest.mark.parametrize(
    "other", ["https://rival.example/", "https://login.acme.example:444/", "http://login.acme.example/"]
)
def test_what_two_parsers_read_differently_is_refused(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """N1: today's parsers agree on all that passes the strict one; the next Python's may not."""
    urls.read_url.cache_clear()
    monkeypatch.setattr(urls, "urlsplit", lambda _value: urlsplit(other))

    with pytest.raises(ValidationError) as refused:
        validators.validate_endpoint("https://login.acme.example/")

    assert code_of(refused) == "endpoint_malformed"


@pytest.mark.parametrize("value", LOCAL_ENDPOINTS)
def test_loopback_is_refused_in_production(value: str) -> None:
    """N1: tests and demo need loopback; nobody else does."""
    with pytest.raises(ValidationError):
        validators.validate_endpoint(value)


@pytest.mark.parametrize("value", LOCAL_ENDPOINTS)
def test_loopback_is_accepted_where_local_endpoints_are_allowed(value: str, settings: Settings) -> None:
    settings.ALLOW_LOCAL_ENDPOINTS = True

    validators.validate_endpoint(value)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("http://login.acme.example/token", "endpoint_scheme"),
        ("https://login.acme.example:8443/token", "endpoint_port"),
        ("https://10.0.0.1/token", "endpoint_ip_address"),
        ("http://0.0.0.0:8001/token", "endpoint_scheme"),
        ("http://127.1:8001/token", "endpoint_scheme"),
        ("http://localhost.example:8001/token", "endpoint_scheme"),
        ("ftp://localhost/token", "endpoint_scheme"),
        ("http://user@localhost:8001/token", "endpoint_userinfo"),
        ("http://localhost:8001/#x", "endpoint_fragment"),
    ],
)
def test_allowed_local_endpoints_loosen_nothing_else(value: str, code: str, settings: Settings) -> None:
    """N1: the setting is about loopback hosts alone."""
    settings.ALLOW_LOCAL_ENDPOINTS = True

    with pytest.raises(ValidationError) as refused:
        validators.validate_endpoint(value)

    assert code_of(refused) == code


@pytest.mark.parametrize("value", ["https://login.acme.example", "https://login.acme.example/", "https://a.example/x/"])
def test_an_issuer_is_an_https_address(value: str) -> None:
    validators.validate_issuer(value)


@pytest.mark.parametrize("value", ["https://login.acme.example?tenant=1", "https://login.acme.example/?"])
def test_an_issuer_has_no_query(value: str) -> None:
    """RFC 8414 section 2."""
    with pytest.raises(ValidationError) as refused:
        validators.validate_issuer(value)

    assert code_of(refused) == "issuer_query"


def test_an_issuer_is_an_endpoint_first() -> None:
    with pytest.raises(ValidationError) as refused:
        validators.validate_issuer("http://login.acme.example")

    assert code_of(refused) == "endpoint_scheme"


@pytest.mark.parametrize("query", ["response_mode=form_post", "a=b&state=fixed", "Client_ID=x", "request="])
def test_an_authorization_endpoint_must_not_bring_our_parameters_along(query: str) -> None:
    """B20: RFC 6749 section 3.1 keeps the endpoint's own query, so it could override ours as well as a field could."""
    with pytest.raises(ValidationError) as refused:
        validators.validate_authorization_endpoint(f"https://login.acme.example/authorize?{query}")

    assert code_of(refused) == "reserved_parameter"


def test_an_authorization_endpoint_keeps_a_query_of_its_own() -> None:
    validators.validate_authorization_endpoint("https://login.acme.example/authorize?tenant=acme&p=B2C_1_signin")


def test_extra_authorization_parameters_are_names_and_texts() -> None:
    validators.validate_extra_authorization_parameters({})
    validators.validate_extra_authorization_parameters(
        {"audience": "orders", "ui_locales": "de en", "claims": '{"id_token":{}}', "grant_options[]": "per-user"}
    )


@pytest.mark.parametrize(
    "name",
    [
        *("state", "redirect_uri", "client_id", "response_type", "scope", "prompt", "max_age", "nonce"),
        *("code_challenge", "code_challenge_method", "code_challenge_x", "request", "request_uri", "response_mode"),
        *(
            "client_secret",
            "code",
            "code_verifier",
            "client_assertion",
            "client_assertion_type",
            "STATE",
            "Redirect_Uri",
            "resource",
            "Resource",
            "state[]",
            "Redirect_URI[]",
            "code_challenge[]",
        ),
    ],
)
def test_extra_parameters_cannot_be_ours(name: str) -> None:
    """B20, and B4 for response_mode."""
    with pytest.raises(ValidationError) as refused:
        validators.validate_extra_authorization_parameters({"audience": "orders", name: "x"})

    assert code_of(refused) == "reserved_parameter"


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "audience=orders",
        {"audience": 1},
        {"audience": None},
        {"audience": ["orders"]},
        {"audience": ""},
        {"audience": "a" * 1001},
        {"audience": "a\nb"},
        {"audience": "\ud800"},
        {"": "x"},
        {"au dience": "x"},
        {"a&b": "x"},
        {"[]": "x"},
        {"a[b]": "x"},
        {"a[][]": "x"},
        {1: "x"},
        {f"name{number}": "x" for number in range(21)},
    ],
)
def test_anything_else_is_no_extra_parameter(value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        validators.validate_extra_authorization_parameters(value)

    assert code_of(refused) == "invalid_extra_parameters"


@pytest.mark.parametrize(
    "value", ["", "openid", "openid orders.read", "https://api.example/orders:read", "a,b", "!#[]~"]
)
def test_a_scope_is_a_list_with_single_spaces(value: str) -> None:
    validators.validate_scope(value)


@pytest.mark.parametrize("value", [" ", " openid", "openid ", "a  b", "a\tb", "a\nb", 'a"b', "a\\b", "ä", "a\x7f"])
def test_other_scopes_are_refused(value: str) -> None:
    """RFC 6749 section 3.3."""
    with pytest.raises(ValidationError) as refused:
        validators.validate_scope(value)

    assert code_of(refused) == "invalid_scope"


@pytest.mark.parametrize("value", [["RS256"], ["RS512", "ES256", "PS384", "EdDSA"], ["HS256"]])
def test_id_token_algorithms_are_known_signatures(value: list[str]) -> None:
    validators.validate_id_token_algorithms(value)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (["none"], "algorithm_none"),
        (["RS256", "None"], "algorithm_none"),
        (["NONE"], "algorithm_none"),
        (["HS384"], "unknown_algorithm"),
        (["rs256"], "unknown_algorithm"),
        (["RS256", ""], "unknown_algorithm"),
        ([], "invalid_algorithms"),
        (["RS256", "RS256"], "invalid_algorithms"),
        ([256], "invalid_algorithms"),
        ("RS256", "invalid_algorithms"),
        (None, "invalid_algorithms"),
    ],
)
def test_other_id_token_algorithms_are_refused(value: object, code: str) -> None:
    """E16: never `none`."""
    with pytest.raises(ValidationError) as refused:
        validators.validate_id_token_algorithms(value)

    assert code_of(refused) == code
