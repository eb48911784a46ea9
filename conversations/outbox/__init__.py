"""The outbox: what was promised in a transaction and is done after it, off the request path, by `manage.py worker`."""
