"""Opening an image-text encoder: the one place that knows CLIP, BLIP and the others.

They are imported when a model is opened: that takes seconds.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import ArtifactError, read_json
from pipeline.encoders.dual.interface import DualEncoder, ImageTextEncoder


def load_dual_encoder(backbone: str | Path, pretrained: str = "", image_size: int = 0) -> DualEncoder:
    """Load CLIP or BLIP.

    Args:
        backbone: A local open_clip or BLIP folder, an open_clip model name, or a BLIP name of the hub.
        pretrained: For an open_clip name its tag or a file of weights (empty: random weights); for a BLIP name
            the hub revision. A folder ignores it.
        image_size: Side of the square that it is to see, in pixels; see `DualEncoder.resize`. 0: its own.

    Returns:
        The encoder, on the CPU.

    Raises:
        ArtifactError: A folder holds neither kind, a name is unknown, the weights cannot be loaded, a file of
            weights is not safetensors, or patches do not tile such a square.
    """
    encoder = _dual_encoder(backbone, pretrained)
    if image_size not in (0, encoder.image_size):
        try:
            encoder.resize(image_size)
        except ValueError as error:
            raise ArtifactError(f"{backbone}: {error}") from None
    return encoder


def _dual_encoder(backbone: str | Path, pretrained: str) -> DualEncoder:
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


def load_image_text_encoder(encoder: str | Path, pretrained: str = "", image_size: int = 0) -> ImageTextEncoder:
    """Load any encoder that training-free methods can use.

    Args:
        encoder: What `load_dual_encoder` takes, any other model of open_clip by name or folder, or a CLIP or SigLIP of
            transformers by hub name or folder.
        pretrained: For an open_clip name its tag or a file of weights; for a hub name the revision.
        image_size: As `load_dual_encoder` takes it; only a `DualEncoder` can see another one.

    Returns:
        The encoder, on the CPU; a `DualEncoder` where it is one.

    Raises:
        ArtifactError: It is not there, cannot be loaded, or is of no kind that is taken.
    """
    import open_clip

    from pipeline.encoders.dual.clip import CLIP_CONFIG, is_plain, new_open_clip
    from pipeline.encoders.dual.pretrained import TransformersEncoder, from_local_open_clip, open_clip_encoder

    folder, name = Path(encoder), str(encoder)
    if folder.is_dir() and (folder / CLIP_CONFIG).is_file():
        config = read_json(folder / CLIP_CONFIG)["model_cfg"]
        own = (folder / "tokenizer.json").is_file() and is_plain(config)
        return load_dual_encoder(encoder, "", image_size) if own else from_local_open_clip(folder)
    if name in open_clip.list_models() and not is_plain(open_clip.get_model_config(name)):
        return open_clip_encoder(new_open_clip(name, pretrained), name)
    if name in open_clip.list_models() or "blip" in name.lower() or _is_blip(folder):
        return load_dual_encoder(encoder, pretrained, image_size)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ArtifactError(f"{folder}: neither {CLIP_CONFIG} nor config.json is there")
    if not folder.is_dir() and name.count("/") != 1:
        raise ArtifactError(f"encoder {name!r}: not a folder, not a model name of open_clip and not a hub name")
    return TransformersEncoder(name, pretrained)


def _is_blip(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") == "blip"


def _from_folder(folder: Path) -> DualEncoder:
    """The encoder whose configuration the folder holds."""
    from pipeline.encoders.dual.blip import BlipEncoder
    from pipeline.encoders.dual.clip import CLIP_CONFIG, ClipEncoder

    if (folder / CLIP_CONFIG).is_file():
        return ClipEncoder.from_folder(folder)
    if _is_blip(folder):
        return BlipEncoder.from_pretrained(folder)
    raise ArtifactError(f"{folder}: neither {CLIP_CONFIG} nor a BLIP config.json is there")
