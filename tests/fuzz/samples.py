"""Small images in every format that is read and in some that are not, and archives of them."""

import io
import tarfile

import numpy as np
from PIL import Image

from tests.artifacts.encoded_images import encode, pillow_heif


def encoded_images() -> list[bytes]:
    """An image in every format that is taken, upright and turned, and in some that are not taken."""
    colours = np.random.default_rng(0).integers(0, 256, (16, 20, 4), dtype=np.uint8)
    whole = []
    for kind, mode, options in (
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("PPM", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("WEBP", "RGBA", {}),
        ("AVIF", "RGB", {}),
        ("ICO", "RGBA", {}),
        ("TGA", "RGB", {}),
    ):
        buffer = io.BytesIO()
        image = Image.fromarray(colours).convert("L" if mode == "I;16" else mode)
        (image.convert("I;16") if mode == "I;16" else image).save(buffer, kind, **options)
        whole.append(buffer.getvalue())
    return whole + _turned(colours)


def _turned(colours: np.ndarray) -> list[bytes]:
    """Images that a camera held askew, one of them with transparency, and one in CMYK; HEIC where it can be written."""
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for kind, mode in (("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA")):
        buffer = io.BytesIO()
        Image.fromarray(colours).convert(mode).save(buffer, kind, exif=exif.tobytes())
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(colours[..., :3]).save(buffer, "TIFF", tiffinfo={0x0112: 6})
    made.append(buffer.getvalue())
    return made + ([encode(Image.fromarray(colours[..., :3]), "HEIC", 6)] if pillow_heif else [])


SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">'
    b'<path d="M0 0h8v8z" fill="#f00"/><circle cx="4" cy="4" r="2"/></svg>'
)


def tarball(members: dict[str, bytes]) -> bytes:
    """A gzipped archive whose members lie below `package/`, as npm has them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
