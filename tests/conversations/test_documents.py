"""The contract as it is served: for machines, and as a page that needs no script."""

from html.parser import HTMLParser

import pytest
from django.test import Client, override_settings
from openapi_spec_validator import validate

from conversations.api.reference import reference_of
from tests import contract
from tests.cast import HOST

ADDRESSES = ["/api/v1/openapi.json", "/api/docs"]


@pytest.fixture
def stranger() -> Client:
    """Return somebody without a key and without a database: neither address asks for one."""
    return Client(SERVER_NAME=HOST)


class Page(HTMLParser):
    """What a page links to, what can be linked to on it, and what a script would be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.fragments: set[str] = set()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.attributes |= set(values)
        self.ids += [str(values["id"])] if "id" in values else []
        if (values.get("href") or "").startswith("#"):
            self.fragments.add(str(values["href"])[1:])


def test_the_contract_is_served_with_our_own_address_in_it(stranger: Client) -> None:
    answer = stranger.get("/api/v1/openapi.json", secure=True)
    served = answer.json()
    validate(served)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert served == contract.document() | {"servers": [{"url": f"https://{HOST}/api/v1"}]}


def test_it_is_served_with_the_address_that_the_settings_say(stranger: Client) -> None:
    with override_settings(PUBLIC_BASE_URL="https://elsewhere.example"):
        assert stranger.get(ADDRESSES[0], secure=True).json()["servers"] == [
            {"url": "https://elsewhere.example/api/v1"}
        ]
        assert "BASE=https://elsewhere.example/api/v1\n" in stranger.get(ADDRESSES[1], secure=True).content.decode()
    assert f"BASE=https://{HOST}/api/v1\n" in stranger.get(ADDRESSES[1], secure=True).content.decode()


@pytest.mark.parametrize("address", ADDRESSES)
def test_caches_may_keep_it_for_five_minutes_and_ask_whether_it_changed(stranger: Client, address: str) -> None:
    """H6: the one exception beside static files, and only for the answer itself."""
    first = stranger.get(address, secure=True)
    assert (first["Cache-Control"], len(first.cookies), first.get("Vary")) == ("public, max-age=300", 0, None)
    again = stranger.get(address, secure=True, headers={"If-None-Match": first["ETag"]})
    assert (again.status_code, again["Cache-Control"], again["ETag"], again.content) == (
        304,
        "public, max-age=300",
        first["ETag"],
        b"",
    )
    assert stranger.get(address, secure=True, headers={"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
def test_another_method_is_refused_and_kept_by_no_cache(stranger: Client, address: str) -> None:
    answer = stranger.post(address, secure=True)
    assert (answer.status_code, answer["Allow"], answer["Cache-Control"]) == (405, "GET, HEAD", "no-store")
    assert answer.json()["code"] == "method_not_allowed"
    elsewhere = Client(SERVER_NAME="elsewhere.example").get(address)
    assert (elsewhere.status_code, elsewhere["Cache-Control"]) == (400, "no-store")
    assert Client(SERVER_NAME=HOST).get(address)["Cache-Control"] == "no-store"  # on its way to TLS


def test_nothing_else_below_the_api_may_be_kept(stranger: Client) -> None:
    """H6."""
    for address in ("/api/v1/openapi.json/", "/api/docs/", "/api/v1/nothing", "/api/v1"):
        answer = stranger.get(address, secure=True)
        assert (answer.status_code, answer["Cache-Control"]) == (404, "no-store")


def test_the_page_names_every_call_code_and_word_of_the_contract(stranger: Client) -> None:
    text = stranger.get("/api/docs", secure=True).content.decode()
    document = contract.document()
    for methods in document["paths"].values():
        for method in set(methods) - {"parameters"}:
            assert f'<article id="{methods[method]["operationId"]}"' in text
            assert methods[method]["summary"].replace("'", "&#x27;") in text
    for name, example in document["components"]["examples"].items():
        assert ("code" not in example["value"]) or f'id="problem-{name}"' in text
    for event in document["webhooks"]:
        assert f"<code>{event}</code>" in text
    for schema in document["components"]["schemas"].values():
        for word in schema.get("x-meanings", {}):
            assert f"<dt><code>{word}</code></dt>" in text


def test_every_word_of_a_vocabulary_has_a_meaning() -> None:
    schemas = contract.document()["components"]["schemas"]
    for name in ("AuthorizationStatus", "ChallengeStatus", "EndReason", "SamePersonCheck"):
        assert list(schemas[name]["x-meanings"]) == [word for word in schemas[name]["enum"] if word]


def test_every_link_on_the_page_leads_somewhere(stranger: Client) -> None:
    page = Page(stranger.get("/api/docs", secure=True).content.decode())
    assert page.fragments - set(page.ids) == set()
    assert len(page.ids) == len(set(page.ids))


def test_the_page_works_under_our_policy(stranger: Client) -> None:
    """B18: nothing inline; its one script adds buttons to copy and nothing else."""
    answer = stranger.get("/api/docs", secure=True)
    page = Page(answer.content.decode())
    policy = answer["Content-Security-Policy"]
    assert ("script-src 'self'" in policy, "style-src 'self'" in policy, "default-src 'none'" in policy) == (True,) * 3
    assert (page.tags.count("script"), page.tags.count("style"), page.tags.count("form")) == (1, 0, 0)
    assert [name for name in page.attributes if name == "style" or name.startswith("on")] == []


def test_text_of_the_contract_is_escaped_on_the_page() -> None:
    document = contract.document()
    hostile = document | {"info": document["info"] | {"description": "a <b> and `<i>`\n\nnext"}}
    assert reference_of(hostile).description == ["a &lt;b&gt; and <code>&lt;i&gt;</code>", "next"]
