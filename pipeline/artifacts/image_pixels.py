"""Pixels of any kind -> 8-bit RGB, as a viewer shows them.

Every function takes an image whose pixels are loaded.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_WIDE_MODES = ("I", "F")
_FULL_SCALES = {"I": (255.0, 65_535.0, 4_294_967_295.0), "F": (1.0, 255.0, 65_535.0, 4_294_967_295.0)}
_OVERSHOOT = 1.01
"""Resampling leaves values a little above a float image's full scale."""
_PNG_SCALES = {"L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}
"""Raw modes whose transparent colour is counted in other steps than the 8 bits that are decoded."""
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT = 262, 258, 339
"""TIFF's tags. A photometric interpretation of 0 says that 0 is white; Pillow heeds that for 8 bits alone."""
_BROKEN_PROFILE = (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError)


def to_rgb(image: Image.Image, raw_mode: str = "") -> Image.Image:
    """8-bit RGB on a white ground, in sRGB.

    An embedded ICC profile is applied where it fits the image's colours; a damaged one is ignored.

    Args:
        image: Any mode that Pillow decodes.
        raw_mode: How a PNG's file holds its samples, as Pillow names it.

    Returns:
        A new image without metadata.
    """
    profile = image.info.get("icc_profile") or b""
    image = to_eight_bits(image, raw_mode)
    if not image.has_transparency_data:
        return _bare(_in_srgb(image, profile))
    layer = image.convert("RGBA")
    grey = image.mode in ("L", "LA", "La")
    colours = _in_srgb(layer.convert("L" if grey else "RGB"), profile)
    ground = Image.new("RGB", layer.size, "white")
    ground.paste(colours, mask=layer.getchannel("A"))
    return ground


def to_eight_bits(image: Image.Image, raw_mode: str = "") -> Image.Image:
    """An image with at most 8 bits a sample, of the same colours and transparency.

    16-bit samples keep their upper 8 bits. 32-bit and floating-point samples carry no full scale: it is the least
    of 255, 65,535 and 2^32 - 1 (for floats also 1) that no sample exceeds. Below 0 is black, as is what is no number.

    Args:
        image: Any mode that Pillow decodes.
        raw_mode: How a PNG's file holds its samples, as Pillow names it.
    """
    if image.mode.startswith("I;16"):
        return _from_sixteen_bits(image)
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_scaled(image))
    if raw_mode in _PNG_SCALES and "transparency" in image.info:
        clear, scale = image.info["transparency"], _PNG_SCALES[raw_mode]
        image.info["transparency"] = (
            tuple(int(part * scale) for part in clear) if isinstance(clear, tuple) else int(clear * scale)
        )
    return image


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0]
    grey = (values >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:
        grey = 255 - grey
    if "transparency" not in image.info:
        return Image.fromarray(grey)
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))


def _scaled(image: Image.Image) -> np.ndarray:
    """uint8 [H, W] of 32-bit integers or floats."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)  # Pillow takes unsigned numbers for signed ones
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=0.0).clip(0)
    largest = values[np.isfinite(values)].max(initial=0.0)
    full = next((scale for scale in _FULL_SCALES[image.mode] if largest <= scale * _OVERSHOOT), largest)
    if image.mode == "I" and image.format == "PPM":  # Pillow brings these to 16 bits
        full = 65_535.0
    grey = (values.clip(0, full) * (255 / full)).round().astype(np.uint8)
    return 255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """RGB by the colour profile, or by Pillow's own conversion where there is none that fits."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    if image.mode == "LAB" and not profile:
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), _srgb(), outputMode="RGB") or image
    try:
        if profile and (found := _profile(profile)) and _space(found) == image.mode and not _is_srgb(found):
            return ImageCms.profileToProfile(image, found, _srgb(), outputMode="RGB") or image
    except _BROKEN_PROFILE:
        pass
    return image.convert("RGB")


def _profile(content: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(content))


def _space(profile: ImageCms.ImageCmsProfile) -> str:
    """The mode of the images that a profile describes."""
    space = profile.profile.xcolor_space.strip()
    return {"GRAY": "L", "Lab": "LAB", "YCbr": "YCbCr"}.get(space, space)


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Most files: applying their profile would only round every sample once more."""
    return profile.profile.xcolor_space.strip() == "RGB" and "srgb" in ImageCms.getProfileDescription(profile).lower()


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _bare(image: Image.Image) -> Image.Image:
    """Without the metadata, which would be applied a second time when the image is written and read again."""
    image.info = {}
    return image
