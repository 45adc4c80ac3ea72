"""The patch grid of a backbone, read from its configuration alone: no model is built, no library imported."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from pipeline.config.section import require


def require_tiling(super_patch: int, grid: tuple[int, int]) -> None:
    """Check that super-patches tile a patch grid.

    Args:
        super_patch: S, patches on a super-patch's side.
        grid: (h, w) in patches.

    Raises:
        ParameterError: S does not divide both.
    """
    height, width = grid
    require(
        super_patch > 0 and height % super_patch == width % super_patch == 0,
        f"diffcomp.super_patch: {super_patch} does not divide the patch grid {height} x {width}",
    )


def patch_grid(backbone: str, image_size: int = 0) -> tuple[int, int] | None:
    """How many patches a backbone cuts an image into.

    Args:
        backbone: A local open_clip or BLIP folder, or the name of an open_clip model.
        image_size: Side of the image in pixels; 0: what the configuration says.

    Returns:
        (h, w), or None where the configuration is not at hand, or its sizes are not plain numbers (a ResNet, a timm
        tower).
    """
    folder = Path(backbone)
    for path, keys in (
        (folder / "open_clip_config.json", ("model_cfg", "vision_cfg")),
        (folder / "config.json", ("vision_config",)),
    ):
        if path.is_file():
            return _grid(path, keys, image_size)
    package = find_spec("open_clip")
    if package and package.origin and "/" not in backbone:
        path = Path(package.origin).parent / "model_configs" / f"{backbone}.json"
        if path.is_file():
            return _grid(path, ("vision_cfg",), image_size)
    return None


def _grid(path: Path, keys: tuple[str, ...], image_size: int) -> tuple[int, int] | None:
    """None where image and patch sizes are not plain numbers."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            values = values[key]
        height, width = _pair(image_size or values["image_size"])
        rows, columns = _pair(values["patch_size"])
        return height // rows, width // columns
    except (ValueError, KeyError, TypeError):
        return None


def _pair(size: int | list[int]) -> tuple[int, int]:
    """A size of both sides, which a configuration gives as one number or as two."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
