"""The admin's forms: secrets go in and never come back."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from brands.configuration_file import secret_hosts
from brands.models import AuthorizationServer, BotKey, SamePersonCheck
from delegation_site.crypto import Secret


class AuthorizationServerForm(forms.ModelForm):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """An authorization server, with a write-only secret and the same-person checks as a choice of words."""

    client_secret = forms.CharField(
        required=False,
        strip=False,
        max_length=1024,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "off"}),
        help_text="Write-only. Leave it empty to keep the stored one.",
    )
    same_person_checks = forms.MultipleChoiceField(
        choices=SamePersonCheck.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="A forwarded link is harmless with every check but none, which can only stand alone.",
    )
    default_check = forms.ChoiceField(choices=SamePersonCheck.choices, help_text="For challenges that name none.")

    class Meta:
        model = AuthorizationServer
        exclude = ("client_secret_ciphertext",)  # noqa: DJ006  # the admin's fieldsets name every field

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hosts_before = secret_hosts(self.instance) if self.instance.pk else None
        self.fields["default_check"].initial = self.instance.default_same_person_check

    def clean(self) -> dict[str, Any]:
        """Check the secret and put the default check first."""
        cleaned = super().clean() or {}
        self._check_secret(cleaned)
        accepted, default = cleaned.get("same_person_checks"), cleaned.get("default_check")
        if accepted and default:
            if default not in accepted:
                self.add_error("default_check", "The default must be one of the accepted checks.")
            cleaned["same_person_checks"] = [default, *(check for check in accepted if check != default)]
        return cleaned

    def _check_secret(self, cleaned: dict[str, Any]) -> None:
        public = cleaned.get("token_endpoint_auth_method") == AuthorizationServer.ClientAuthentication.NONE
        if cleaned.get("client_secret") or public:
            return
        if self.instance.client_secret_ciphertext is None:
            self.add_error("client_secret", ValidationError("This client authentication needs a secret.", "required"))

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]  # Django's own hook, after which the instance has the new values
        if self._hosts_before in (None, secret_hosts(self.instance)) or self.cleaned_data.get("client_secret"):
            return
        if self.instance.client_secret_ciphertext is not None:
            # Otherwise whoever may edit the endpoint could have the stored secret sent to a host of their own (N8).
            message = "An endpoint's host changed: type the client secret again."
            self.add_error("client_secret", ValidationError(message, "secret_for_another_host"))

    def apply_secret(self) -> None:
        """Put the typed secret on the instance, which has its brand by now; a public client keeps none."""
        if self.cleaned_data["token_endpoint_auth_method"] == AuthorizationServer.ClientAuthentication.NONE:
            self.instance.set_client_secret(None)
        elif self.cleaned_data["client_secret"]:
            self.instance.set_client_secret(Secret(self.cleaned_data["client_secret"]))


class BotKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """A new bot key. `token:read` has to be ticked by hand (G3)."""

    scopes = forms.MultipleChoiceField(
        choices=BotKey.Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        initial=[BotKey.Scope.CHALLENGE_CREATE, BotKey.Scope.CHALLENGE_READ],
    )

    class Meta:
        model = BotKey
        fields = ("brand", "label", "scopes", "expires_at")
