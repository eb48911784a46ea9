"""The Python client on the product itself: its requests reach Django's test client instead of a network."""

import httpx

from consumer_delegation import Delegation
from tests import contract
from tests.cast import HOST, Bot, client_of_ours

BASE = f"https://{HOST}/api/v1"


class Product(httpx.BaseTransport):
    """Hands a request to the product. Every answer is compared with the contract."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.raw_path.decode(), request.read()
        headers = {name: value for name, value in request.headers.items() if name not in {"host", "content-length"}}
        content_type = headers.pop("content-type", "")
        answer = client_of_ours(headers=headers).generic(
            request.method, path, body, content_type=content_type, secure=True
        )
        contract.check(request.method, path.removeprefix("/api/v1"), answer)  # type: ignore[arg-type]  # the test client's class
        return httpx.Response(answer.status_code, headers=list(answer.headers.items()), content=answer.content)


def client_of(bot: Bot) -> Delegation:
    return Delegation(BASE, bot.key, patience=0, http=httpx.Client(transport=Product()))
