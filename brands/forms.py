"""The admin's forms for brands, authorization servers and bot keys. Secrets are write-only (H7)."""

import re
from typing import Any, Final

from django import forms
from django.contrib.admin.utils import label_for_field
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils import timezone

from accounts.sign_in import RecentSignInForm
from brands.branding import MAX_LOGO_UPLOAD, logo_hash, reencode_logo, validate_scope_descriptions
from brands.discovered import DiscoveringForm, IssuerInput
from brands.models import LIMITS_OF_A_KEY, AuthorizationServer, BotKey, Brand, SamePersonCheck
from brands.scoped_admin import StoredRowForm
from brands.server_rules import (
    HOST_FIELDS,
    NEEDED_ENDPOINTS,
    SecretProblem,
    ServerChange,
    complete_from_metadata,
    discovery_problem,
    issuer_of_address,
    lock_all_brands,
    lock_server,
    refuse_shared_registration,
)
from brands.server_words import HELP_TEXTS, LABELS
from infrastructure import rate_limits
from infrastructure.crypto import Secret
from oauth_client import DiscoveryFailed
from oauth_client.validators import ID_TOKEN_ALGORITHMS, IGNORABLE_METADATA, validate_extra_authorization_parameters

_SECRET_NEEDED = {
    SecretProblem.NONE_STORED: "This client authentication needs a secret.",
    SecretProblem.FOR_ANOTHER_HOST: "A host or the issuer is new: type the client secret again.",
}
_ACCOUNT = re.compile(r"[0-9]{1,9}")
# It would be dropped, and the save would report success.
_SECRET_NOT_USED = (
    "This client authentication uses no secret. Forget the secret below, or choose another authentication."
)
# With a session that was left open, or stolen, nobody must be able to send secrets and consumers elsewhere, or to
# weaken how we verify who signed in, or make bound tokens readable (G10).
_NEED_RECENT_SIGN_IN = frozenset(
    {
        *(*HOST_FIELDS, "client_secret", "token_endpoint_auth_method", "same_person_checks", "ignored_metadata"),
        *("id_token_signing_alg_values", "subject_claim", "expected_claims_policy", "trusted_audiences"),
        *("subject_member", "dpop_bound_access_tokens"),
    }
)


class ParametersField(forms.JSONField):
    """A JSON object whose values are strings.

    Anything else is refused here, before nested values are compared or written.
    """

    check_object = staticmethod(validate_extra_authorization_parameters)

    def to_python(self, value: Any) -> Any:
        try:
            found = super().to_python(value)
        except (ValueError, RecursionError):  # a number of more than 4,300 digits; nested too deep
            raise ValidationError(self.error_messages["invalid"], code="invalid") from None
        if found not in self.empty_values:
            self.check_object(found)
        return found

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Show exactly what was typed. JSON can escape lone surrogates (half characters), which no page can contain."""
        return initial if self.disabled else InvalidJSONInput(data or "")


class LinesField(forms.JSONField):
    """A list of texts, one on each line."""

    widget = forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"})

    def to_python(self, value: Any) -> Any:
        lines = value.splitlines() if isinstance(value, str) else value or []
        return [line.strip() for line in lines if line.strip()]

    def bound_data(self, data: Any, initial: Any) -> Any:
        return initial if self.disabled else data

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare the lists, because the texts may differ by empty lines."""
        return bool(self.to_python(initial) != self.to_python(data))


class ScopeDescriptionsField(ParametersField):
    """A JSON object: scope -> description for the consumer."""

    check_object = staticmethod(validate_scope_descriptions)


class NamesField(forms.CharField):
    """Names, separated by spaces or commas, as a list."""

    def to_python(self, value: Any) -> Any:
        return str(super().to_python(value)).replace(",", " ").split()

    def prepare_value(self, value: Any) -> Any:
        return " ".join(value) if isinstance(value, list) else value


SHOWN_CALLBACK_ID: Final = "shown_callback_id"
_REDIRECT_URI_TAKEN: Final = (
    "Another new server has taken the redirect URI that this page showed. Register the one that it shows now, and save "
    "again."
)


class AuthorizationServerForm(DiscoveringForm, StoredRowForm):
    """An authorization server."""

    # The redirect URI that a new server gets. The form of a new server says which one it showed.
    free_callback_id = ""

    same_person_checks = forms.MultipleChoiceField(
        label="Accepted checks",
        choices=SamePersonCheck.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="A bot may name any of these for a challenge.",
    )
    default_check = forms.ChoiceField(
        label="Default check", choices=SamePersonCheck.choices, help_text="For challenges that name none."
    )
    token_response_members = NamesField(
        label="Members for bots",
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text="Further members of the token answer that bots get beside the token, such as instance_url; separated "
        "by spaces. Never a secret: names that could be a token's are refused.",
    )
    ignored_metadata = forms.MultipleChoiceField(
        label="Do not use, although the server announces it",
        choices=[(name, label_for_field(name, AuthorizationServer)) for name in IGNORABLE_METADATA],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="For what its metadata would fill in and this client may not or shall not use, such as a pushed "
        "authorization request endpoint that refuses us. The field itself stays empty. To use it again, untick it and "
        "fill in the field.",
    )
    id_token_signing_alg_values = forms.MultipleChoiceField(
        label="ID token algorithms",
        choices=[(name, name) for name in ID_TOKEN_ALGORITHMS],
        widget=forms.CheckboxSelectMultiple,
        help_text="Only for openid. Tick what the server signs its ID tokens with, and no more. HS256 is for one that "
        "signs with the client secret (LINE).",
    )

    class Meta:
        model = AuthorizationServer
        exclude = ("client_secret_ciphertext",)  # the admin's fieldsets name every field
        field_classes = {
            "extra_authorization_parameters": ParametersField,
            "resource": LinesField,
            "trusted_audiences": LinesField,
            "scope_descriptions": ScopeDescriptionsField,
        }
        labels = LABELS
        help_texts = HELP_TEXTS
        # Django's default is too narrow for five digits on a phone.
        widgets = dict.fromkeys(
            ("max_age", "default_token_lifetime", "max_token_lifetime", "challenge_lifetime"),
            forms.NumberInput(attrs={"class": "vBigIntegerField"}),
        ) | {
            "issuer": IssuerInput(attrs={"class": "vTextField"}),
            # Otherwise browsers take it for the name of the account whose password follows.
            "client_id": forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._change = ServerChange(self.instance)
        for name in NEEDED_ENDPOINTS:
            self.fields[name].required = False  # an issuer's metadata can supply them
        for name in ("same_person_checks", "id_token_signing_alg_values", "ignored_metadata", "token_response_members"):
            # Django ignores the model's default if the form declares the field itself.
            self.initial.setdefault(name, getattr(self.instance, name))
        self.fields["default_check"].initial = self.instance.default_same_person_check

    def clean_issuer(self) -> str:
        """Understand the address of the metadata, which people paste for the issuer."""
        return issuer_of_address(self.cleaned_data["issuer"])

    def clean_extra_authorization_parameters(self) -> dict[str, str]:
        return self.cleaned_data["extra_authorization_parameters"] or {}

    def clean_scope_descriptions(self) -> dict[str, Any]:
        return self.cleaned_data["scope_descriptions"] or {}

    def needs_recent_sign_in(self) -> bool:
        """True if the change is sensitive, so that a recent sign-in is needed."""
        return bool(_NEED_RECENT_SIGN_IN & set(self.changed_data))

    def clean(self) -> dict[str, Any]:
        """Complete the endpoints, check the key and the secret, and put the default check first."""
        if self.discovers:
            return self.cleaned_data
        lock_all_brands()  # as a file that is applied does: it would wait for this server, and we for the brands
        if self.instance.pk:
            self._lock_server(self.instance)
        cleaned = super().clean() or {}
        self._check_redirect_uri()
        self._switch_off(cleaned)
        if self.signed_in_recently or not self.needs_recent_sign_in():  # otherwise no metadata was fetched
            self._complete_endpoints(cleaned)
        self._check_key(cleaned)
        accepted, default = cleaned.get("same_person_checks"), cleaned.get("default_check")
        if accepted and default and default not in accepted:
            self.add_error("default_check", "The default must be one of the accepted checks.")
        elif accepted and default:
            cleaned["same_person_checks"] = [default, *(check for check in accepted if check != default)]
        return cleaned

    @staticmethod
    def _lock_server(server: AuthorizationServer) -> None:
        """Count the resources of its APIs as they are stored: another admin may just have saved one (B20)."""
        if (stored := lock_server(server.pk)) is not None:
            server.api_resources = stored.api_resources

    def _discover(self) -> None:
        super()._discover()
        self._check_redirect_uri()

    def _check_redirect_uri(self) -> None:
        """Refuse a new server whose redirect URI, which may be registered by now, was saved from another tab."""
        shown = self.data.get(SHOWN_CALLBACK_ID)
        if shown and not self.instance.pk and shown != self.free_callback_id:
            self.add_error(None, ValidationError(_REDIRECT_URI_TAKEN, "redirect_uri_taken"))

    def _switch_off(self, cleaned: dict[str, Any]) -> None:
        """Empty each field that is ticked as not used.

        If a value was typed too, the admin's wish is unclear: an error.
        """
        for name in cleaned.get("ignored_metadata") or ():
            if cleaned.get(name) and name in self.changed_data:
                message = "It is ticked as not to be used: untick it, or leave this empty."
                self.add_error(name, ValidationError(message, "ignored_metadata"))
            elif cleaned.get(name):
                cleaned[name] = type(cleaned[name])()

    def _complete_endpoints(self, cleaned: dict[str, Any]) -> None:
        """Fill in what the issuer's metadata names, and add an error at each field that it contradicts (C6)."""
        problems: dict[str, str] = {}
        if isinstance(self.metadata, DiscoveryFailed):
            problems = dict([discovery_problem(self.metadata)])
        elif self.metadata is not None:
            problems = complete_from_metadata(cleaned, self.metadata)
        for name, message in problems.items():
            self.add_error(name, ValidationError(message, "metadata"))
        for name in NEEDED_ENDPOINTS:
            if not problems and not cleaned.get(name) and name not in self.errors:
                message = "Type it, or give an issuer that publishes its metadata."
                self.add_error(name, ValidationError(message, "required"))

    def _check_key(self, cleaned: dict[str, Any]) -> None:
        """Add the error at the field. From the database's constraint it would be an error of the whole form."""
        brand, key = cleaned.get("brand"), cleaned.get("key")
        if brand and key and brand.authorization_servers.filter(key=key).exists():
            self.add_error(
                "key", ValidationError("This brand already has a server of this short name.", "unique_together")
            )

    def _post_clean(self) -> None:
        if self.discovers:
            return
        super()._post_clean()  # type: ignore[misc]  # Django's own hook, after which the instance has the new values
        if not self.errors:
            self._check_registration()
        if "client_secret" not in self.errors:
            self._check_secret(is_given=bool(self.cleaned_data["client_secret"]))
        if not self.errors:
            self.take_kept_secret()

    def _check_secret(self, *, is_given: bool) -> None:
        problem = self._change.problem_with_secret(is_given=is_given)
        if problem is not None:
            self.add_error("client_secret", ValidationError(_SECRET_NEEDED[problem], problem))
        elif is_given and not self.instance.uses_client_secret:
            self.add_error("client_secret", ValidationError(_SECRET_NOT_USED, "secret_not_used"))

    def _check_registration(self) -> None:
        try:
            refuse_shared_registration(self.instance)
        except ValidationError as error:
            self.add_error(None, error)

    def apply_secret(self) -> None:
        """Put the given secret, or a signing key, on the instance."""
        typed = self.cleaned_data["client_secret"]
        self._change.apply_credentials(Secret(typed) if typed else None)


class AccountsField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]  # no generics at run time
    """Accounts by their keys. The database would fail for a number that is no key."""

    def clean(self, value: Any) -> Any:
        if (wrong := next((key for key in value or () if not _ACCOUNT.fullmatch(str(key))), None)) is not None:
            raise ValidationError(self.error_messages["invalid_pk_value"], "invalid_pk_value", {"pk": str(wrong)[:20]})
        return super().clean(value)


class BrandForm(RecentSignInForm, StoredRowForm):
    """A brand and its look. Its members and its support contact change only after a recent sign-in (G10)."""

    logo = forms.FileField(
        required=False,
        help_text="PNG or JPEG, at most 1 MB. It is scaled to at most 240 by 80 pixels.",
        widget=forms.FileInput(attrs={"accept": "image/png,image/jpeg"}),
    )
    remove_logo = forms.BooleanField(required=False)

    class Meta:
        model = Brand
        fields = (
            "name",
            "slug",
            "is_active",
            "token_read_purpose_required",
            "conversation_ids",
            "close_idle_after",
            "accent_colour",
            "support_contact",
            "admins",
            "viewers",
        )

    def clean_logo(self) -> bytes | None:
        """Return the picture as it will be served; None if no file was chosen. Raises `ValidationError`."""
        upload = self.cleaned_data["logo"]
        return reencode_logo(upload.read(MAX_LOGO_UPLOAD + 1)) if upload else None

    def needs_recent_sign_in(self) -> bool:
        """Whether the members or the support contact change, so that a recent sign-in is needed."""
        return bool({"admins", "viewers", "support_contact"} & set(self.changed_data))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if cleaned.get("remove_logo"):
            self.instance.logo_hash = ""
        elif cleaned.get("logo"):
            self.instance.logo_hash = logo_hash(cleaned["logo"])
        return cleaned


class BotKeyForm(RecentSignInForm, StoredRowForm):
    """A new bot key. `token:read` has to be ticked by hand (G3)."""

    scopes = forms.MultipleChoiceField(
        choices=BotKey.Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        initial=[BotKey.Scope.CHALLENGE_CREATE, BotKey.Scope.CHALLENGE_READ],
        help_text="A key's scopes never change. Tick api:call if the bot acts through the operations that you "
        "declared, and token:read only if it calls your API itself and so holds the consumer's token.",
    )
    same_person_checks = forms.MultipleChoiceField(
        choices=SamePersonCheck.choices,
        widget=forms.CheckboxSelectMultiple,
        initial=[],
        required=False,
        help_text="Which of the checks that the authorization server accepts its challenges may use. None ticked: all "
        "of them. They never change, either.",
    )

    class Meta:
        model = BotKey
        fields = ("brand", "label", "scopes", "same_person_checks", "expires_at", *LIMITS_OF_A_KEY)
        help_texts = {
            "calls_per_minute": f"Empty: {rate_limits.CALLS_PER_KEY.times:,}, as every key.",
            "token_reads_per_minute": f"In each process. Empty: {rate_limits.TOKEN_READS_PER_KEY.times:,}.",
            "label": "So that you recognise the key in this list, for example: acme-bot, production.",
            "expires_at": "Empty: until it is revoked.",
        }

    def needs_recent_sign_in(self) -> bool:
        is_limited_anew = not set(LIMITS_OF_A_KEY).isdisjoint(self.changed_data)
        return self.instance.pk is None or is_limited_anew or self._lives_on(self.cleaned_data)

    def _lives_on(self, cleaned: dict[str, Any]) -> bool:
        """Whether the key's expiry is moved later or removed. The instance still has the old one."""
        before, after = self.instance.expires_at, cleaned.get("expires_at")
        return before is not None and (after is None or after > before)

    def clean_expires_at(self) -> Any:
        """Refuse an expiry in the past for a new key. An existing key may be ended with one."""
        expires_at = self.cleaned_data["expires_at"]
        if self.instance.pk is None and expires_at is not None and expires_at <= timezone.now():
            raise ValidationError("This time is in the past.", "expires_at_over")
        return expires_at
