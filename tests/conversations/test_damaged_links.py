"""Links and receipts that something was added to on their way lead on to the clean address, dead or alive (G9)."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations.links import intended_url
from tests.cast import HOST, Bot, Browser, code_on, heading_of
from tests.fake_authorization_server import FakeAuthorizationServer

pytestmark = pytest.mark.django_db

TOKEN = "aB3_cD4-eF5gH6iJ7kL8mN9oP0q"
OWN_MARKS = "_B3_cD4-eF5gH6iJ7kL8mN9oP0-"
RECEIPT = TOKEN + "rS1tU2vW3xY4zA5_"

WRAPPED = ("%0a", "%0d%0a", "%20", "=%0d%0a", "%c2%ad", "%e2%80%8b", "%0a%20%20")
DASHES = ("%e2%80%91", "%e2%80%90", "%e2%80%93", "%5c-", "/-", "%e2%88%92")
# As Chinese and Japanese keyboards type it.
FULL_WIDTH = "".join(f"%ef%bc%{ord(letter) + 0x60:x}" if letter.isdigit() else letter for letter in TOKEN)

# As browsers send them: percent-encoded, `\` made a slash. In small letters, which read as no id of a requirement.
AFTER = [
    *(
        ".",
        ",",
        ")",
        "]",
        "}",
        ">",
        "<",
        '"',
        "'",
        "*",
        "**",
        "~",
        "`",
        "|",
        "!",
        ";",
        ":",
        "=",
        "+",
        "$",
        "@",
        "/",
        "//",
    ),
    *(
        "%20",
        "%09",
        "%0a",
        "%0d%0a",
        "%00",
        "%22",
        "%3e",
        "%3c",
        "%5d",
        "%7d",
        "%60",
        "%5c",
        "%23",
        "%3f",
        "%3futm=1",
        "%25",
    ),
    *("%c2%a0", "%e2%80%8b", "%e2%80%8c", "%e2%80%8d", "%ef%bb%bf", "%c2%ad", "%e2%80%8e", "%e2%80%8f", "%e2%80%a9"),
    *("%e2%81%a9", "%e2%80%ae", "%e2%80%a6", "%e2%80%9d", "%e2%80%9c", "%e2%80%99", "%c2%bb", "%e2%80%ba", "%e2%80%93"),
    *("%e3%80%82", "%ef%bc%8c", "%ef%bc%89", "%ef%bc%81", "%ef%bc%9f", "%e3%80%8d", "%e3%80%91", "%d8%8c", "%d7%a9"),
    *("%f0%9f%91%8d", "%ff", "%e2%80", "&utm=1", "&amp;utm=1", "&gt;", "&quot;", "&nbsp;", ";jsessionid=1", "?utm=1"),
    *(
        "_",
        "__",
        "-",
        "--",
        "_-",
        "%20and%20then",
        "%0aand%20then",
        "Danke",
        ".%20Thanks",
        "](https://x",
        ").",
        '".',
        ">).",
    ),
    *("/index.html", "/.", "/..", "%25", "%2520", "%253E", "/nothing-of-ours", "/done-and-dusted"),
]
BEFORE = [
    "%20",
    "<",
    "(",
    "[",
    "%3c",
    '"',
    "%e2%80%9c",
    "%e2%80%8b",
    "%ef%bb%bf",
    "*",
    "_",
    "__",
    "/",
    ":",
    "=",
    "&lt;",
]


def location(browser: Browser, url: str) -> tuple[int, str | None]:
    answer = browser.client.get(f"https://{HOST}{url}", secure=True)
    return answer.status_code, answer.get("Location")


@pytest.mark.parametrize("after", AFTER)
def test_what_was_added_behind_a_link_falls_off(ada: Browser, after: str) -> None:
    """The bug: 404, "this link no longer works", about a live link."""
    url = f"/c/{TOKEN}"
    answer = location(ada, url + after)
    assert answer == (404, None) if after.startswith("?") else answer == (303, url)
    assert location(ada, f"/r/{RECEIPT}{after}")[1] == (None if after.startswith("?") else f"/r/{RECEIPT}")


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("after", ["", ".", "%20", "_"])
def test_what_was_added_before_it_too(ada: Browser, before: str, after: str) -> None:
    assert location(ada, f"/c/{before}{TOKEN}{after}") == (303, f"/c/{TOKEN}")
    assert location(ada, f"/r/{before}{RECEIPT[:-1]}Z{after}") == (303, f"/r/{RECEIPT[:-1]}Z")


@pytest.mark.parametrize(
    "url",
    [
        *(f"//c/{TOKEN}", f"///c//{TOKEN}", f"/C/{TOKEN}", f"//C/{TOKEN}."),
        *(f"/c/https://delegation.test/c/{TOKEN}", f"/c/{TOKEN}%20https://delegation.test/c/{TOKEN}"),
        *(f"/c/{TOKEN[:9]}{inside}{TOKEN[9:]}" for inside in WRAPPED),
        *(f"/c/{TOKEN.replace('_', escaped)}" for escaped in ("%5c_", "/_", "%255F")),
        *(f"/c/{TOKEN.replace('-', dash)}" for dash in DASHES),
        f"/c/{FULL_WIDTH}",
    ],
)  # fmt: skip
def test_what_came_into_its_middle_too(ada: Browser, url: str) -> None:
    """A doubled slash, a second paste, a wrapped line, escapes of Markdown, dashes and digits of a writing program."""
    assert location(ada, url) == (303, f"/c/{TOKEN}")


def test_two_hyphens_that_became_one_dash_are_two_again(ada: Browser) -> None:
    assert location(ada, "/c/aB3_cD4%e2%80%94eF5gH6iJ7kL8mN9oP0") == (303, "/c/aB3_cD4--eF5gH6iJ7kL8mN9oP0")


@pytest.mark.parametrize("step", ["done", "cancel", "undo", "other-browser", "not-completed"])
@pytest.mark.parametrize("after", [".", "%20", "/", ")", "&utm=1", "%e2%80%8b"])
def test_a_step_of_a_link_stays(ada: Browser, step: str, after: str) -> None:
    assert location(ada, f"/c/{TOKEN}/{step}{after}") == (303, f"/c/{TOKEN}/{step}")
    assert location(ada, f"/c/<{TOKEN}//{step.upper()}{after}") == (303, f"/c/{TOKEN}/{step}")
    assert location(ada, f"/r/{RECEIPT}/end{after}") == (303, f"/r/{RECEIPT}/end")


PREFIXES = [
    *("/en", "/de-DE", "/a/b", "/%20", "/.", "/<", "/%3c", '/"', "/(", "/%e2%80%8b", "/%c2%a0", "/%e2%80%9c", "/*"),
    *("/https://delegation.test", "/https:/delegation.test", "/https%3a%2f%2fdelegation.test", "/x;", "/%ff"),
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("after", ["", ".", "%20", "&utm=1", "?utm=1"])
def test_what_was_added_before_the_whole_path_too(ada: Browser, prefix: str, after: str) -> None:
    """The bug: 404, "There is nothing here", of a language's prefix, a space or a bracket before `/c/`."""
    assert location(ada, f"{prefix}/c/{TOKEN}{after}") == (303, f"/c/{TOKEN}")
    assert location(ada, f"{prefix}/C/{TOKEN}/done{after}") == (303, f"/c/{TOKEN}/done")
    assert location(ada, f"{prefix}/r/{RECEIPT}/end{after}") == (303, f"/r/{RECEIPT}/end")


@pytest.mark.parametrize("slash", ["%2f", "%252f", "%252F", "%25252f", "%5c", "%255c"])
def test_slashes_that_were_encoded_once_or_more_often_are_slashes(ada: Browser, slash: str) -> None:
    """Percent-encoded once the address is the clean one, and needs no redirect."""
    whole = f"/https%3a{slash}{slash}delegation.test{slash}c{slash}{TOKEN}"
    assert location(ada, whole) == (303, f"/c/{TOKEN}")
    status, found = location(ada, f"/c{slash}{TOKEN}%252e")
    assert (status, found) == (303, f"/c/{TOKEN}")
    status, found = location(ada, f"/c{slash}{TOKEN}")
    assert (status, found) == ((404, None) if slash == "%2f" else (303, f"/c/{TOKEN}"))


@pytest.mark.parametrize(
    "path",
    [
        *(f"/admin/c/{TOKEN}", f"/health/c/{TOKEN}", f"/static/c/{TOKEN}", f"/brands/c/{TOKEN}", f"/etc/{TOKEN}"),
        *(f"/en/d/{TOKEN}", f"/en/c/{TOKEN[:-1]}", f"/abc/{TOKEN}", f"/en/-c/{TOKEN}", f"/{TOKEN}", "/en/c/"),
    ],
)
def test_other_addresses_lead_to_no_link(ada: Browser, path: str) -> None:
    status, found = location(ada, path)
    assert (status, "/c/" in (found or "").partition("?")[0]) in {(404, False), (302, False)}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "path",
    [
        *("/en" + "/c/" * 2_000, "/x" * 4_000, "/c" * 4_000, "/%252f" * 1_300, f"/en/c/{'a-' * 4_000}!"),
        *(f"/c/{'a' * 8_000}", f"/c/{'_' * 4_000}{'a' * 4_000}", f"/x/{'c/' * 2_000}{'a' * 26}"),
    ],
)
def test_a_long_address_is_read_at_once(ada: Browser, path: str) -> None:
    """Each pattern and each look at a run once: strangers write these paths, some before any limit counts them."""
    assert location(ada, path)[0] in {303, 404}


@pytest.mark.parametrize("mark", ["_", "__", "-", ".", "*", "%20"])
def test_marks_of_the_tokens_own_stay(ada: Browser, mark: str) -> None:
    """`_` and `-` are letters of tokens, too."""
    assert location(ada, f"/c/{OWN_MARKS}{mark}") == (303, f"/c/{OWN_MARKS}")


@pytest.mark.parametrize(
    "rest", ["x", "x.", "", "%20", TOKEN[:-1], f"{TOKEN[:-1]}.", "..", "%00", "%ff", "a b", "\u00e9" * 60]
)
def test_what_has_not_a_tokens_shape_is_an_unknown_link(ada: Browser, rest: str) -> None:
    for kind in ("c", "r"):
        page = ada.client.get(f"/{kind}/{rest}", secure=True)
        assert (page.status_code, heading_of(page)) == (404, "This link no longer works")


@pytest.mark.parametrize(
    "where", ["//evil.example/", "https://evil.example/", "%2f%2fevil.example%2f", "/%5cevil.example/"]
)
@pytest.mark.parametrize("prefix", ["/c/", "//c/", "/c//", "/r/", "/en/c/", "//evil.example/c/", "/%5cevil.example/r/"])
def test_nobody_is_led_anywhere_else(ada: Browser, prefix: str, where: str) -> None:
    """B16: the address is made of the token alone."""
    kind = prefix.strip("/")[-1]
    clean = f"/{kind}/{RECEIPT if kind == 'r' else TOKEN}"
    for damaged in (f"{prefix}{where}{clean[3:]}", f"{prefix}{clean[3:]}{where}"):
        assert location(ada, damaged) == (303, clean)


def test_a_damaged_link_goes_the_whole_way(acme_bot: Bot, ada: Browser, acme_login: FakeAuthorizationServer) -> None:
    url = acme_bot.challenge()["url"]
    answer = ada.get(f"{url}).")
    assert heading_of(ada.get(answer["Location"])) == "Sign in to Acme to continue your chat"
    acme_bot.complete(code_on(ada.sign_in(url, acme_login)))
    receipt = re.search(r'href="(/r/[^"]+)"', ada.get(f"{url}/done").content.decode())
    assert receipt
    assert ada.get(f"{receipt[1]},")["Location"] == receipt[1]


@pytest.mark.parametrize("after", [".", "%20", "/done.", "&utm=1"])
@pytest.mark.parametrize("before", ["", "/en"])
def test_live_ended_and_unknown_links_go_the_same_way_without_a_look(
    acme_bot: Bot, ada: Browser, rita: Browser, acme_server: Any, before: str, after: str
) -> None:
    """G9: what cannot be told apart by its address is answered without asking the database of it."""
    live, ended = acme_bot.challenge()["url"], Bot(acme_bot.key, "another").challenge()
    acme_bot.call("DELETE", f"/challenges/{ended['challenge_id']}")
    seen = []
    for clean in (live, ended["url"], f"https://delegation.test/c/{TOKEN}"):
        url = clean.replace("/c/", f"{before}/c/")
        with CaptureQueriesContext(connection) as queries:
            answer = rita.get(url + after)
        asked = [query["sql"] for query in queries if "conversations_" in query["sql"]]
        seen.append((answer.status_code, answer["Location"].replace(url[-27:], "..."), answer.content, asked))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][3] == []


def test_a_form_is_taken_at_the_exact_address_alone(acme_bot: Bot, ada: Browser, acme_server: Any) -> None:
    url = acme_bot.challenge()["url"]
    ada.get(url)
    sent = {"csrfmiddlewaretoken": ada.client.cookies["__Host-csrf"].value}
    for after in (".", "/", "/cancel.", "/undo/"):
        answer = ada.client.post(url + after, sent, secure=True, headers={"Origin": "https://delegation.test"})
        assert (answer.status_code, heading_of(answer)) == (404, "This link no longer works")
    assert acme_bot.status() == ("challenged", None)


def test_tokens_have_the_shape_that_is_looked_for(acme_bot: Bot, acme_server: Any) -> None:
    """Every one that is made: a token of another length would be led astray."""
    for _ in range(5):
        rest = str(acme_bot.challenge(replace=True)["url"]).partition("/c/")[2]
        assert intended_url("c", rest) == f"/c/{rest}"
