"""What gunicorn's first process loads before it forks the others."""

from collections.abc import Iterator

import pytest
from django.template import engines
from django.template.backends.django import DjangoTemplates
from django.template.loaders.cached import Loader

from delegation_site.preloading import load_what_requests_need
from oauth_client import transport


@pytest.fixture
def nothing_loaded() -> Iterator[Loader]:
    """Return the loader that keeps templates, with none."""
    backend = engines["django"]
    assert isinstance(backend, DjangoTemplates)
    loader = backend.engine.template_loaders[0]
    assert isinstance(loader, Loader)
    loader.reset()
    transport._adapter.cache_clear()
    transport._tls_context.cache_clear()
    yield loader
    transport._adapter.cache_clear()


def test_pages_and_certificates_are_shared_by_all_processes(nothing_loaded: Loader) -> None:
    load_what_requests_need()

    assert {"base.html", "consumer/link.html", "errors/404.html"} <= set(nothing_loaded.get_template_cache)
    assert transport._tls_context.cache_info().currsize == 1


def test_a_request_loads_no_certificates_again(nothing_loaded: Loader) -> None:
    load_what_requests_need()

    transport.adapter_for("https://login.acme.example/token")

    assert transport._tls_context.cache_info().misses == 1
