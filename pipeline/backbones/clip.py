"""Training of the small CLIP that DiffComp starts from.

Symmetric InfoNCE between a character's images by two teams and its text. The image-to-image
term makes the encoder independent of a team's style.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from pipeline.backbones.corpus import Corpus, Drawings, draw_kinds, texts_by_kind
from pipeline.config import SmallClipParams
from pipeline.encoders.augment import augment, mix_styles
from pipeline.encoders.dual.clip import ClipEncoder, ClipSizes, new_clip

IMAGE_TO_IMAGE = 0.5
"""Weight of the image-to-image term."""


def clip_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The MLLM's vocabulary with the end token appended to every text, as CLIP's pooling needs."""
    copy = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    end = ("<|im_end|>", copy.convert_tokens_to_ids("<|im_end|>"))
    copy.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    return copy


def build_clip(params: SmallClipParams, tokenizer: PreTrainedTokenizerFast) -> ClipEncoder:
    """A randomly initialised encoder of the configured sizes."""
    sizes = ClipSizes(
        vocab_size=len(tokenizer),
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        image_size=params.image_size,
        patch_size=params.patch_size,
        vision_width=params.vision_width,
        vision_layers=params.vision_layers,
        text_width=params.text_width,
        text_layers=params.text_layers,
        text_heads=params.text_heads,
        context=params.context_length,
        embed_dim=params.embed_dim,
    )
    return ClipEncoder(new_clip(vars(sizes)), tokenizer, sizes.model_cfg())


class ClipTrainee(nn.Module):
    """The encoder and its contrastive loss, as one module for the training loop."""

    def __init__(self, encoder: ClipEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, first: Tensor, second: Tensor, token_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The contrastive loss of B characters.

        Args:
            first: Normalised images [B, 3, H, W].
            second: Images of the same characters by another team.
            token_ids: Their texts [B, T].

        Returns:
            The loss, and its two terms for the log.
        """
        images = self.encoder.encode_image(torch.cat((first, second)))
        one, two = images.float().chunk(2)  # [B, D]
        text = self.encoder.encode_text(token_ids).float()
        scale = self.encoder.logit_scale.clamp(max=4.6).exp()
        to_text = 0.5 * (_contrast(scale * one @ text.T) + _contrast(scale * two @ text.T))
        to_image = _contrast(scale * one @ two.T)
        return to_text + IMAGE_TO_IMAGE * to_image, {"image_text": to_text.detach(), "image_image": to_image.detach()}


def _contrast(logits: Tensor) -> Tensor:
    """Symmetric InfoNCE of logits [B, B] whose diagonal holds the positives."""
    labels = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels))


class ClipTask:
    """The corpus as a `Task` of the training loop. Its examples are characters.

    Args:
        encoder: The encoder to train.
        corpus: The data.
        device: Where both go.
    """

    def __init__(self, encoder: ClipEncoder, corpus: Corpus, device: torch.device):
        self.encoder = encoder.to(device)
        self.model: nn.Module = ClipTrainee(self.encoder)
        self.characters = len(corpus.short)
        self.token_ids = encoder.tokenize(texts_by_kind(corpus)).to(device)
        self.images = corpus.images.to(device)
        self.drawings = Drawings(corpus.drawings, device)

    def __len__(self) -> int:
        return self.characters

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, Any]]:
        """See `Task.loss`."""
        generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        indices = indices.to(device)
        kinds = draw_kinds((len(indices),), generator)
        pair = self.images[self.drawings.draw(indices, generator)].float() / 255  # [B, 2, 3, H, W]
        with torch.autocast(device.type, enabled=False):
            first, second = (
                (augment(mix_styles(a, b, 0.25, generator), generator) - self.encoder.mean) / self.encoder.std
                for a, b in ((pair[:, 0], pair[:, 1]), (pair[:, 1], pair[:, 0]))
            )
        return model(first, second, self.token_ids[indices + self.characters * kinds])
