"""Opening a dual encoder: the one place that knows CLIP and BLIP.

Both are imported when a model is opened: that takes seconds.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import ArtifactError, read_json
from pipeline.encoders.dual.interface import DualEncoder


def load_dual_encoder(backbone: str | Path, pretrained: str = "") -> DualEncoder:
    """Load CLIP or BLIP.

    Args:
        backbone: A local open_clip or BLIP folder, an open_clip model name, or a BLIP name of the hub.
        pretrained: For an open_clip name its tag or a file of weights (empty: random weights); for a BLIP name
            the hub revision. A folder ignores it.

    Returns:
        The encoder, on the CPU.

    Raises:
        ArtifactError: A folder holds neither kind, a name is unknown, the weights cannot be loaded, or a file of
            weights is not safetensors.
    """
    folder = Path(backbone)
    if folder.is_dir():
        return _from_folder(folder)
    import open_clip

    from pipeline.encoders.dual.blip import BlipEncoder
    from pipeline.encoders.dual.clip import ClipEncoder

    if Path(pretrained).is_file() and Path(pretrained).suffix != ".safetensors":
        raise ArtifactError(
            f"{pretrained}: weights are taken from safetensors only; other formats may run code when they are read"
        )
    if str(backbone) in open_clip.list_models():
        return ClipEncoder.from_name(str(backbone), pretrained)
    if "blip" in str(backbone).lower():
        return BlipEncoder.from_pretrained(backbone, revision=pretrained or None)
    raise ArtifactError(f"{backbone}: not a folder, not an open_clip model name and not a BLIP name")


def _from_folder(folder: Path) -> DualEncoder:
    """The encoder whose configuration the folder holds."""
    from pipeline.encoders.dual.blip import BlipEncoder
    from pipeline.encoders.dual.clip import CLIP_CONFIG, ClipEncoder

    if (folder / CLIP_CONFIG).is_file():
        return ClipEncoder.from_folder(folder)
    if (folder / "config.json").is_file() and read_json(folder / "config.json").get("model_type") == "blip":
        return BlipEncoder.from_pretrained(folder)
    raise ArtifactError(f"{folder}: neither {CLIP_CONFIG} nor a BLIP config.json is there")
