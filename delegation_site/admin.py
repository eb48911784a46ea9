"""Second factors as the operator sees them: to take a lost one away, and never what it is made of."""

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.http import HttpRequest

# allauth's own pages: the one would show and change what a second factor is made of, the other is of no use here.
admin.site.unregister(Authenticator)
admin.site.unregister(EmailAddress)


@admin.register(Authenticator)
class AuthenticatorAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generics at run time
    """Only for the operator: somebody who lost a phone sets up another one."""

    list_display = fields = ("user", "type", "created_at", "last_used_at")
    list_select_related = ("user",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Each admin sets up their own."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Authenticator | None = None) -> bool:
        """There is nothing to change."""
        return False
