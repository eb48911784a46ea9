"""`manage.py private_networks BRAND allow|remove|list`: where a brand may be called besides the internet."""

from argparse import ArgumentParser
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from brands.models import Brand, NetworkUse
from brands.private_networks import allow_network, networks_in_words, remove_network
from oauth_client.addresses import HTTPS_PORT

_NONE: Final = "None: only public addresses are called, at port 443."

# A server inside a private network can be applied only after the network, and the network only after its brand.
_MAKE_IT: Final = "Make it first: in the admin, or by apply_config with a file that has [brand] alone."


class Command(BaseCommand):
    """Change or list a brand's private networks. Nothing else changes them (N14). A refused network exits 1."""

    help = "Allow a brand's servers to be called inside private networks. Prints the brand's networks."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("brand", help="the brand's slug")
        actions = parser.add_subparsers(dest="action", required=True)
        allow = actions.add_parser("allow", help="allow a network, or give an allowed one other ports and uses")
        allow.add_argument("network", help="such as 10.20.0.0/16, or one address")
        allow.add_argument("--ports", nargs="+", type=int, default=[HTTPS_PORT], help="default: 443")
        allow.add_argument(
            "--for",
            nargs="+",
            choices=NetworkUse.values,
            default=[NetworkUse.SERVERS.value],
            dest="uses",
            help="what may be called there; default: servers, which are authorization servers and APIs",
        )
        remove = actions.add_parser("remove", help="call nothing in this network any more")
        remove.add_argument("network")
        actions.add_parser("list", help="print the networks")

    def handle(self, *args: Any, **options: Any) -> None:
        brand = Brand.objects.filter(slug=options["brand"]).first()
        if brand is None:
            raise CommandError(f"There is no brand {options['brand']}. {_MAKE_IT}")
        try:
            if options["action"] == "allow":
                allow_network(brand, options["network"], options["ports"], map(NetworkUse, options["uses"]))
            elif options["action"] == "remove":
                remove_network(brand, options["network"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write("\n".join(networks_in_words(brand) or [_NONE]))
