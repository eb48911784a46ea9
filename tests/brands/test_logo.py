"""A brand's logo: parsed strictly, encoded again without the file's metadata, and cached for ever."""

import struct
import zlib
from base64 import b64decode
from io import BytesIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from brands.branding import MAX_LOGO_BYTES, MAX_LOGO_UPLOAD, reencode_logo
from brands.models import Brand, Logo
from infrastructure.models import AuditEvent
from tests.admin_pages import House, address
from tests.cast import HOST, Bot, Browser

Houses = tuple[House, House]


def picture(kind: str = "PNG", size: tuple[int, int] = (600, 200), **options: Any) -> bytes:
    written = BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(written, kind, **options)
    return written.getvalue()


def png_that_says_it_is(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims this many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def one_colour(size: tuple[int, int]) -> bytes:
    """A complete PNG with many pixels and very few bytes."""
    written = BytesIO()
    Image.new("1", size).save(written, "PNG", optimize=True)
    return written.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_any_picture_becomes_a_small_png_of_pixels_alone(kind: str) -> None:
    """Noise packs worst: even it stays within what a first visit may cost."""
    secret = "planted-camera-position"
    info = PngInfo()
    info.add_text("Comment", secret)
    said: dict[str, Any] = {"pnginfo": info} if kind == "PNG" else {"comment": secret.encode()}
    upload = picture(kind, icc_profile=secret.encode(), **said)
    assert secret.encode() in upload
    png = reencode_logo(upload)
    assert (png[:8], secret.encode() in png, len(png) <= MAX_LOGO_BYTES) == (b"\x89PNG\r\n\x1a\n", False, True)
    with Image.open(BytesIO(png)) as image:
        assert image.width <= 240
        assert image.height <= 80
        assert image.info.keys() <= {"transparency"}


def test_a_picture_that_a_phone_took_upright_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(BytesIO(reencode_logo(picture("JPEG", (160, 40), exif=exif)))) as image:
        assert image.height > image.width


@pytest.mark.parametrize(
    "upload",
    [
        b"",
        b"<svg onload='alert(1)'/>",
        b"\x89PNG\r\n\x1a\n",
        picture("GIF"),
        picture("BMP"),
        picture()[:2000],
        png_that_says_it_is(60000, 60000),
        png_that_says_it_is(12000, 12000),
        one_colour((4000, 1001)),
        b"x" * (MAX_LOGO_UPLOAD + 1),
    ],
    ids=["empty", "svg", "cut off", "gif", "bmp", "half", "3.6 gigapixels", "144 megapixels", "4 megapixels", "1 MB"],
)
def test_no_other_file_and_no_decompression_bomb_is_taken(upload: bytes) -> None:
    with pytest.raises(ValidationError):
        reencode_logo(upload)


def upload(house: House, name: str = "logo.png", content: bytes | None = None, **fields: Any) -> Any:
    form: dict[str, Any] = {
        "name": "Acme",
        "accent_colour": "#0a7d55",
        "support_contact": "",
        "conversation_ids": "unique",
    }
    form |= {"close_idle_after": "0", **fields}
    if content is not None:
        form["logo"] = SimpleUploadedFile(name, content)
    return house.admin.client.post(address(Brand, "change", house.brand), form, secure=True)


@pytest.mark.django_db
def test_a_brands_admin_uploads_replaces_and_removes_the_logo(houses: Houses) -> None:
    acme, rival = houses
    assert upload(acme, content=picture()).status_code == 302
    first = Brand.objects.get(pk=acme.brand.pk)
    served = Client(SERVER_NAME=HOST).get(first.logo_url, secure=True)
    assert served.content == bytes(Logo.objects.get().png)
    headers = ("Content-Type", "Cache-Control", "X-Content-Type-Options")
    assert [served[name].split(";")[0] for name in headers] == [
        "image/png",
        "public, max-age=31536000, immutable",
        "nosniff",
    ]
    assert upload(acme, content=picture("JPEG")).status_code == 302
    second = Brand.objects.get(pk=acme.brand.pk)
    assert second.logo_url != first.logo_url
    assert Client(SERVER_NAME=HOST).get(first.logo_url, secure=True).status_code == 404
    assert upload(acme, remove_logo="on").status_code == 302
    assert (Brand.objects.get(pk=acme.brand.pk).logo_url, Logo.objects.count()) == ("", 0)
    changes = AuditEvent.objects.filter(kind="brand.changed", brand_uuid=acme.brand.uuid)
    assert [event.changed_fields for event in changes.order_by("pk")] == [
        "accent_colour logo_hash",
        "logo_hash",
        "logo_hash",
    ]
    assert Brand.objects.get(pk=rival.brand.pk).logo_hash == ""


@pytest.mark.django_db
def test_a_refused_logo_is_said_at_its_field_and_changes_nothing(houses: Houses) -> None:
    answer = upload(houses[0], "logo.png", b"<svg/>", accent_colour="#ffffff")
    errors = answer.context["adminform"].form.errors.as_data()
    assert {name: [error.code for error in found] for name, found in errors.items()} == {"logo": ["logo_unreadable"]}
    brand = Brand.objects.get(pk=houses[0].brand.pk)
    assert (brand.logo_hash, brand.accent_colour) == ("", "")


@pytest.mark.django_db
def test_whom_consumers_ask_is_changed_only_after_a_recent_sign_in(houses: Houses) -> None:
    """G10: a session left open must not send a brand's consumers to somebody else."""
    houses[0].admin.sign_in_again(seconds_ago=3600)
    assert upload(houses[0], support_contact="https://evil.example/").status_code == 200
    assert Brand.objects.get(pk=houses[0].brand.pk).support_contact == ""
    assert upload(houses[0]).status_code == 302


@pytest.mark.django_db
def test_a_support_contact_may_be_a_plain_address(houses: Houses) -> None:
    assert upload(houses[0], support_contact="help@acme.example").status_code == 302
    assert Brand.objects.get(pk=houses[0].brand.pk).support_contact == "mailto:help@acme.example"


@pytest.mark.django_db
def test_a_page_shows_the_look(acme_bot: Bot, ada: Browser, acme: Brand, acme_server: Any) -> None:
    Brand.objects.update(accent_colour="#ffd400", support_contact="mailto:help@acme.example", logo_hash="0" * 16)
    text = ada.get(acme_bot.challenge()["url"]).content.decode()
    assert f'<img src="/brands/{acme.uuid}/logo-{"0" * 16}.png" alt="" height="40">' in text
    assert '<a href="mailto:help@acme.example">Acme\'s support</a>' in text
    assert "--fill:#ffd400;--on-fill:#000000" in text


# Pictures with a broken EXIF part, found by a fuzzer: each made Pillow raise another kind of error.
BROKEN_EXIF = {
    "struct.error": (
        "iVBORw0KGgoAAAANSUhEUgAAAB4AAAAeCAIAAAC0Ujn1AAAAbmVYSWZNTQAqAAAACAADAUIAAgAAADMAAAAyARIAAwAAAAEABgAA"
        "ARoABQAAAAEAAABmAAAAAHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4AAAAAABIAAAAAWWD"
        "Y8wAAAApSURBVHicY+TkYGegDWCikbmjRo8aPWr0qNGjRo8aPWr0qNGjRo8IowFKdgBUW20THwAAAABJRU5ErkJggg=="
    ),
    "TypeError": (
        "iVBORw0KGgoAAAANSUhEUgAAAB4AAAAeCAIAAAC0Ujn1AAAAbmVYSWZNTQAqAAAACAADARoAAgAAADMAAAAyARIAAwAAAAEABgAA"
        "ARoABQAAAAHAAABmAAAAAHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4AAAAAABIAAAAARHj"
        "cG4AAAApSURBVHicY+TkYGegDWCikbmjRo8aPWr0qNGjRo8aPWr0qNGjRo8IowFKdgBUW20THwAAAABJRU5ErkJggg=="
    ),
}


@pytest.mark.parametrize("error", BROKEN_EXIF)
def test_a_broken_exif_part_is_a_broken_picture(error: str) -> None:
    """The bug: the admin's page ended in a 500."""
    with pytest.raises(ValidationError) as refused:
        reencode_logo(b64decode(BROKEN_EXIF[error]))
    assert refused.value.code == "logo_unreadable"
