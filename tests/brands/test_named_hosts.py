"""A base URL whose host a token response names: whatever the response says, the request stays below the suffix (P2)."""

import json
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from brands.api_operations import validate_api_address
from brands.models import BrandAPI
from brands.operation_requests import HostNotNamed, at_named_host, host_named_for
from infrastructure.crypto import Secret
from oauth_client.resource_server import ResourceRequest
from tests.brands.test_api_operations import code_of

SUFFIX: Final = ".my.salesforce.com"
API: Final = BrandAPI(base_url="https://*.my.salesforce.com/services/data", host_member="instance_url")
REQUEST: Final = ResourceRequest("GET", f"{API.base_url}/v60.0/query?q=%40rival.example%3A8443")


def members(value: Any) -> Secret:
    return Secret(json.dumps({"instance_url": value, "other": "https://other.my.salesforce.com"}))


def address_for(value: Any) -> str:
    return at_named_host(REQUEST, API, members(value)).url


def refused(value: Any, api: BrandAPI = API) -> str:
    with pytest.raises(HostNotNamed) as refusal:
        host_named_for(api, members(value))
    return refusal.value.reason


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("https://acme.my.salesforce.com", "acme.my.salesforce.com"),
        ("https://acme.my.salesforce.com/", "acme.my.salesforce.com"),
        ("https://acme.my.salesforce.com:443", "acme.my.salesforce.com"),
        ("acme.my.salesforce.com", "acme.my.salesforce.com"),
        ("HTTPS://Acme.My.Salesforce.COM", "acme.my.salesforce.com"),
        ("https://acme--dev.sandbox.my.salesforce.com", "acme--dev.sandbox.my.salesforce.com"),
        ("https://xn--bcher-kva.my.salesforce.com", "xn--bcher-kva.my.salesforce.com"),
    ],
)
def test_a_host_below_the_suffix_is_called(value: str, host: str) -> None:
    """P2: the path and the query stay as they were built."""
    assert address_for(value) == f"https://{host}/services/data/v60.0/query?q=%40rival.example%3A8443"


@pytest.mark.parametrize(
    "value",
    [
        # Another host, or more than one label's difference to the suffix.
        "https://rival.example", "https://my.salesforce.com", "my.salesforce.com", "https://evilmy.salesforce.com",
        "https://acme.my.salesforce.com.rival.example", "https://acme.my-salesforce.com", "https://.my.salesforce.com",
        "https://acme..my.salesforce.com", "https://-acme.my.salesforce.com", "https://acme-.my.salesforce.com",
        # Another parser would see another host.
        "https://rival.example/.my.salesforce.com", "https://rival.example#.my.salesforce.com",
        "https://rival.example?.my.salesforce.com", "https://rival.example\\.my.salesforce.com",
        "https://rival.example@acme.my.salesforce.com", "https://a:b@acme.my.salesforce.com",
        "//acme.my.salesforce.com",
        "https://rival.example%2f.my.salesforce.com", "https://rival.example%00.my.salesforce.com",
        "https://rival.example\x00.my.salesforce.com", "https:/acme.my.salesforce.com", "https:acme.my.salesforce.com",
        # What is no plain host below https.
        "http://acme.my.salesforce.com", "ftp://acme.my.salesforce.com", "https://acme.my.salesforce.com.",
        "https://acme.my.salesforce.com/path", "https://acme.my.salesforce.com//", "https://acme.my.salesforce.com/?",
        "https://acme.my.salesforce.com:8443", "https://acme.my.salesforce.com:80", "https://acme.my.salesforce.com:",
        "https://acme.my.salesforce.com:443:443", " https://acme.my.salesforce.com", "https://acme.my.salesforce.com\n",
        "https://acme.my.salesforce.com https://rival.example", "https://ac me.my.salesforce.com", "", "https://", "*",
        "https://*.my.salesforce.com", "https://acme_1.my.salesforce.com", "https://bücher.my.salesforce.com",
        # The Kelvin sign and full-width letters are ASCII after `lower` or NFKC.
        "https://acme.my.sales\u212aorce.com", "https://acme\uff0emy.salesforce.com", "https://acme\u3002my.salesforce.com",
        "https://10.0.0.1", "https://[::1]", "https://127.1", "https://2130706433", "169.254.169.254",
        f"https://{'a' * 64}.my.salesforce.com", f"https://{'a.' * 130}my.salesforce.com",
        # No text at all.
        7, True, ["https://acme.my.salesforce.com"], {"url": "https://acme.my.salesforce.com"},
    ],
)  # fmt: skip
def test_everything_else_is_refused(value: Any) -> None:
    """P2: the server's answer, or whoever can change it, cannot send the token elsewhere."""
    assert refused(value) == "host_not_below_suffix"


def test_the_longest_host_is_called_and_a_longer_one_is_not() -> None:
    """P2: of the longest name that the DNS has (RFC 1035 section 2.3.4)."""
    suffix = ".my.salesforce.com"
    longest = ".".join(["a" * 58] * 4) + suffix
    assert (len(longest), host_named_for(API, members(longest))) == (253, longest)
    assert refused(f"c{longest}") == "host_not_below_suffix"


def test_without_the_member_no_host_is_guessed() -> None:
    """P2."""
    assert refused(None) == "host_member_missing"
    with pytest.raises(HostNotNamed):
        host_named_for(API, None)
    with pytest.raises(HostNotNamed):
        host_named_for(BrandAPI(base_url=API.base_url), members("https://acme.my.salesforce.com"))


def test_a_declared_port_is_the_only_one() -> None:
    """P2: ports other than 443 are declared for loopback only."""
    api = BrandAPI(base_url="https://*.shop.localhost:8443/v1", host_member="instance_url")
    request = ResourceRequest("GET", "https://*.shop.localhost:8443/v1/orders")
    for value in ("https://acme.shop.localhost:8443", "https://acme.shop.localhost"):
        assert at_named_host(request, api, members(value)).url == "https://acme.shop.localhost:8443/v1/orders"
    assert refused("https://acme.shop.localhost:443", api) == "host_not_below_suffix"


def test_an_api_with_a_host_of_its_own_stays_there() -> None:
    """P2: whatever the token response says."""
    api = BrandAPI(base_url="https://api.acme.example", host_member="instance_url")
    assert at_named_host(REQUEST, api, members("https://rival.example")) is REQUEST


PIECES: Final = st.sampled_from(
    [
        *("https://", "http://", "rival.example", "acme", ".my.salesforce.com", "my.salesforce.com", ".", "/", "\\"),
        *("@", "#", "?", ":", ":443", ":8443", "%2f", "%00", "*", "[::1]", "127.0.0.1", "xn--a", "-"),
        *("\u212a", "\uff0e", "\n", "\t", " "),
    ]
)
VALUES: Final = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.text(max_size=40).map(lambda text: f"https://{text}{SUFFIX}"),
    st.text(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists, max_leaves=4
    ),
)


@given(VALUES)
def test_whatever_the_value_is_the_host_ends_in_the_suffix(value: Any) -> None:
    """P2: for both parsers, and nothing else of the address changes."""
    try:
        url = address_for(value)
    except HostNotNamed:
        return
    seen = urlsplit(url)
    assert seen.hostname == parse_url(url).host
    assert (seen.scheme, seen.port, seen.username, seen.password) == ("https", None, None, None)
    assert str(seen.hostname).endswith(SUFFIX)
    assert str(seen.hostname).removesuffix(SUFFIX)
    assert (seen.path, seen.query, seen.fragment) == ("/services/data/v60.0/query", "q=%40rival.example%3A8443", "")


@given(st.lists(st.sampled_from(["acme", "a-b", "xn--a", "1"]), min_size=1, max_size=4))
def test_every_plain_host_below_the_suffix_passes(labels: list[str]) -> None:
    host = ".".join(labels) + SUFFIX
    assert urlsplit(address_for(f"https://{host}")).hostname == host


@pytest.mark.parametrize(
    ("base_url", "code"),
    [
        ("https://*.my.salesforce.com/services", None),
        ("https://*.acme.co.uk", None),
        ("https://*.My.Salesforce.com", None),
        ("https://*.com", "short_suffix"),
        ("https://*.co.uk", "public_suffix"),
        ("https://*.com.au/v1", "public_suffix"),
        ("https://*.k12.ca.us", "public_suffix"),
        ("https://*.Kawasaki.jp", "public_suffix"),
        ("https://*.city.kawasaki.jp", None),
        ("https://*.gob.mx", "public_suffix"),
        ("https://*.myshopify.com", None),
        ("https://*", "endpoint_malformed"),
        ("https://*.", "endpoint_host"),
        ("https://*.*.acme.example", "endpoint_malformed"),
        ("https://api.*.acme.example", "endpoint_malformed"),
        ("https://a*.acme.example", "endpoint_malformed"),
        ("https://*acme.example", "endpoint_malformed"),
        ("http://*.acme.example", "endpoint_malformed"),
        ("https://*.acme.example:8443", "endpoint_port"),
        ("https://*.0.0.1", "endpoint_ip_address"),
        ("https://*.acme.example?a", "base_url_query"),
        ("https://api.acme.example/*./..", "base_url_path"),
        ("https://user@*.acme.example", "endpoint_userinfo"),
    ],
)
def test_a_suffix_is_whole_labels_that_belong_to_somebody(base_url: str, code: str | None) -> None:
    """P2."""
    assert code_of(validate_api_address, base_url) == code
