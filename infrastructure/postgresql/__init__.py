"""Django database backend for PostgreSQL with timeouts. It drops connections to read-only servers."""
