"""URLconf for `bench.introspection`."""

from django.urls import path
from oauth2_provider.views import IntrospectTokenView

urlpatterns = [path("introspect/", IntrospectTokenView.as_view())]
