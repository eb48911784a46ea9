"""A brand's logo: read strictly, drawn anew, small. Nothing of the uploaded file itself is ever served.

Drawing it anew takes away metadata, comments and whatever else a file can hide; a size limit before the pixels are
read keeps a small file from unpacking into gigabytes.
"""

import hashlib
import struct
from io import BytesIO
from typing import Final

from django.core.exceptions import ValidationError
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_UPLOAD: Final = 1024 * 1024
MAX_PIXELS: Final = 4_000_000
SIZE: Final = (240, 80)
# A first visit is to stay below 20 KB in all.
MAX_BYTES: Final = 8 * 1024

# What Pillow is known to raise on a file that was made to break it, in its code for EXIF as well.
_BROKEN: Final = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    struct.error,
)


def drawn_anew(upload: bytes) -> bytes:
    """Return an uploaded PNG or JPEG as a small PNG. Raises `ValidationError`."""
    if len(upload) > MAX_UPLOAD:
        raise ValidationError("The file is larger than 1 MB.", "logo_too_large")
    try:
        image = _read(upload)
    except _BROKEN:
        raise ValidationError("This is no PNG or JPEG that can be read.", "logo_unreadable") from None
    width, height = SIZE
    while len(png := _as_png(image, (width, height))) > MAX_BYTES:
        width, height = width * 3 // 4, height * 3 // 4
    return png


def logo_hash(png: bytes) -> str:
    """Return the part of its address that changes with the picture."""
    return hashlib.sha256(png).hexdigest()[:16]


def _read(upload: bytes) -> Image.Image:
    with Image.open(BytesIO(upload), formats=("PNG", "JPEG")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValidationError("The picture has more than 4 million pixels.", "logo_too_large")
        image.load()
        # Phones write which side is up beside the pixels.
        return ImageOps.exif_transpose(image).convert("RGBA")


def _as_png(image: Image.Image, size: tuple[int, int]) -> bytes:
    small = image.copy()
    small.thumbnail(size)
    # Without `info`, where Pillow keeps what the file said beside its pixels.
    small.info = {}
    png = BytesIO()
    small.quantize(256, method=Image.Quantize.FASTOCTREE).save(png, "PNG", optimize=True)
    return png.getvalue()
