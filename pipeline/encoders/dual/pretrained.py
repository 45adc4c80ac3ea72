"""Pretrained image-text encoders of any build: what training-free methods search photographs with.

`DualEncoder` takes a plain ViT apart. These are used as they come, so that patch grid, pooling and text tower do not
matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from pipeline.artifacts import ArtifactError
from pipeline.encoders.dual.interface import ImageTextEncoder, unit
from pipeline.encoders.hub import not_loaded

TRANSFORMERS_MODELS = ("clip", "siglip")
"""Values of `model_type` whose towers take pixels and token ids alone."""


class OpenClipEncoder(ImageTextEncoder):
    """Any open_clip model: ResNets, timm towers, SigLIP, CoCa and the like.

    Args:
        model: As `open_clip.create_model` makes it.
        tokenizer: As `open_clip.get_tokenizer` does.
        preprocess: Its `size`, `mean`, `std` and `resize_mode`.
    """

    def __init__(self, model: Any, tokenizer: Callable[..., Tensor], preprocess: Mapping[str, Any]):
        super().__init__(preprocess.get("mean", OPENAI_DATASET_MEAN), preprocess.get("std", OPENAI_DATASET_STD))
        self.model, self.tokenizer = model, tokenizer
        size = preprocess["size"]
        self.image_size = size if isinstance(size, int) else size[0]
        self.fit = "squash" if preprocess.get("resize_mode") == "squash" else "crop"
        self.context = model.context_length
        with torch.inference_mode():
            self.dim = self.encode_text(self.tokenize(["a"])).shape[1]

    @property
    def word_embedding(self) -> nn.Module:
        """See `ImageTextEncoder.word_embedding`. Raises ArtifactError for a text tower of another library."""
        text = getattr(self.model, "text", self.model)
        if not hasattr(text, "token_embedding"):
            raise ArtifactError(f"{type(text).__name__}: a text tower whose word embeddings are not known here")
        return text.token_embedding

    def encode_image(self, images: Tensor) -> Tensor:
        return unit(self.model.encode_image(images))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        return unit(self.model.encode_text(token_ids))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(list(texts), context_length=self.context)


class TransformersEncoder(ImageTextEncoder):
    """CLIP or SigLIP in the hub's layout.

    Args:
        path: A folder or a hub name.
        revision: The commit of a hub name; "": the newest on this machine.

    Raises:
        ArtifactError: It cannot be loaded, or is another architecture.
    """

    def __init__(self, path: str, revision: str = ""):
        source: dict[str, Any] = {"pretrained_model_name_or_path": path, "revision": revision or None}
        try:
            config = AutoConfig.from_pretrained(**source)
            if config.model_type not in TRANSFORMERS_MODELS:
                known = ", ".join(TRANSFORMERS_MODELS)
                raise ArtifactError(f"encoder {path!r}: a {config.model_type}; of transformers, {known} are taken")
            model = AutoModel.from_pretrained(**source, dtype=torch.float32, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(**source)
            processor = AutoImageProcessor.from_pretrained(**source)
        except (OSError, ValueError, SafetensorError) as error:
            raise not_loaded("encoder", path, revision, error) from None
        super().__init__(processor.image_mean, processor.image_std)
        self.model, self.tokenizer = model, tokenizer
        self.image_size = config.vision_config.image_size
        self.fit = "crop" if getattr(processor, "do_center_crop", False) else "squash"
        self.context = config.text_config.max_position_embeddings
        self.dim = getattr(config, "projection_dim", None) or config.text_config.hidden_size

    @property
    def word_embedding(self) -> nn.Module:
        return self.model.text_model.get_input_embeddings()

    def encode_image(self, images: Tensor) -> Tensor:
        return unit(_pooled(self.model.get_image_features(pixel_values=images)))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Without a mask: CLIP's attention is causal, and SigLIP has learned to read its padding."""
        return unit(_pooled(self.model.get_text_features(input_ids=token_ids)))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        found = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.context, return_tensors="pt"
        )
        return found["input_ids"]


def _pooled(found: Any) -> Tensor:
    """The features: newer releases of transformers return them as a field."""
    return found if isinstance(found, Tensor) else found.pooler_output


def open_clip_encoder(model: Any, name: str) -> OpenClipEncoder:
    """An open model of open_clip with its own preprocessing and tokenizer.

    Args:
        model: As `open_clip.create_model` makes it.
        name: What it was made from: a name, or `local-dir:` and a folder.

    Returns:
        The encoder.
    """
    import open_clip

    return OpenClipEncoder(model, open_clip.get_tokenizer(name), open_clip.get_model_preprocess_cfg(model))


def from_local_open_clip(folder: str | Path) -> OpenClipEncoder:
    """Any open_clip model in a folder of the hub's layout.

    Args:
        folder: Holds `open_clip_config.json`, weights as safetensors, and the tokenizer's files where it has its own.

    Returns:
        The encoder.

    Raises:
        ArtifactError: The weights are missing, no safetensors, or not those of this model.
    """
    import open_clip

    folder = Path(folder)
    if not any(folder.glob("*.safetensors")):
        raise ArtifactError(f"{folder}: no weights there as safetensors")
    name = f"local-dir:{folder.absolute()}"
    try:
        return open_clip_encoder(open_clip.create_model(name), name)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from None
