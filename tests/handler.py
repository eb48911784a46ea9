"""The handler of Django's test client. Like `delegation_site/wsgi.py` it answers some requests before Django does."""

from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.http.response import ResponseHeaders
from django.test.client import ClientHandler

from conversations import before_django


class Handler(ClientHandler):
    """Django's handler behind the fast path. `django` is the full way alone."""

    def __call__(self, environ: dict[str, Any]) -> Any:
        # Every HTTP/1.1 client sends it (RFC 9112 section 3.2); Django's does not.
        environ.setdefault("HTTP_HOST", environ["SERVER_NAME"])
        return self.behind_fast_path(environ)

    def behind_fast_path(self, environ: dict[str, Any]) -> Any:
        """Answer as in production, and return Django's kind of response."""
        started: list[tuple[str, list[tuple[str, str]]]] = []
        answered: Any = before_django.before(lambda environ, _: self.django(environ))(
            environ, lambda *start: started.append(start)
        )
        if not started:
            return answered
        ((status, headers),) = started
        response: Any = HttpResponse(b"".join(answered), status=int(status[:3]))
        response.headers = ResponseHeaders({name: value for name, value in headers if name != "Set-Cookie"})
        for name, value in headers:
            if name == "Set-Cookie":
                response.cookies.load(value)
        response.wsgi_request = WSGIRequest(environ)
        return response

    def django(self, environ: dict[str, Any]) -> Any:
        """Answer by Django alone, with every middleware."""
        return super().__call__(environ)
