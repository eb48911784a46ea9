"""`python -m demo`: set everything up, play one journey, then keep the servers running for a person to try."""

import signal
import sys
import textwrap

from demo.addresses import Addresses, wanted_addresses
from demo.journey import as_program, play, prepared
from demo.preparation import Demo, create_bot_key, start_brand, start_chat
from demo.processes import Servers
from demo.sample_brand.scenarios import Scenario

# Seconds. Long enough to read a page, short enough to see a token expire.
FRIENDLY_TOKEN_LIFETIME = 120


def demonstrate() -> None:
    addresses = wanted_addresses(sys.argv[1:])
    ports = {
        "DEMO_PRODUCT_PORT": addresses.product_port,
        "DEMO_BRAND_PORT": addresses.brand_port,
        "DEMO_CHAT_PORT": addresses.chat_port,
    }
    print(which_browsers(addresses), end="\n\n", flush=True)
    with prepared(addresses, ports) as (demo, servers, bot_key):
        play(demo, servers, bot_key)
        leave_up(demo, servers, bot_key)
        wait_for_ctrl_c()


def which_browsers(addresses: Addresses) -> str:
    """Say in which browsers the pages work: the product's cookies are Secure, and WebKit needs https for them."""
    if addresses.scheme == "http":
        return (
            "Over http, as here, the pages work in Chrome, Edge, Firefox and similar browsers. Safari, and every\n"
            "browser on an iPhone or iPad, stores no Secure cookies over http. Use https: make demo ARGS=--tls"
        )
    return (
        "Over https, as here, the pages work in every browser. Your browser does not trust the demo's certificate and\n"
        "warns once at each of the three addresses: choose “Advanced” or “Show details”, then go on. Nothing is put\n"
        "into a trust store. Open all three addresses before you begin in the chat."
    )


def leave_up(demo: Demo, servers: Servers, bot_key: str) -> None:
    """Start the servers that a person will try, and print how."""
    print("\nRestarting the sample brand with a longer token lifetime, and starting the sample chat ...", flush=True)
    start_brand(demo, servers, FRIENDLY_TOKEN_LIFETIME)
    start_chat(demo, servers, bot_key)
    key_to_play_with = create_bot_key(demo.product_environment(), "Experiments")
    print(invitation(demo, key_to_play_with), flush=True)


def invitation(demo: Demo, bot_key: str) -> str:
    here = demo.addresses
    customers = "\n".join(f"                 {name} / {password}" for name, password in demo.customers.items())
    scenarios = textwrap.indent(textwrap.fill(", ".join(Scenario), 100, break_on_hyphens=False), "  ")
    curl = f"curl needs --cacert {demo.folder}/demo-authority.pem\n\n" if here.scheme == "https" else ""
    return f"""
{which_browsers(here)}

Everything keeps running. Open the sample chat and ask: where is my order?

  Sample chat    {here.chat}/
                 the sign-in comes back to this page; for six digits to type, choose "… with a code"
  Sample brand   {here.brand}/
{customers}
  Admin          {here.product}/admin/
                 admin / {demo.admin_password}
  Bot API        {here.product}/api/docs

The sample brand's sign-in page asks what should happen. Scripts append it to the login name, as in ada+deny:
{scenarios}

A token lives {FRIENDLY_TOKEN_LIFETIME} seconds here: ask again after that and the bot sends a new link.
"Take that back" on the sample brand's page ends it sooner.

For a bot of your own, begin with docs/bots. This key works only with the demo's own database:

  export BASE={here.product}/api/v1 KEY={bot_key} ORDERS={here.brand}/api/orders

{curl}Databases and logs: {demo.folder}
Ctrl-C stops everything."""


def wait_for_ctrl_c() -> None:
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        print("\nStopping ...", flush=True)


if __name__ == "__main__":
    sys.exit(as_program(demonstrate))
