"""CLIP backbones over open_clip: a local folder, or one of open_clip's named models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import open_clip
import torch
import torch.nn.functional as F
from einops import rearrange
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer, text_global_pool
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerFast

from pipeline.artifacts import ArtifactError, read_json, write_atomically, write_json
from pipeline.encoders.dual.interface import DualEncoder, biased_attention, unit
from pipeline.encoders.dual.shapes import few_shapes
from pipeline.encoders.hub import clip_not_loaded

SHORT_TEXTS = 64
"""At least so many texts of at most half the longest's length are encoded apart."""
CLIP_CONFIG, CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
ClipModel: TypeAlias = open_clip.CLIP | CustomTextCLIP


class TextTower(Protocol):
    """The parts of the text tower, as open_clip's `CLIP` and `TextTransformer` both hold them."""

    token_embedding: nn.Embedding
    positional_embedding: nn.Parameter
    transformer: Transformer
    ln_final: nn.Module
    text_projection: nn.Linear | nn.Parameter
    attn_mask: Tensor | None


@dataclass(frozen=True)
class ClipSizes:
    """Sizes of a small CLIP to be trained from scratch; the defaults are the offline backbone's.

    Raises:
        ValueError: A size is no multiple of what must divide it, or a token lies outside the vocabulary.
    """

    vocab_size: int
    eos_id: int
    pad_id: int = 0
    image_size: int = 64
    patch_size: int = 8
    vision_width: int = 256
    vision_layers: int = 8
    head_width: int = 64
    text_width: int = 256
    text_layers: int = 6
    text_heads: int = 4
    context: int = 32
    embed_dim: int = 256

    def __post_init__(self) -> None:
        for name, size, divisor_name, divisor in (
            ("image_size", self.image_size, "patch_size", self.patch_size),
            ("vision_width", self.vision_width, "head_width", self.head_width),
            ("text_width", self.text_width, "text_heads", self.text_heads),
        ):
            if size % divisor:
                raise ValueError(f"{name} {size} is not a multiple of {divisor_name} {divisor}")
        for name, token in (("eos_id", self.eos_id), ("pad_id", self.pad_id)):
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"{name} {token} is outside the vocabulary of {self.vocab_size}")
        if self.eos_id == self.pad_id:
            raise ValueError(f"eos_id and pad_id are both {self.eos_id}: the end of a text could not be found")

    def model_cfg(self) -> dict[str, Any]:
        """open_clip's `model_cfg`. Pooling looks for `eos_id`: it need not be a small vocabulary's highest."""
        return {
            "custom_text": True,
            "embed_dim": self.embed_dim,
            "vision_cfg": {
                "image_size": self.image_size,
                "patch_size": self.patch_size,
                "width": self.vision_width,
                "layers": self.vision_layers,
                "head_width": self.head_width,
            },
            "text_cfg": {
                "context_length": self.context,
                "vocab_size": self.vocab_size,
                "width": self.text_width,
                "heads": self.text_heads,
                "layers": self.text_layers,
                "hf_tokenizer_name": ".",
                "pool_type": "eos",
                "eos_id": self.eos_id,
                "pad_id": self.pad_id,
            },
        }


def new_clip(config: dict[str, Any]) -> ClipModel:
    """A randomly initialised open_clip model.

    Args:
        config: Fields of `ClipSizes`.

    Raises:
        ValueError: A field is unknown, or the sizes do not fit each other.
    """
    unknown = config.keys() - {field.name for field in dataclasses.fields(ClipSizes)}
    if unknown:
        raise ValueError(f"unknown CLIP sizes: {', '.join(sorted(unknown))}")
    return build_clip(ClipSizes(**config).model_cfg())


def build_clip(model_cfg: dict[str, Any]) -> ClipModel:
    """A randomly initialised open_clip model from open_clip's own `model_cfg` mapping."""
    values = dict(model_cfg)
    return (CustomTextCLIP if values.pop("custom_text", False) else open_clip.CLIP)(**values)


def is_plain(model_cfg: dict[str, Any]) -> bool:
    """Whether a model of this configuration is a `ClipEncoder`: a ViT that pools its CLS token, and a text tower."""
    visual, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    plain = isinstance(visual.get("layers"), int) and "timm_model_name" not in visual and "hf_model_name" not in text
    return plain and not visual.get("attentional_pool") and visual.get("pool_type", "tok") == "tok"


def new_open_clip(name: str, pretrained: str) -> Any:
    """One of open_clip's models.

    Args:
        name: Such as ViT-L-14-quickgelu.
        pretrained: A tag or a file of weights; empty: random weights.

    Raises:
        ArtifactError: The weights are not on this machine.
    """
    try:
        return open_clip.create_model(name, pretrained=pretrained or None)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise clip_not_loaded(name, pretrained, error) from None


class ClipEncoder(DualEncoder):
    """An open_clip model with a plain ViT and a causal text transformer, behind `DualEncoder`.

    Args:
        model: The model.
        tokenizer: open_clip's own (a callable with a context length) or a fast transformers tokenizer.
        model_cfg: What `build_clip` makes the model from; `save` needs it.
        mean: Of the pixels of each channel, in [0, 1].
        std: Their standard deviations.

    Raises:
        ValueError: The visual tower does not pool a CLS token.
    """

    model: ClipModel

    def __init__(
        self,
        model: ClipModel,
        tokenizer: Any,
        model_cfg: dict[str, Any] | None = None,
        mean: Sequence[float] = OPENAI_DATASET_MEAN,
        std: Sequence[float] = OPENAI_DATASET_STD,
    ):
        super().__init__(mean, std)
        visual = model.visual
        if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.pool_type != "tok":
            raise ValueError(f"{type(visual).__name__} does not pool a CLS token: DiffComp needs a plain ViT")
        self.model, self.tokenizer, self.model_cfg = model, tokenizer, model_cfg
        self.image_size, self.patch_grid = visual.image_size[0], (visual.grid_size[0], visual.grid_size[1])
        self.width, self.dim = visual.conv1.out_channels, visual.proj.shape[1]
        self.context = cast(int, model.context_length)

    @classmethod
    def from_folder(cls, folder: str | Path) -> ClipEncoder:
        """Read a folder that `save` wrote.

        Args:
            folder: Holds `open_clip_config.json`, `open_clip_model.safetensors` and `tokenizer.json`.

        Raises:
            ArtifactError: A file is missing, or the weights are not those of this model.
        """
        folder = Path(folder)
        config = read_json(folder / CLIP_CONFIG)
        for name in (CLIP_WEIGHTS, "tokenizer.json"):
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder / name}: no such file")
        model = build_clip(config["model_cfg"])
        try:
            open_clip.load_checkpoint(model, str(folder / CLIP_WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            raise ArtifactError(
                f"{folder / CLIP_WEIGHTS}: not the weights of this CLIP ({str(error).splitlines()[0]})"
            ) from None
        preprocess = config.get("preprocess_cfg", {})
        return cls(
            model,
            PreTrainedTokenizerFast.from_pretrained(folder),
            config["model_cfg"],
            preprocess.get("mean", OPENAI_DATASET_MEAN),
            preprocess.get("std", OPENAI_DATASET_STD),
        )

    @classmethod
    def from_name(cls, name: str, pretrained: str = "") -> ClipEncoder:
        """One of open_clip's models.

        Args:
            name: For instance ViT-L-14 or ViT-bigG-14.
            pretrained: A tag or a file of weights; empty: random weights.

        Raises:
            ArtifactError: The weights are not on this machine.
        """
        model = new_open_clip(name, pretrained)
        preprocess = getattr(model.visual, "preprocess_cfg", {})
        return cls(
            model,
            open_clip.get_tokenizer(name),
            open_clip.get_model_config(name),
            preprocess.get("mean", OPENAI_DATASET_MEAN),
            preprocess.get("std", OPENAI_DATASET_STD),
        )

    def save(self, folder: str | Path) -> None:
        """Write the folder that `from_folder` and open_clip's `local-dir:` read, atomically as a whole.

        Raises:
            ValueError: The encoder has no `model_cfg`, or a tokenizer that cannot be saved.
        """
        if self.model_cfg is None or not hasattr(self.tokenizer, "save_pretrained"):
            raise ValueError("a CLIP folder needs the model_cfg and a transformers tokenizer")
        mean, std = (buffer.flatten().tolist() for buffer in (self.mean, self.std))
        with write_atomically(folder) as aside:
            aside.mkdir()
            self.tokenizer.save_pretrained(aside)
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()},
                aside / CLIP_WEIGHTS,
            )
            write_json(
                aside / CLIP_CONFIG,
                {
                    "model_cfg": self.model_cfg,
                    "preprocess_cfg": {"size": self.image_size, "mean": mean, "std": std},
                },
            )

    @property
    def image_blocks(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self._visual.transformer.resblocks)

    @property
    def text_blocks(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self._text.transformer.resblocks)

    @property
    def logit_scale(self) -> nn.Parameter:
        return self.model.logit_scale

    @property
    def _visual(self) -> VisionTransformer:
        """The visual tower."""
        return cast(VisionTransformer, self.model.visual)

    @property
    def _text(self) -> TextTower:
        """The text tower's parts: open_clip keeps them in `model.text` or on the model itself."""
        return cast(TextTower, getattr(self.model, "text", self.model))

    @property
    def _pooling(self) -> tuple[str, int]:
        """How the text tower finds a text's last token, and the id of that token."""
        if hasattr(self.model, "text"):
            return cast(str, self.model.text.pool_type), cast(int, self.model.text.eos_id)
        return cast(str, self.model.text_pool_type), cast(int, self.model.text_eos_id)

    def image_head(self) -> Iterable[nn.Parameter]:
        visual = self._visual
        yield from visual.ln_post.parameters()
        yield visual.proj

    def text_head(self) -> Iterable[nn.Parameter]:
        text = self._text
        yield from text.ln_final.parameters()
        projection = text.text_projection
        yield from projection.parameters() if isinstance(projection, nn.Linear) else (projection,)

    @property
    def word_embedding(self) -> nn.Module:
        return self._text.token_embedding

    @property
    def positions(self) -> nn.Parameter:
        return cast(nn.Parameter, self._visual.positional_embedding)

    def patchify(self, images: Tensor) -> Tensor:
        return self._visual.conv1(images).flatten(2).transpose(1, 2)  # [B, N, W]

    def assemble(self, patches: Tensor) -> Tensor:
        visual = self._visual
        cls = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)  # [B, 1, W]
        return visual.ln_pre(torch.cat([cls, patches], 1) + visual.positional_embedding.to(patches.dtype))

    def block(self, block: nn.Module, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """open_clip's own block without a bias; with one it would hold [B * heads, T, T] of it."""
        if bias is None:
            return block(tokens)
        layer = cast(ResidualAttentionBlock, block)
        attention = layer.attn
        qkv = F.linear(layer.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = rearrange(qkv, "b t (three h d) -> three b h t d", three=3, h=attention.num_heads)
        mixed = rearrange(biased_attention(query, key, value, bias), "b h t d -> b t (h d)")
        tokens = tokens + layer.ls_1(attention.out_proj(mixed))
        return tokens + layer.ls_2(layer.mlp(layer.ln_2(tokens)))

    def project(self, cls: Tensor) -> Tensor:
        visual = self._visual
        return unit(visual.ln_post(cls) @ visual.proj)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """As open_clip does it, but cut to the longest text: causal attention makes that exact.

        Many short texts among long ones (phrases among captions) go through the tower by themselves.
        """
        if self._text.attn_mask is None or self._pooling[0] not in ("argmax", "eos"):
            return unit(self.model.encode_text(token_ids))
        lengths = self._lengths(token_ids)
        short = lengths <= int(lengths.max()) // 2
        if int(short.sum()) < SHORT_TEXTS:
            return self._encode_shaped(token_ids, int(lengths.max()))
        groups = [rows.nonzero()[:, 0] for rows in (short, ~short)]
        parts = [self._encode_shaped(token_ids[rows.to(token_ids.device)], int(lengths[rows].max())) for rows in groups]
        return torch.cat(parts)[torch.cat(groups).argsort().to(token_ids.device)]

    def _encode_shaped(self, token_ids: Tensor, longest: int) -> Tensor:
        """[B, C] -> [B, D]: texts that all end within `longest` tokens."""
        padded, length = few_shapes(token_ids, longest) if token_ids.is_cuda else (token_ids, longest)
        return self._encode_cut(padded, length)[: len(token_ids)]

    def _encode_in_order(self, token_ids: Tensor) -> Tensor:
        if self._text.attn_mask is None or self._pooling[0] not in ("argmax", "eos"):
            return unit(self.model.encode_text(token_ids))
        return self._encode_cut(token_ids, int(self._lengths(token_ids).max()))

    def _lengths(self, token_ids: Tensor) -> Tensor:
        """Tokens of each text [B, C] up to the one that is pooled, [B], on the CPU."""
        pool, eos = self._pooling
        ends = token_ids.argmax(-1) if pool == "argmax" else torch.eq(token_ids, eos).int().argmax(-1)
        return ends.cpu() + 1

    def _encode_cut(self, token_ids: Tensor, length: int) -> Tensor:
        """[B, C] -> [B, D]: texts of which the first `length` tokens are read."""
        text, token_ids = self._text, token_ids[:, :length]
        pool, eos = self._pooling
        causal = None if text.attn_mask is None else text.attn_mask[:length, :length]
        tokens = text.token_embedding(token_ids) + text.positional_embedding[:length]  # [B, T, W]
        for block in self.text_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, None, None, causal, use_reentrant=False)
            else:
                tokens = block(tokens, attn_mask=causal)
        pooled = text_global_pool(text.ln_final(tokens), token_ids, pool, eos_token_id=eos)  # [B, W]
        projection = text.text_projection
        return unit(projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """See `DualEncoder.tokenize`.

        Raises:
            ValueError: The tokenizer leaves a text without the end token that pooling looks for.
        """
        if not isinstance(self.tokenizer, PreTrainedTokenizerFast):
            return self.tokenizer(list(texts), context_length=self.context)
        ids = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        ).input_ids
        text = self._text
        eos = getattr(text, "eos_id", None)
        if getattr(text, "pool_type", "") == "eos" and not (ids == eos).any(-1).all():
            raise ValueError(f"the tokenizer does not end every text with token {eos}")
        return ids
