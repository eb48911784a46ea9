"""`python -m demo`: set-up, one whole journey as a transcript, and then everything stays up for a person to try."""

import signal
import sys

from demo.addresses import addresses_from_environment
from demo.journey import as_program, play, prepared
from demo.preparation import Demo, start_brand, start_chat

# Long enough to read a page, short enough to see a token expire while one watches.
FRIENDLY_TOKEN_LIFETIME = 120


def demonstrate() -> None:
    addresses = addresses_from_environment()
    ports = {
        "DEMO_PRODUCT_PORT": addresses.product_port,
        "DEMO_BRAND_PORT": addresses.brand_port,
        "DEMO_CHAT_PORT": addresses.chat_port,
    }
    with prepared(addresses, ports) as (demo, servers, bot_key):
        play(demo, servers, bot_key)
        start_brand(demo, servers, FRIENDLY_TOKEN_LIFETIME)
        start_chat(demo, servers, bot_key)
        print(invitation(demo), flush=True)
        wait_for_ctrl_c()


def invitation(demo: Demo) -> str:
    here = demo.addresses
    customers = "\n".join(f"                 {name} / {password}" for name, password in demo.customers.items())
    return f"""
Everything stays up. Open the sample chat and ask: where is my order?

  Sample chat    {here.chat}/
  Sample brand   {here.brand}/
{customers}
  Admin          {here.product}/admin/
                 admin / {demo.admin_password}
  Bot API        {here.product}/api/docs
                 KEY=$(cat {demo.bot_key_file})

A token lives {FRIENDLY_TOKEN_LIFETIME} seconds here: ask again after that and the bot sends a new link.
"Take that back" on the sample brand's page ends it sooner.

Databases and logs: {demo.folder}
Ctrl-C stops everything."""


def wait_for_ctrl_c() -> None:
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        print("\nStopping ...", flush=True)


if __name__ == "__main__":
    sys.exit(as_program(demonstrate))
