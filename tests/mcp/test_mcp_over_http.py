"""The MCP server over Streamable HTTP: an access token decides whose conversation it is."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import time

import jwt
import pytest
import requests

from consumer_delegation import conversation_id_of
from tests.demo.stage import Stage
from tests.mcp.players import BOOTS, BOTH, MODES, PYTHON, Client, link_in, says_no_secret
from tests.mcp.sites import Issuer, Site, beside, serving_one_person, text_of

pytestmark = pytest.mark.full


Join = Callable[..., Client]


@pytest.fixture
def join(site: Site) -> Iterator[Join]:
    with ExitStack() as stack:
        yield lambda mode, subject="ada", **claims: stack.enter_context(
            site.client(mode, site.token(subject, **claims))
        )


@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_is_the_principals_and_outlives_a_connection(mode: str, join: Join, stage: Stage) -> None:
    ada = join(mode, f"comes-back-{mode}")
    ada.calls("confirm_sign_in", digits=stage.consumer().gets_code(link_in(ada.calls("orders_list"))))
    assert BOOTS in ada.calls("orders_list")
    assert BOOTS in join(mode, f"comes-back-{mode}").calls("orders_list")


def test_another_person_or_another_program_has_another_conversation(join: Join, stage: Stage) -> None:
    ada = join("auto")
    ada.calls("confirm_sign_in", digits=stage.consumer().gets_code(link_in(ada.calls("orders_list"))))
    link_in(join("auto", "rita").calls("orders_list"))
    link_in(join("auto", client_id="another").calls("orders_list"))


CHATS = [(mode, ways) for mode in MODES for ways in ((), BOTH)]


@pytest.mark.parametrize(("mode", "ways"), CHATS, ids=[f"{mode}-{len(ways)}" for mode, ways in CHATS])
def test_nothing_secret_is_said_over_http(
    mode: str, ways: tuple[str, ...], site: Site, stage: Stage, mcp_key: str
) -> None:
    subject = f"{mode}-{len(ways)}"
    with site.client(mode, site.token(subject), elicitation=ways) as mcp:
        if ways:
            code = stage.consumer().gets_code(mcp.is_asked("orders_list")["url"])
            assert mcp.says(action="accept")["asked"]["mode"] == "form"
            assert BOOTS in mcp.says(action="accept", content={"digits": code})["text"]
        else:
            mcp.calls("confirm_sign_in", digits=stage.consumer().gets_code(link_in(mcp.calls("orders_list"))))
            assert BOOTS in mcp.calls("orders_list")
    assert site.issuer
    says_no_secret(site.frames, stage, mcp_key, conversation_id_of("mcp", site.issuer.url, "assistant", subject))


def unsealed(state: str, key: str) -> str:
    """Open a state with the server's own key."""
    program = (
        "import sys; from mcp.server.request_state import AESGCMRequestStateCodec as Codec;"
        "print(Codec([sys.argv[1]]).unseal(sys.argv[2]).decode())"
    )
    return subprocess.run([PYTHON, "-c", program, key, state], capture_output=True, text=True, check=True).stdout


def test_a_state_has_neither_token_nor_link_inside_and_cannot_be_read_outside(
    site: Site, stage: Stage, state_key: str
) -> None:
    ada = site.token("states")
    link = site.round(ada)
    url = link["inputRequests"]["sign_in"]["params"]["url"]
    code = stage.consumer().gets_code(url)
    form = site.go_on(ada, link)
    assert BOOTS in text_of(site.go_on(ada, form, {"digits": code}))
    assert site.issuer
    token = stage.bot().token(conversation_id_of("mcp", site.issuer.url, "assistant", "states")).body["access_token"]
    for state in (link["requestState"], form["requestState"]):
        opened = unsealed(state, state_key)
        assert "tools/call" in opened
        assert [secret for secret in (token, url.rpartition("/")[2], code, ada) if secret in opened] == []
        assert "tools/call" not in state


def test_two_instances_with_the_same_state_keys_take_one_anothers_rounds(
    site: Site, stage: Stage, mcp_key: str, state_keys_file: Path
) -> None:
    ada = site.token("two-instances")
    with beside(site, stage, mcp_key, CONSUMER_DELEGATION_STATE_KEYS_FILE=str(state_keys_file)) as other:
        link = site.round(ada)
        code = stage.consumer().gets_code(link["inputRequests"]["sign_in"]["params"]["url"])
        form = other.go_on(ada, link)
        assert BOOTS in text_of(site.go_on(ada, form, {"digits": code}))


def test_an_instance_with_other_state_keys_takes_none(site: Site, stage: Stage, mcp_key: str) -> None:
    ada = site.token("other-keys")
    with beside(site, stage, mcp_key) as other:
        assert other.go_on(ada, site.round(ada))["message"] == "Invalid or expired requestState"


@pytest.mark.parametrize("mode", MODES)
def test_on_loopback_without_authorization_the_server_is_one_persons(
    mode: str, stage: Stage, mcp_key: str, tmp_path: Path
) -> None:
    with serving_one_person(stage, mcp_key, tmp_path / "frames") as alone:
        with alone.client(mode) as mcp:
            mcp.calls("confirm_sign_in", digits=stage.consumer().gets_code(link_in(mcp.calls("orders_list"))))
        with alone.client(mode) as mcp:
            assert BOOTS in mcp.calls("orders_list")
        assert alone.posts(LIST, None, Host="attacker.example").status_code == 421
        assert alone.posts(LIST, None, Origin="https://attacker.example").status_code == 403


LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


def refusal(site: Site, token: str | None, **headers: str) -> int:
    return site.posts(LIST, token, **headers).status_code


def test_tokens_that_are_not_for_this_server_are_refused(site: Site) -> None:
    issuer, url = site.issuer, site.resource
    assert issuer
    others = Issuer(issuer.url)
    claims = {"iss": issuer.url, "aud": url, "sub": "ada", "client_id": "assistant", "exp": int(time()) + 300}
    refused = {
        "none": None,
        "nonsense": "nonsense",
        "another resource": issuer.token("https://another.example/mcp"),
        "another issuer": issuer.token(url, iss="https://another.example"),
        "another key": others.token(url),
        "expired": issuer.token(url, exp=int(time()) - 1),
        "no client": issuer.token(url, client_id=""),
        "no subject": issuer.token(url, ""),
        "a number as subject": issuer.token(url, sub=7),
        "a number as client": issuer.token(url, client_id=7),
        "not yet": issuer.token(url, nbf=int(time()) + 300),
        "no end": jwt.encode(claims | {"exp": None}, issuer.key, "ES256", headers={"kid": "1"}),
        "an endless end": jwt.encode(claims | {"exp": float("inf")}, issuer.key, "ES256", headers={"kid": "1"}),
        "an unknown key": jwt.encode(claims, others.key, "ES256", headers={"kid": "2"}),
        "no key": jwt.encode(claims, issuer.key, "ES256"),
        "a symmetric key": jwt.encode(claims, "0" * 64, "HS256", headers={"kid": "1"}),
    }
    assert {name: refusal(site, token) for name, token in refused.items()} == dict.fromkeys(refused, 401)


def test_a_page_in_a_browser_cannot_rebind_the_name(site: Site) -> None:
    token = site.token()
    own = site.resource.removeprefix("http://").removesuffix("/mcp")
    hosts = [
        "attacker.example",
        f"{own}.attacker.example",
        f"{own}0",
        "127.0.0.1",
        "localhost",
        f"attacker.example@{own}",
    ]
    assert {host: refusal(site, token, Host=host) for host in hosts} == dict.fromkeys(hosts, 421)
    origins = ["https://attacker.example", "null", f"http://{own}.attacker.example"]
    assert {origin: refusal(site, token, Origin=origin) for origin in origins} == dict.fromkeys(origins, 403)


def test_clients_learn_where_to_get_a_token(site: Site) -> None:
    """The bug: a slash was added to the issuer, which clients compare exactly (RFC 8414)."""
    assert site.issuer
    answer = requests.post(site.url, json={}, timeout=60)
    assert "resource_metadata=" in answer.headers["WWW-Authenticate"]
    base = site.url.removesuffix("/mcp")
    metadata = requests.get(f"{base}/.well-known/oauth-protected-resource/mcp", timeout=60).json()
    assert (metadata["resource"], metadata["authorization_servers"]) == (site.url, [site.issuer.url])
