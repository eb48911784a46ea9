"""What a command says of a database that fails: one line on standard error, in place of a traceback."""

from delegation_site.database_errors import is_unavailable


def in_one_line(error: Exception) -> str:
    """Return the line; without the rows that PostgreSQL quotes below its own."""
    said = next(iter(str(error).splitlines()), "")
    if is_unavailable(error):
        return f"The database cannot be used: {said} Nothing is lost; run it again when it can."
    return f"The database refused a statement: {said}"
