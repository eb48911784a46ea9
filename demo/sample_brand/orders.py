"""The orders of Acme's two customers."""

from typing import TypedDict


class Order(TypedDict):
    number: str
    item: str
    status: str


ORDERS: dict[str, list[Order]] = {
    "ada": [
        {"number": "A-1001", "item": "Walking boots, size 39", "status": "On its way, arrives tomorrow"},
        {"number": "A-0987", "item": "Wool socks, three pairs", "status": "Delivered on Monday"},
    ],
    "rita": [
        {"number": "R-2002", "item": "Two-person tent", "status": "Being packed"},
    ],
}
