"""Keep a client secret that was typed into a form that was not saved, until the same form is saved (H10).

A browser does not get a typed password back, so the field of a form that comes back with an error is empty. Without
this module the next save would report success and leave the old secret in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brands.audited_changes import client_secret_set
from brands.models import UNSAVED_SECRET_LIFETIME, AuthorizationServer, UnsavedClientSecret, session_digest
from brands.server_rules import CREDENTIAL_ENDPOINTS, CredentialHosts
from infrastructure.columns import reveal, seal
from infrastructure.crypto import DecryptionError, Secret

# The fields that decide which hosts receive a secret (N8).
_ADDRESSES: Final = (*CREDENTIAL_ENDPOINTS, "userinfo_endpoint", "jwks_uri", "issuer")
# For each admin. Beyond this the oldest is deleted.
_MOST_KEPT: Final = 20
_NO_LONGER_KEPT: Final = (
    "The secret that you typed is no longer kept. Type it again, or leave the field empty for no change of the secret."
)
# For a form that was opened anew: it does not name the kept secret, and so does not use it.
_TYPED_ELSEWHERE: Final = (
    "A secret that you typed a short while ago is not saved. Type it again if it is still to be stored."
)
_FOR_OTHER_HOSTS: Final = "The secret that you typed was for another host or issuer: type it again."


@dataclass(frozen=True)
class UnsavedSecrets:
    """The secrets that one admin typed in one session."""

    user_pk: Any
    session_key: str = field(repr=False)

    def keep(
        self, secret: Secret, server: AuthorizationServer | None, addresses: Mapping[str, str], until: datetime
    ) -> UnsavedClientSecret:
        """Store a typed secret as ciphertext, for the hosts and the issuer of these addresses."""
        row = UnsavedClientSecret(
            user_id=self.user_pk,
            session_digest=session_digest(self.session_key),
            server=server,
            typed_for=_as_json(CredentialHosts.of(AuthorizationServer(**addresses))),
            expires_at=until,
        )
        seal(row, "ciphertext", secret)
        row.save()
        mine = UnsavedClientSecret.objects.filter(user_id=self.user_pk).order_by("-pk")
        UnsavedClientSecret.objects.filter(pk__in=list(mine.values_list("pk", flat=True)[_MOST_KEPT:])).delete()
        return row

    def find(self, reference: str, server: AuthorizationServer | None, now: datetime) -> UnsavedClientSecret | None:
        """Return the kept secret that a form names; None if it is of another session or server, or expired."""
        try:
            uuid = UUID(reference)
        except ValueError:
            return None
        rows = UnsavedClientSecret.objects.usable(self.user_pk, self.session_key, server, now)
        return rows.select_related("server__brand").filter(uuid=uuid).first()

    def has_any(self, server: AuthorizationServer | None) -> bool:
        """Whether a secret that was typed for this server waits for its form. One query."""
        return UnsavedClientSecret.objects.usable(self.user_pk, self.session_key, server, timezone.now()).exists()


def take(row: UnsavedClientSecret, now: datetime) -> bool:
    """Delete a kept secret, in the transaction that uses it. Returns False if another save was faster (single use)."""
    return UnsavedClientSecret.objects.filter(pk=row.pk, expires_at__gt=now).delete()[0] == 1


def _as_json(hosts: CredentialHosts) -> dict[str, Any]:
    receivers = sorted(list(origin) for origin in hosts.receivers if origin)
    jwks, userinfo = (list(origin) if origin else None for origin in (hosts.jwks, hosts.userinfo))
    return {"receivers": receivers, "issuer": hosts.issuer, "jwks": jwks, "userinfo": userinfo}


def _from_json(stored: dict[str, Any]) -> CredentialHosts:
    receivers = frozenset((scheme, host, port) for scheme, host, port in stored["receivers"])
    jwks, userinfo = (tuple(stored[name]) if stored[name] else None for name in ("jwks", "userinfo"))
    return CredentialHosts(receivers, stored["issuer"], jwks, userinfo)


class SecretInput(forms.PasswordInput):
    """A password field; if a secret is kept, with its reference and a box that forgets it. Never with a secret (H7)."""

    kept: UnsavedClientSecret | None = None

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        password = super().render(name, value, attrs, renderer)
        if self.kept is None:
            return password
        return format_html(
            '{}<input type="hidden" name="{}_reference" value="{}">'
            '<label class="forget"><input type="checkbox" name="{}_forget"> Forget the secret that I typed</label>',
            password,
            name,
            self.kept.uuid,
            name,
        )


class UnsavedSecretForm(forms.ModelForm):  # type: ignore[type-arg]  # django-stubs' generics do not exist at run time
    """The form of an authorization server that keeps a typed client secret across errors."""

    # The kept secrets of the admin who uses the form; set by the model admin.
    unsaved: UnsavedSecrets

    client_secret = forms.CharField(
        label="Client secret",
        required=False,
        strip=False,
        max_length=1024,
        widget=SecretInput(render_value=False, attrs={"autocomplete": "new-password", "class": "vTextField"}),
    )
    _typed = ""
    _addresses: Mapping[str, str] = {}
    _kept: UnsavedClientSecret | None = None
    _until: datetime | None = None

    def _posted(self, suffix: str) -> str:
        return str(self.data.get(self.add_prefix(f"client_secret_{suffix}"), ""))

    @property
    def _names_a_kept_secret(self) -> bool:
        typed = self.data.get(self.add_prefix("client_secret"))
        return bool(self._posted("reference") and not self._posted("forget") and not typed)

    @cached_property
    def changed_data(self) -> list[str]:
        """Include the secret if a kept secret is used: it is a change that needs a confirmation (G10)."""
        changed: list[str] = list(super().changed_data)
        return [*changed, "client_secret"] if self._names_a_kept_secret else changed

    @property
    def _server(self) -> AuthorizationServer | None:
        return self.instance if self.instance.pk else None

    def clean_client_secret(self) -> str:
        """Return the typed secret, or else the kept secret, as if it were typed now. Raises `ValidationError`."""
        # All URLs are cleaned by now, and metadata has not filled in any empty URL yet.
        self._addresses = {name: self.cleaned_data.get(name, "") for name in _ADDRESSES}
        self._typed = str(self.cleaned_data["client_secret"])
        if not self._names_a_kept_secret:
            return self._typed
        row = self.unsaved.find(self._posted("reference"), self._server, timezone.now())
        try:
            secret = reveal(row, "ciphertext") if row else None
        except DecryptionError:
            secret = None
        if row is None or secret is None:
            raise ValidationError(_NO_LONGER_KEPT, "no_longer_kept")
        if _from_json(row.typed_for).need_new_credentials(AuthorizationServer(**self._addresses)):
            raise ValidationError(_FOR_OTHER_HOSTS, "secret_for_another_host")
        self._kept = row
        return secret.reveal()

    def keep_for(self, addresses: Mapping[str, str]) -> None:
        """Keep the secret of a form that comes back for these addresses, which the form's issuer has published.

        A save that fills in the same addresses would send it there, too (N8). A secret that was kept before is kept no
        longer than that.
        """
        self._addresses = {name: addresses.get(name, "") for name in _ADDRESSES}
        if self._kept is not None:
            self._typed, self._until = self.cleaned_data["client_secret"], self._kept.expires_at
            self._kept = None

    def take_kept_secret(self) -> None:
        """Delete the kept secret, which is used now. Call this last, in the transaction that saves the form."""
        now = timezone.now()
        if self._kept is not None and not take(self._kept, now):
            self._kept = None
            self.add_error("client_secret", ValidationError(_NO_LONGER_KEPT, "no_longer_kept"))
        elif self._kept is None:
            self._drop_what_is_replaced(now)

    def _drop_what_is_replaced(self, now: datetime) -> None:
        if row := self.unsaved.find(self._posted("reference"), self._server, now):
            take(row, now)

    @property
    def leaves_a_typed_secret_behind(self) -> bool:
        """Whether this save uses no typed secret, although one waits in another copy of the form (H10)."""
        return not self.cleaned_data["client_secret"] and self.unsaved.has_any(self._server)

    def show_secret(self) -> None:
        """Keep a typed secret if the form comes back with an error. Say at the field what is stored or kept."""
        now, secret = timezone.now(), self.fields.get("client_secret")
        if secret is None:  # the page is read-only
            return
        if self.is_bound and self._kept is None:
            self._drop_what_is_replaced(now)
        if self._typed:
            until = self._until or now + UNSAVED_SECRET_LIFETIME
            self._kept = self.unsaved.keep(Secret(self._typed), self._server, self._addresses, until)
        secret.widget.kept = self._kept
        if self._kept:
            self["client_secret"].help_text = _about_kept(self._kept)
        else:
            is_left_behind = not self.is_bound and self.unsaved.has_any(self._server)
            self["client_secret"].help_text = _about_stored(self.instance, is_left_behind=is_left_behind)


def _about_kept(row: UnsavedClientSecret) -> SafeString:
    said = (
        "<strong>The secret that you typed is not saved yet. It is kept until {} UTC. Leave the field empty to use it, "
        "or type another.</strong>"
    )
    return format_html(said, f"{row.expires_at:%H:%M}")


def _about_stored(server: AuthorizationServer, *, is_left_behind: bool) -> SafeString:
    left_behind = format_html(" <strong>{}</strong>", _TYPED_ELSEWHERE) if is_left_behind else ""
    if not server.pk:
        return format_html("It is never shown again.{}", left_behind)
    if server.client_secret_ciphertext is None:
        return format_html("No secret is stored.{}", left_behind)
    found = client_secret_set(server)
    when = f" It was set on {found[0]:%Y-%m-%d} at {found[0]:%H:%M} UTC by {found[1]}." if found else ""
    said = "A secret is stored.{} It is never shown again. Leave the field empty for no change.{}"
    return format_html(said, when, left_behind)
