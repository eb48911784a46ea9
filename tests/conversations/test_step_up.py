"""Step-up for one action (RFC 9470): Acme's API demands a stronger sign-in, and the next link asks for it."""

import time
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from django.utils import timezone

from brands.models import AuthorizationServer
from conversations.flow.errors import ConversationClosed, TokenReplaced, WrongAuthorizationStatus
from conversations.flow.step_up import refuse_weak_sign_in
from conversations.models import AccessToken, AuthorizationRequest
from oauth_client.step_up import AuthenticationDemand
from tests.brand_api import ORDERS, STRONG, STRONGER, Caller, demanding, make_operation, sign_in_with, step_up
from tests.cast import Bot
from tests.hostile_token_endpoint import http_answer

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (f'acr_values="{STRONG}", max_age=60', {"acr_values": STRONG, "max_age": 60}),
        (f'ACR_VALUES="{STRONG}  other {STRONG}"', {"acr_values": f"{STRONG} other"}),
        ('max_age="0"', {"max_age": 0}),
        ("max_age=99999999999999999999", {"max_age": 2147483647}),
        (
            f'scope="a, b=c", realm="x \\", max_age=1", acr_values={STRONG.replace(":", "-")}',
            {"acr_values": "urn-acme-loa-2"},
        ),
        (f'unknown="1", acr_values="{STRONG}", acr_values="weaker"', {"acr_values": STRONG}),
        ('acr_values=""', {}),
        ("", {}),
    ],
)
def test_the_bot_is_told_what_the_api_demands(parameters: str, told: dict[str, Any], paying: Caller) -> None:
    """P30: the token stays, since other operations take it."""
    paying.api.play(demanding(parameters))
    status, problem = paying.call()
    assert (status, problem["code"], problem["next"]["operation"]) == (409, "step_up_required", "createChallenge")
    assert {name: problem[name] for name in ("acr_values", "max_age") if name in problem} == told
    assert paying.bot.status() == ("authorized", None)
    paying.api.play(ORDERS)
    assert paying.call()[0] == 200


@pytest.mark.parametrize(
    "parameters",
    [
        'acr_values="a\\"b"',
        f'acr_values="{"x" * 129}"',
        f'acr_values="{" ".join(f"class-{number}" for number in range(80))}"',
        'acr_values="ä"',
        'acr_values="a\tb"',
        "max_age=-1",
        'max_age="1.5"',
        'max_age=""',
        'max_age="٦٠"',
        f"max_age={'9' * 21}",
        f'acr_values="{STRONG}", max_age=soon',
    ],
)
def test_a_demand_that_cannot_be_read_is_said_to_be_so(parameters: str, paying: Caller) -> None:
    """P31: to leave it out would have the consumer sign in for nothing."""
    paying.api.play(demanding(parameters))
    status, problem = paying.call()
    assert (status, problem["code"], problem["next"]) == (409, "step_up_unavailable", None)
    assert "cannot be read" in problem["detail"]
    assert paying.bot.challenge()["acr_values"] is None


def test_without_openid_a_step_up_is_said_to_be_impossible(caller: Caller) -> None:
    """P31: no ID token could say how somebody signed in."""
    caller.api.play(STRONGER)
    status, problem = caller.call()
    assert (status, problem["code"], problem["next"]) == (409, "step_up_unavailable", None)
    assert "openid" in problem["detail"]


@pytest.mark.parametrize(
    "header",
    [
        'DPoP error="insufficient_user_authentication", acr_values="a"',
        'Basic realm="Bearer error=\\"insufficient_user_authentication\\""',
        f'Bearer error="insufficient_user_authentication", acr_values="{"x" * 5000}"',
    ],
)
def test_another_challenge_demands_nothing(header: str, paying: Caller) -> None:
    """P30: it is the API's own answer, and passed on."""
    paying.api.play(http_answer(b"{}", status=401, WWW_Authenticate=header))
    status, answer = paying.call()
    assert (status, answer["response"]["status"]) == (200, 401)


def test_another_status_demands_nothing(paying: Caller) -> None:
    """P30: RFC 9470 section 3."""
    paying.api.play(demanding(f'acr_values="{STRONG}"', status=403))
    assert paying.call()[1]["response"]["status"] == 403


def test_a_demand_in_a_second_header_counts(paying: Caller) -> None:
    """P30: APIs behind a gateway send two."""
    first = b'WWW-Authenticate: Basic realm="x, y"\r\n'
    second = b'www-authenticate: Bearer error="insufficient_user_authentication",max_age=5\r\n'
    paying.api.play(b"HTTP/1.1 401 No\r\n" + first + second + b"Content-Length: 0\r\n\r\n")
    assert paying.call()[1]["max_age"] == 5


def test_a_demand_with_the_token_is_passed_on_to_nobody(paying: Caller) -> None:
    """P5, P31: in the escapes of a quoted text, too."""
    escaped = "".join(f"\\{character}" for character in paying.token)
    paying.api.play(demanding(f'acr_values="{escaped}"'))
    assert paying.code() == "token_in_answer"


def test_the_next_challenge_carries_the_demand_by_itself(paying: Caller) -> None:
    """P32: the bot names nothing, and the request, the ID token and the new token all say the same."""
    challenge = step_up(paying, demanding(f'acr_values="{STRONG} urn:acme:loa:3", max_age=60'))
    assert (challenge["acr_values"], challenge["max_age"]) == (f"{STRONG} urn:acme:loa:3", 60)
    now = int(time.time())
    page = sign_in_with(paying, challenge, acr="urn:acme:loa:3", amr=["pwd", "otp", "pwd"], auth_time=now)
    assert page.status_code == 200
    assert (
        paying.login.authorization_requests[-1]["acr_values"],
        paying.login.authorization_requests[-1]["max_age"],
    ) == (f"{STRONG} urn:acme:loa:3", "60")
    status, confirmed = paying.bot.complete(paying.ada.read_code(challenge["url"]))
    assert status == 200
    facts = confirmed["access_token"]
    assert (facts["acr"], facts["amr"]) == ("urn:acme:loa:3", ["pwd", "otp"])
    assert facts["auth_time"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)))
    paying.api.play(ORDERS)
    assert paying.call()[0] == 200
    assert paying.bot.challenge()["acr_values"] is None


def test_one_call_makes_the_demand_and_the_link(paying: Caller) -> None:
    """P32: with `challenge`, the answer is the link that brings what the API demands."""
    paying.api.play(STRONGER)
    status, challenge = paying.call(challenge={})
    assert (status, challenge["acr_values"]) == (202, STRONG)
    assert paying.call(challenge={})[1]["url"] == challenge["url"]
    sign_in_with(paying, challenge, acr=STRONG)
    assert paying.bot.complete(paying.ada.read_code(challenge["url"]))[0] == 200
    paying.api.play(ORDERS)
    assert paying.call(challenge={})[0] == 200


@pytest.mark.parametrize("field", ["acr_values", "max_age", "acr", "prompt"])
def test_a_bot_can_name_no_demand_of_its_own(field: str, acme_bot: Bot) -> None:
    """P32: it could make consumers sign in as no API has asked for, or ask for less than an API demands."""
    for what in ("/challenges", "/authorize"):
        status, problem = acme_bot.in_chat("POST", what, {field: "1"})
        assert (status, problem["code"]) == (422, "invalid_request_body")


def test_a_bot_cannot_get_rid_of_the_demand(paying: Caller) -> None:
    """P32: by withdrawing the link, by asking for another one, or with a weaker operation's call."""
    challenge = step_up(paying)
    assert paying.bot.call("DELETE", f"/challenges/{challenge['challenge_id']}")[0] == 200
    again = paying.bot.challenge()
    assert again["acr_values"] == STRONG
    assert paying.bot.in_chat("POST", "/challenges", {"replace": True})[1]["acr_values"] == STRONG
    paying.api.play(ORDERS)
    assert paying.call()[0] == 200
    assert paying.bot.in_chat("POST", "/challenges", {})[1]["acr_values"] == STRONG


def test_an_older_link_is_not_taken_for_the_one_that_the_api_demands(paying: Caller) -> None:
    """P32: it would lead to a token that the API refuses again."""
    paying.bot.challenge()
    paying.api.play(STRONGER)
    assert paying.code() == "step_up_required"
    assert paying.bot.in_chat("POST", "/challenges", {})[1]["code"] == "challenge_differs"
    assert paying.code(challenge={}) == "challenge_differs"
    status, challenge = paying.bot.in_chat("POST", "/challenges", {"replace": True})
    assert (status, challenge["acr_values"]) == (201, STRONG)


def test_the_last_demand_counts(paying: Caller) -> None:
    """P32."""
    paying.api.play(STRONGER)
    paying.call()
    challenge = step_up(paying, demanding("max_age=30"))
    assert (challenge["acr_values"], challenge["max_age"]) == (None, 30)


def test_the_demand_is_of_one_conversation_and_its_token(paying: Caller) -> None:
    """P32, S2: neither another chat nor the next session has to do with it, nor what follows the token's end."""
    step_up(paying)
    assert Bot(paying.bot.key, "web:other").challenge()["acr_values"] is None
    assert paying.bot.in_chat("DELETE", "/token")[0] == 200
    assert paying.bot.in_chat("POST", "/challenges", {"replace": True})[1]["acr_values"] is None


def test_a_demand_shortens_the_age_that_the_admin_allows_and_never_lengthens_it(paying: Caller) -> None:
    """P32, A6."""
    AuthorizationServer.objects.update(max_age=100)
    step_up(paying, demanding("max_age=5000"))
    paying.ada.begin(paying.bot.in_chat("POST", "/challenges", {})[1]["url"])
    row = AuthorizationRequest.objects.latest("pk")
    assert row.stored_configuration().strictest_max_age == 100
    AuthorizationServer.objects.update(max_age=10_000)
    url = paying.ada.begin(paying.bot.in_chat("POST", "/challenges", {})[1]["url"])
    assert parse_qs(urlsplit(url).query)["max_age"] == ["5000"]


def test_the_admins_acr_values_give_way_to_the_demand(paying: Caller) -> None:
    """P32: of two parameters of one name, a server may read either."""
    AuthorizationServer.objects.update(extra_authorization_parameters={"acr_values": "urn:acme:loa:1", "ui": "dark"})
    url = paying.ada.begin(step_up(paying)["url"])
    query = parse_qs(urlsplit(url).query)
    assert (query["acr_values"], query["ui"]) == ([STRONG], ["dark"])


@pytest.mark.parametrize("query", ["acr_values=urn:acme:loa:1", "ACR_VALUES%5b%5d=x", "tenant=a&acr_values="])
def test_the_acr_values_of_the_endpoints_own_query_give_way_too(query: str, paying: Caller) -> None:
    """P32. The bug: the address that the admin had typed kept them, and the server got two."""
    address = f"{paying.login.issuer}/authorize?{query}&ui=dark"
    AuthorizationServer.objects.update(authorization_endpoint=address)
    url = paying.ada.begin(step_up(paying)["url"])
    names = [name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)]
    assert [name for name in names if "acr" in name.lower()] == ["acr_values"]
    assert "ui" in names


@pytest.mark.parametrize(
    ("claims", "sent"),
    [
        ('{"id_token":{"acr":{"value":"urn:acme:loa:1"},"email":null}}', '{"id_token":{"email":null}}'),
        ('{"userinfo":null,"id_token":{"acr":null}}', '{"userinfo":null,"id_token":{}}'),
        ('{"userinfo":{"acr":{"essential":true}}}', '{"userinfo":{}}'),
        ('{"id_token": {"auth_time": {"essential": true}}}', '{"id_token": {"auth_time": {"essential": true}}}'),
        ("acr", "{}"),
        ('{"id_token":["acr"]}', "{}"),
    ],
)
@pytest.mark.parametrize("is_of_the_endpoint", [True, False], ids=["in the address", "among the parameters"])
def test_what_claims_ask_of_the_sign_in_gives_way_to_the_demand(
    is_of_the_endpoint: bool, claims: str, sent: str, paying: Caller
) -> None:
    """P32. The bug: the server got two demands, chose the weaker one, and Ada had signed in for nothing."""
    address = f"{paying.login.issuer}/authorize"
    if is_of_the_endpoint:
        AuthorizationServer.objects.update(authorization_endpoint=f"{address}?{urlencode({'claims': claims})}")
    else:
        AuthorizationServer.objects.update(extra_authorization_parameters={"claims": claims})
    query = parse_qs(urlsplit(paying.ada.begin(step_up(paying)["url"])).query)
    assert (query["claims"], query["acr_values"]) == ([sent], [STRONG])


def test_a_demanded_age_takes_the_place_of_auth_time_in_claims(paying: Caller) -> None:
    """P32."""
    claims = '{"id_token":{"auth_time":{"essential":true},"acr":null}}'
    AuthorizationServer.objects.update(extra_authorization_parameters={"claims": claims})
    step_up(paying, demanding("max_age=60"))
    query = parse_qs(urlsplit(paying.ada.begin(paying.bot.in_chat("POST", "/challenges", {})[1]["url"])).query)
    assert (query["claims"], query["max_age"]) == (['{"id_token":{"acr":null}}'], ["60"])


def test_a_late_demand_is_not_kept_with_the_token_that_took_the_place(paying: Caller) -> None:
    """P32: the API answers when Ada has just signed in again, and the new token may be good enough."""
    presented = AccessToken.objects.get(ended_at=None)
    paying.sign_in(paying.bot.challenge())
    with pytest.raises(TokenReplaced):
        refuse_weak_sign_in(presented, AuthorizationServer.objects.get(), AuthenticationDemand(STRONG), timezone.now())
    assert paying.bot.challenge()["acr_values"] is None


@pytest.mark.parametrize("ends", ["/token", ""])
def test_a_late_demand_says_that_the_token_has_ended(ends: str, paying: Caller) -> None:
    """P32: the bot signed Ada out, or closed the chat, while the API answered."""
    presented = AccessToken.objects.get(ended_at=None)
    assert paying.bot.in_chat("DELETE", ends)[0] == 200
    with pytest.raises(WrongAuthorizationStatus if ends else ConversationClosed):
        refuse_weak_sign_in(presented, AuthorizationServer.objects.get(), AuthenticationDemand(STRONG), timezone.now())
    assert not AccessToken.objects.exclude(demanded_acr_values="").exists()


def test_operations_of_one_brand_share_the_token_and_not_the_demand(paying: Caller) -> None:
    """P30: the other operation goes on while the link is open."""
    make_operation(paying.server.apis.get(), "orders.count", path="/orders/count")
    step_up(paying)
    paying.api.play(http_answer(b"1", Content_Type="application/json"))
    assert paying.call("orders.count")[1]["response"]["body"] == 1
