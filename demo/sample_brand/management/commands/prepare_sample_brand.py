"""Register the product as a client of Acme's authorization server, and create Acme's customers."""

import argparse
import json
import os

from allauth.idp.oidc.models import Client
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

SCOPES = ["openid", "orders.read", "profile"]


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--client-id", required=True)
        parser.add_argument("--redirect-uri", required=True)

    def handle(self, *, client_id: str, redirect_uri: str, **_: object) -> None:
        register_client(client_id, redirect_uri, os.environ["SAMPLE_BRAND_CLIENT_SECRET"])
        for username, password in json.loads(os.environ["SAMPLE_BRAND_CUSTOMERS"]).items():
            make_customer(username, password)


def register_client(client_id: str, redirect_uri: str, secret: str) -> None:
    client = Client(id=client_id, name="Acme's assistant", type=Client.Type.CONFIDENTIAL)
    client.set_secret(secret)
    client.set_scopes(SCOPES)
    client.set_redirect_uris([redirect_uri])
    client.set_grant_types([Client.GrantType.AUTHORIZATION_CODE])
    client.set_response_types([Client.ResponseType.CODE])
    client.full_clean()
    client.save()


def make_customer(username: str, password: str) -> None:
    if not User.objects.filter(username=username).exists():
        User.objects.create_user(username, password=password, first_name=username.title())
