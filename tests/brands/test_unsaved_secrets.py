"""What was typed or chosen in an admin form that was not saved: never lost in silence, never shown again (H10)."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from brands.models import AuthorizationServer, Brand, UnsavedClientSecret
from conversations.flow.retention import sweep
from infrastructure.columns import reveal
from infrastructure.crypto import DecryptionError
from infrastructure.models import AuditEvent
from tests.admin_pages import AdminBrowser, House, address, filled_in
from tests.brands.test_logo import picture
from tests.cast import make_server
from tests.concurrency import at_once
from tests.fake_authorization_server import mounted
from tests.modern_authorization_server import ModernAuthorizationServer
from tests.stored import everything_stored

TYPED = "planted-typed-secret-7c2f"
ELSEWHERE = "https://login.elsewhere.example/token"
WRONG = {"challenge_lifetime": "10"}  # an error of another field
NO_LONGER_KEPT = (
    "The secret that you typed is no longer kept. Type it again, or leave the field empty for no change of the secret."
)
FOR_OTHER_HOSTS = "The secret that you typed was for another host or issuer: type it again."


@pytest.fixture
def acme_house(houses: tuple[House, House]) -> House:
    return houses[0]


@pytest.fixture
def form_url(acme_house: House) -> str:
    return address(AuthorizationServer, "change", acme_house.server)


def secret_of(server: AuthorizationServer) -> str | None:
    secret = AuthorizationServer.objects.get(pk=server.pk).reveal_credentials().client_secret
    return secret.reveal() if secret else None


def as_shown(page: Any, **changes: Any) -> dict[str, Any]:
    """Return what a browser would send of the form on this page: passwords empty, hidden fields as they are."""
    data = filled_in(page.context["adminform"].form) | {"client_secret": ""}
    hidden = re.search(r'name="client_secret_reference" value="([^"]*)"', page.content.decode())
    return data | ({"client_secret_reference": hidden[1]} if hidden else {}) | changes


def errors_of(page: Any) -> dict[str, list[str]]:
    assert page.status_code == 200, page["Location"]
    return {name: list(messages) for name, messages in page.context["adminform"].form.errors.items()}


@pytest.mark.django_db
def test_a_secret_typed_before_the_confirmation_is_the_one_that_is_saved(acme_house: House, form_url: str) -> None:
    """H10, H7. The bug: the second save said "was changed successfully", and the old secret was still stored."""
    admin = acme_house.admin
    admin.sign_in_again(seconds_ago=11 * 60)
    refused = admin.send_changed(form_url, client_secret=TYPED)
    assert "Confirm that it is you" in refused.content.decode()
    assert secret_of(acme_house.server) == acme_house.secrets["client secret"]
    admin.sign_in_again()
    assert admin.post(form_url, as_shown(refused)).status_code == 302
    assert secret_of(acme_house.server) == TYPED
    assert TYPED not in refused.content.decode() + everything_stored()


@pytest.mark.django_db
def test_a_secret_typed_beside_another_fields_error_is_the_one_that_is_saved(acme_house: House, form_url: str) -> None:
    """H10: and the form says what happens to it."""
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    text = " ".join(refused.content.decode().split())
    assert "The secret that you typed is not saved yet." in text
    assert "Leave the field empty to use it, or type another." in text
    again = acme_house.admin.post(form_url, as_shown(refused))
    assert list(errors_of(again)) == ["challenge_lifetime"]
    assert acme_house.admin.post(form_url, as_shown(again, challenge_lifetime="900")).status_code == 302
    assert secret_of(acme_house.server) == TYPED
    assert not UnsavedClientSecret.objects.exists()
    changed = AuditEvent.objects.filter(kind="authorization_server.secret_changed").values_list("changed_fields")
    assert list(changed) == [("client_secret_ciphertext",)]


@pytest.mark.django_db
def test_a_secret_of_a_server_that_is_not_stored_yet_is_kept_as_well(acme_house: House) -> None:
    """H10."""
    add = address(AuthorizationServer, "add")
    addresses = {name: f"https://login.acme.example/{name}" for name in ("authorization_endpoint", "token_endpoint")}
    named = {"brand": acme_house.brand.pk, "key": "Not a key", "client_id": "returns"}
    refused = acme_house.admin.send_changed(add, client_secret=TYPED, **named, **addresses)
    assert acme_house.admin.post(add, as_shown(refused, key="returns")).status_code == 302
    assert secret_of(AuthorizationServer.objects.get(key="returns")) == TYPED


@pytest.mark.django_db
def test_a_secret_is_kept_for_an_issuer_whose_metadata_is_fetched_after_the_confirmation(acme_house: House) -> None:
    """H10, N8, C6: its endpoints are filled in at the second save; another issuer's would get nothing."""
    admin, add = acme_house.admin, address(AuthorizationServer, "add")
    named = {"key": "returns", "client_id": "acme-client", "issuer": "https://login.acme.example"}
    empty = {"authorization_endpoint": "", "token_endpoint": ""}
    admin.sign_in_again(seconds_ago=11 * 60)
    refused = admin.send_changed(add, brand=acme_house.brand.pk, client_secret=TYPED, **named, **empty)
    admin.sign_in_again()
    with mounted(ModernAuthorizationServer(), ModernAuthorizationServer(host="login.elsewhere.example")):
        assert admin.post(add, as_shown(refused)).status_code == 302
        again = admin.send_changed(add, brand=acme_house.brand.pk, client_secret="another", **named, **empty, **WRONG)
        moved = as_shown(again, key="moved", issuer="https://login.elsewhere.example")
        assert errors_of(admin.post(add, moved))["client_secret"] == [FOR_OTHER_HOSTS]
    stored = AuthorizationServer.objects.get(key="returns")
    assert (secret_of(stored), stored.token_endpoint.split("/")[2]) == (TYPED, "login.acme.example")


@pytest.mark.django_db
def test_another_secret_may_be_typed_and_the_kept_one_forgotten(acme_house: House, form_url: str) -> None:
    """H10: the way to undo it."""
    refused = acme_house.admin.send_changed(form_url, client_secret="mistyped", **WRONG)
    typed_anew = as_shown(refused, client_secret=TYPED, challenge_lifetime="900")
    assert acme_house.admin.post(form_url, typed_anew).status_code == 302
    assert secret_of(acme_house.server) == TYPED
    refused = acme_house.admin.send_changed(form_url, client_secret="regretted", **WRONG)
    undone = as_shown(refused, client_secret_forget="on", challenge_lifetime="900")
    assert acme_house.admin.post(form_url, undone).status_code == 302
    assert secret_of(acme_house.server) == TYPED
    assert not UnsavedClientSecret.objects.exists()


@pytest.mark.django_db
def test_the_confirmation_is_asked_for_a_kept_secret_too(acme_house: House, form_url: str) -> None:
    """G10: the field is empty then, and yet the secret would change."""
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    acme_house.admin.sign_in_again(seconds_ago=11 * 60)
    asked = acme_house.admin.post(form_url, as_shown(refused, challenge_lifetime="900"))
    assert "Confirm that it is you" in asked.content.decode()
    assert secret_of(acme_house.server) == acme_house.secrets["client secret"]
    acme_house.admin.sign_in_again()
    assert acme_house.admin.post(form_url, as_shown(asked)).status_code == 302
    assert secret_of(acme_house.server) == TYPED


HOSTS = {
    "token_endpoint": ELSEWHERE,
    "revocation_endpoint": ELSEWHERE,
    "pushed_authorization_request_endpoint": ELSEWHERE,
    "jwks_uri": "https://keys.elsewhere.example/jwks",
    "issuer": "https://login.elsewhere.example",
}


@pytest.mark.django_db
@pytest.mark.parametrize("field", HOSTS)
def test_a_kept_secret_is_not_sent_to_a_host_that_was_named_afterwards(
    acme_house: House, form_url: str, field: str
) -> None:
    """N8: whoever finds the session open must not have the secret that somebody else typed sent to their own host."""
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    moved = as_shown(refused, challenge_lifetime="900", **{field: HOSTS[field]})
    answer = acme_house.admin.post(form_url, moved)
    assert errors_of(answer)["client_secret"] == [FOR_OTHER_HOSTS]
    assert secret_of(acme_house.server) == acme_house.secrets["client secret"]
    assert getattr(AuthorizationServer.objects.get(pk=acme_house.server.pk), field) != HOSTS[field]
    assert "client_secret_reference" not in as_shown(answer)


@pytest.mark.django_db
def test_a_kept_secret_goes_to_the_new_host_that_it_was_typed_for(acme_house: House, form_url: str) -> None:
    """N8: typed together with the new host, it is given for that host."""
    moved = {"token_endpoint": ELSEWHERE}
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **moved, **WRONG)
    assert acme_house.admin.post(form_url, as_shown(refused, challenge_lifetime="900")).status_code == 302
    assert secret_of(acme_house.server) == TYPED
    assert AuthorizationServer.objects.get(pk=acme_house.server.pk).token_endpoint == ELSEWHERE


@pytest.mark.django_db
def test_a_form_that_was_opened_anew_uses_no_secret_of_an_older_one(acme_house: House, form_url: str) -> None:
    """H10: whoever gave up, and later changes something else, does not replace the secret."""
    acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    assert acme_house.admin.send_changed(form_url, prompt="consent").status_code == 302
    assert secret_of(acme_house.server) == acme_house.secrets["client secret"]


@pytest.mark.django_db
def test_a_form_that_was_opened_anew_says_that_a_typed_secret_is_not_saved(acme_house: House, form_url: str) -> None:
    """H10. The bug: after a step back the form was empty, and its save said "was changed successfully" and no more."""
    at_the_field, after_the_save = (
        "<strong>A secret that you typed a short while ago is not saved",
        "this form was opened anew",
    )
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    assert at_the_field not in refused.content.decode()
    assert at_the_field in acme_house.admin.get(form_url).content.decode()
    saved = acme_house.admin.send_changed(form_url, prompt="consent")
    assert after_the_save in acme_house.admin.get(saved["Location"]).content.decode()
    saved = acme_house.admin.post(form_url, as_shown(refused, challenge_lifetime="900"))
    assert after_the_save not in acme_house.admin.get(saved["Location"]).content.decode()
    assert at_the_field not in acme_house.admin.get(form_url).content.decode()
    assert secret_of(acme_house.server) == TYPED


@pytest.mark.django_db
def test_after_ten_minutes_it_has_to_be_typed_again(acme_house: House, form_url: str) -> None:
    """H10: and the form says so; it reports no success."""
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    kept = UnsavedClientSecret.objects.get()
    assert timedelta(minutes=9) < kept.expires_at - timezone.now() <= timedelta(minutes=10)
    UnsavedClientSecret.objects.update(expires_at=timezone.now())
    late = as_shown(refused, challenge_lifetime="900")
    assert errors_of(acme_house.admin.post(form_url, late)) == {"client_secret": [NO_LONGER_KEPT]}
    assert secret_of(acme_house.server) == acme_house.secrets["client secret"]
    sweep(timezone.now())
    assert not UnsavedClientSecret.objects.exists()


@pytest.mark.django_db
def test_it_is_used_once(acme_house: House, form_url: str) -> None:
    """H10."""
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    sent = as_shown(refused, challenge_lifetime="900")
    assert acme_house.admin.post(form_url, sent).status_code == 302
    assert acme_house.admin.send_changed(form_url, client_secret="a-later-one").status_code == 302
    assert errors_of(acme_house.admin.post(form_url, sent)) == {"client_secret": [NO_LONGER_KEPT]}
    assert secret_of(acme_house.server) == "a-later-one"


@pytest.mark.django_db
@pytest.mark.parametrize("whose", ["another session", "another admin", "another server", "nobody's"])
def test_nobody_else_can_use_it(acme_house: House, form_url: str, whose: str) -> None:
    """H10: same session, same admin, same row."""
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    sent, browser, url = as_shown(refused, challenge_lifetime="900"), acme_house.admin, form_url
    if whose == "another session":
        browser = AdminBrowser(acme_house.admin.user)
    elif whose == "another admin":
        alan = User.objects.create_user("alan", is_staff=True)
        acme_house.brand.admins.add(alan)
        browser = AdminBrowser(alan)
    elif whose == "another server":
        url = address(AuthorizationServer, "change", make_server(acme_house.brand, "other"))
        page = browser.get(url)
        sent = as_shown(page, client_secret_reference=sent["client_secret_reference"])
    else:
        sent["client_secret_reference"] = "no\0reference"
    assert errors_of(browser.post(url, sent)) == {"client_secret": [NO_LONGER_KEPT]}
    assert secret_of(acme_house.server) == acme_house.secrets["client secret"]


@pytest.mark.django_db
@pytest.mark.parametrize("column", ["user", "server", "session_digest", "typed_for"])
def test_a_row_that_was_changed_by_sql_cannot_be_read(acme_house: House, form_url: str, column: str) -> None:
    """K1: the ciphertext is bound to whom it belongs to, and to the hosts that it was typed for."""
    acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    kept = UnsavedClientSecret.objects.get()
    assert reveal(kept, "ciphertext").reveal() == TYPED
    changes: dict[str, Any] = {
        "user": User.objects.create_user("mallory"),
        "server": None,
        "session_digest": b"\0" * 32,
        "typed_for": kept.typed_for | {"issuer": "https://elsewhere.example"},
    }
    setattr(kept, column, changes[column])
    with pytest.raises(DecryptionError):
        reveal(kept, "ciphertext")


@pytest.mark.django_db
def test_a_damaged_row_is_asked_for_again(acme_house: House, form_url: str) -> None:
    """K2: an error at the field, and no error page."""
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, **WRONG)
    UnsavedClientSecret.objects.update(ciphertext=b"\1nothing")
    sent = as_shown(refused, challenge_lifetime="900")
    assert errors_of(acme_house.admin.post(form_url, sent)) == {"client_secret": [NO_LONGER_KEPT]}


@pytest.mark.django_db
def test_an_admin_cannot_fill_the_table(acme_house: House, form_url: str) -> None:
    for number in range(25):
        acme_house.admin.send_changed(form_url, client_secret=f"typed-{number}", **WRONG)
    assert UnsavedClientSecret.objects.count() == 20
    assert reveal(UnsavedClientSecret.objects.latest("pk"), "ciphertext").reveal() == "typed-24"


@pytest.mark.django_db
def test_a_secret_that_would_not_be_used_is_not_dropped_in_silence(acme_house: House, form_url: str) -> None:
    """H10. The bug: typed beside `none` or `private_key_jwt`, it was forgotten, and the save reported success."""
    refused = acme_house.admin.send_changed(form_url, client_secret=TYPED, token_endpoint_auth_method="none")
    said = "This client authentication uses no secret. Forget the secret below, or choose another authentication."
    assert errors_of(refused) == {"client_secret": [said]}
    assert acme_house.admin.post(form_url, as_shown(refused, client_secret_forget="on")).status_code == 302
    assert secret_of(acme_house.server) is None


@pytest.mark.django_db
def test_the_form_says_when_the_secret_was_set_and_by_whom(acme_house: House, form_url: str) -> None:
    """H7: in place of the secret; from the audit log, which has no values."""
    acme_house.admin.send_changed(form_url, client_secret=TYPED)
    acme_house.admin.send_changed(form_url, prompt="consent")
    shown = " ".join(acme_house.admin.get(form_url).content.decode().split())
    today = timezone.now().strftime("%Y-%m-%d")
    said = re.search(r"A secret is stored\. It was set on ([0-9-]+) at [0-9:]+ UTC by ([^.]+)\.", shown)
    assert said
    assert said.groups() == (today, acme_house.admin.user.username)


@pytest.mark.django_db
@pytest.mark.parametrize("who", ["the operator", "a deleted account (admin:999999999)"])
def test_a_secret_that_no_present_admin_has_set(acme_house: House, operator: AdminBrowser, who: str) -> None:
    server = AuthorizationServer.objects.get(pk=acme_house.server.pk)
    actor = "operator" if who == "the operator" else "admin:999999999"
    AuditEvent.objects.create(
        kind="authorization_server.secret_changed",
        actor=actor,
        brand_uuid=acme_house.brand.uuid,
        object_uuid=server.uuid,
        changed_fields="client_secret_ciphertext",
    )
    page = operator.get(address(AuthorizationServer, "change", server)).content.decode()
    assert f" UTC by {who}." in " ".join(page.split())


@pytest.mark.django_db
def test_a_file_that_a_form_did_not_keep_is_asked_for_again(acme_house: House) -> None:
    """H10: browsers keep no chosen file, so the form says it at the field."""
    page = address(Brand, "change", acme_house.brand)
    sent = filled_in(acme_house.admin.get(page).context["adminform"].form)
    refused = acme_house.admin.post(
        page, sent | {"accent_colour": "red", "logo": SimpleUploadedFile("logo.png", picture())}
    )
    said = "Choose the file again: nothing was saved, and a browser does not keep a chosen file."
    assert errors_of(refused) == {"accent_colour": ["Write it as #1f4fbf."], "logo": [said]}
    bad = acme_house.admin.post(page, sent | {"accent_colour": "red", "logo": SimpleUploadedFile("logo.png", b"x")})
    assert errors_of(bad)["logo"] == ["This file cannot be read as a PNG or JPEG."]


@pytest.mark.django_db
def test_a_password_that_a_form_did_not_keep_is_asked_for_again(operator: AdminBrowser) -> None:
    """H10: and an account without one is not made by an empty field."""
    operator.sign_in_again(seconds_ago=11 * 60)
    typed = {"username": "zoe", "password1": "a-long-enough-one", "password2": "a-long-enough-one"}
    add = address(User, "add")
    refused = operator.post(add, typed | {"usable_password": "true"})
    said = "Type it again: nothing was saved, and what was typed here is not kept."
    assert {name: errors_of(refused)[name] for name in ("password1", "password2")} == {
        "password1": [said],
        "password2": [said],
    }
    operator.sign_in_again()
    emptied = typed | {"usable_password": "true", "password1": "", "password2": ""}
    assert set(errors_of(operator.post(add, emptied))) == {"password1", "password2"}
    assert not User.objects.filter(username="zoe").exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_saves_at_once_one_uses_it(houses: tuple[House, House]) -> None:
    """H10: single use is a conditional DELETE whose rows are counted."""
    acme, url = houses[0], address(AuthorizationServer, "change", houses[0].server)
    refused = acme.admin.send_changed(url, client_secret=TYPED, **WRONG)
    sent = as_shown(refused, challenge_lifetime="900")
    cookies = acme.admin.client.cookies

    def save(number: int) -> int:
        browser = AdminBrowser.__new__(AdminBrowser)
        browser.user, browser.client = acme.admin.user, type(acme.admin.client)(SERVER_NAME="delegation.test")
        browser.client.cookies = cookies
        return int(browser.post(url, sent).status_code)

    assert sorted(at_once(2, save)) == [200, 302]
    assert secret_of(acme.server) == TYPED
