"""Is the process alive, and can it do its work?"""

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from delegation_site.database_clock import report_in_web_process
from delegation_site.problems import Problem, json_response


@require_safe
def live(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Tell that the process answers."""
    return json_response({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """Tell whether the database answers; a clock that is not the database's is said in the log."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        report_in_web_process()
    except DatabaseError:
        return Problem(503, "database_unavailable", "The database does not answer.").response()
    return json_response({"status": "ok"})
