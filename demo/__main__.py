"""`python -m demo`: set up, play one journey as a transcript, then keep all servers running for a person to try."""

import signal
import sys
import textwrap

from demo.addresses import Addresses, wanted_addresses
from demo.journey import as_program, play, prepared
from demo.preparation import CALLING_SCOPES, Demo, create_bot_key, start_brand, start_chat
from demo.processes import Servers
from demo.sample_brand.scenarios import Scenario

# Seconds: long enough to read a page, short enough to watch a token expire.
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
        leave_up(demo, servers)
        wait_for_ctrl_c()


def which_browsers(addresses: Addresses) -> str:
    """Tell the person which browsers the pages work in. Our cookies are Secure, which matters over http."""
    if addresses.scheme == "http":
        return (
            "The demo uses http. Its pages work in Chrome, Edge, Firefox and similar browsers. Safari, and every\n"
            "browser on an iPhone or iPad, stores no Secure cookie over http. They need https: make demo ARGS=--tls"
        )
    return (
        "The demo uses https. Its pages work in every browser. Your browser does not trust the demo's certificate\n"
        "and warns once at each of the three addresses: choose “Advanced” or “Show details”, then continue. The\n"
        "demo adds nothing to a trust store. Open all three addresses before you begin in the chat."
    )


def leave_up(demo: Demo, servers: Servers) -> None:
    """Start the servers for a person to try, and print their addresses."""
    print("\nRestarting the sample brand with longer-lived tokens, and starting the sample chat ...", flush=True)
    start_brand(demo, servers, FRIENDLY_TOKEN_LIFETIME)
    start_chat(demo, servers, create_bot_key(demo.product_environment(), "Sample chat", CALLING_SCOPES))
    key_to_play_with = create_bot_key(demo.product_environment(), "Experiments")
    print(invitation(demo, key_to_play_with), flush=True)


def invitation(demo: Demo, bot_key: str) -> str:
    here = demo.addresses
    customers = "\n".join(f"                 {name} / {password}" for name, password in demo.customers.items())
    scenarios = textwrap.indent(textwrap.fill(", ".join(Scenario), 100, break_on_hyphens=False), "  ")
    curl = f"curl needs --cacert {demo.folder}/demo-authority.pem\n\n" if here.scheme == "https" else ""
    return f"""
{which_browsers(here)}

Everything stays up. Open the sample chat and ask: where is my order?

  Sample chat    {here.chat}/
                 nothing to type: the sign-in comes back to this page; six digits are behind "… with a code"
  Sample brand   {here.brand}/
{customers}
  Admin          {here.product}/admin/
                 admin / {demo.admin_password}
  Bot API        {here.product}/api/docs

The sample brand's sign-in page asks what should happen. Scripts say it behind the login name, as in ada+deny:
{scenarios}

A token lives {FRIENDLY_TOKEN_LIFETIME} seconds here: ask again after that and the bot sends a new link.
"Take that back" on the sample brand's page ends it sooner.

For a bot of your own, begin with docs/bots. This key is good for the demo's throw-away database and nothing else:

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
