"""Searching people's own images with a pretrained encoder, without training.

The models that the default pipeline trains have seen emoji only. A pretrained CLIP or SigLIP has seen photographs: it
serves every method that needs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import ParameterError, Params

SHIPPED = Path("models/backbones")
"""Where the small models of the default profile lie."""
EXAMPLE = "ViT-L-14-quickgelu/openai"
DEFAULT_METHOD = "slerp"
"""What is searched with unless another method is named: of the methods without training, the strongest one."""


@dataclass(frozen=True)
class OwnEncoder:
    """An image-text encoder, as `load_image_text_encoder` takes it."""

    name: str
    pretrained: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.pretrained}" if self.pretrained else self.name

    def into(self, params: Params) -> Params:
        """Parameters that search with this encoder, and with nothing that is trained."""
        diffcomp = replace(params.diffcomp, backbone=self.name, pretrained=self.pretrained, image_size=0)
        none = {name: replace(getattr(params, name), path="") for name in ("embedder", "describer", "reranker")}
        roles = replace(params.roles, methods=["image_text", "slerp"])
        return replace(params, diffcomp=diffcomp, diffcomp_variants={}, roles=roles, **none)


def parse_encoder(text: str) -> OwnEncoder:
    """Read the value of `--encoder`.

    Args:
        text: MODEL/WEIGHTS of open_clip, a hub name, or a folder.

    Returns:
        The encoder. Nothing is loaded.

    Raises:
        ParameterError: It is none of these.
    """
    if Path(text).is_dir():
        return OwnEncoder(text)
    import open_clip

    model, _, weights = text.partition("/")
    if model in open_clip.list_models():
        known = open_clip.list_pretrained_tags_by_model(model)
        if not weights or not (weights in known or Path(weights).is_file()):
            raise ParameterError(f"encoder: {text!r} names no weights; {model} has {', '.join(known) or 'none'}")
        return OwnEncoder(model, weights)
    if text.count("/") == 1 and all(text.split("/")):
        return OwnEncoder(text)
    raise ParameterError(
        f"encoder: {text!r} is no folder, no MODEL/WEIGHTS of open_clip such as {EXAMPLE}, no hub name"
    )


EMOJI_ONLY = "These models have seen emoji only: a photograph as the reference means little to them."
"""What is said of them over a gallery of emoji."""


def knows_emoji_only(params: Params) -> bool:
    """Whether images are embedded by the small models that have seen emoji and nothing else."""
    return Path(params.diffcomp.backbone).parent == SHIPPED


def warning(folder: Path | str = "FOLDER") -> str:
    """What is said of photographs that the shipped models embed.

    Args:
        folder: The images.
    """
    door = f"`cir index {folder} --encoder {EXAMPLE}` uses a pretrained CLIP instead"
    return f"note: these models have seen emoji only and cannot tell photographs apart; {door}"
