"""Django's backend for PostgreSQL, with limits to waiting and no use for a server that takes no writes."""
