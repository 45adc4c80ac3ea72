"""Image-text backbones that DiffComp can take apart: one interface over CLIP and BLIP.

The visual transformer is exposed in pieces (`patchify`, `assemble`, `run`, `project`) because
super-patches branch off before the last blocks and masks are applied between the patch embedding
and the positions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from pipeline.encoders.image_source import Fit

BIAS_CHANNELS = 8
"""Channels that carry a bias: FlashAttention wants a multiple of so many."""


def biased_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias) V, the same bias for all heads and queries.

    FlashAttention takes no bias. On a GPU the bias so becomes a channel of the keys, with a one in the queries:
    [q, 1] . [k, sqrt(d) b] / sqrt(d) = q . k / sqrt(d) + b. On a CPU the plain products run. (PyTorch's
    memory-efficient kernel takes a bias, but its backward pass fails where only the bias needs a gradient.)

    Args:
        query: [B, heads, T, d].
        key: [B, heads, T, d].
        value: [B, heads, T, d].
        bias: Of the keys [B, T]; None: none.

    Returns:
        [B, heads, T, d].
    """
    if bias is None:
        return F.scaled_dot_product_attention(query, key, value)
    if query.is_cuda:
        return with_bias_channel(query, key, value, bias)
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias[:, None, None].to(query.dtype))


def with_bias_channel(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """`biased_attention` by `BIAS_CHANNELS` more channels.

    Two of them hold the bias: as the products' type rounds it, which takes the gradient, and what that leaves.
    """
    width, dtype = query.shape[-1], query.dtype
    scaled = math.sqrt(width) * bias
    rounded = scaled.to(dtype)
    rest = (scaled - rounded).detach().to(dtype)
    channels = F.pad(torch.stack((rounded, rest), dim=-1), (0, BIAS_CHANNELS - 2))[:, None]  # [B, 1, T, C]
    ones = F.pad(torch.ones(2, dtype=dtype, device=query.device), (0, BIAS_CHANNELS - 2))
    query = torch.cat((query, ones.expand(*query.shape[:-1], -1)), dim=-1)
    key = torch.cat((key, channels.expand(*key.shape[:-1], -1)), dim=-1)
    value = F.pad(value, (0, BIAS_CHANNELS))
    return F.scaled_dot_product_attention(query, key, value, scale=1 / math.sqrt(width))[..., :width]


def unit(vectors: Tensor) -> Tensor:
    """L2-normalise the last axis; half-precision inputs come back as float32."""
    return F.normalize(vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors, dim=-1)


class ImageTextEncoder(nn.Module, ABC):
    """An image tower and a text tower that share one feature space: all that training-free methods need.

    Symbols: B images, D joint width, C context.

    Args:
        mean: Of the pixels of each channel, in [0, 1].
        std: Their standard deviations.
    """

    image_size: int
    """Side of the square that the encoder sees, in pixels."""
    fit: Fit = "crop"
    """How an image becomes that square."""
    dim: int
    """D."""
    context: int
    """C: the longest text, in tokens."""
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        # Neither is stored with the weights: they belong to the preprocessing.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    @abstractmethod
    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> [B, D], L2-normalised: the global feature f_I."""

    @abstractmethod
    def encode_text(self, token_ids: Tensor) -> Tensor:
        """[B, C] -> [B, D], L2-normalised."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> LongTensor [B, C], padded and cut to the context."""

    @property
    @abstractmethod
    def word_embedding(self) -> nn.Module:
        """What turns token ids [B, T] into the vectors that the text tower reads, [B, T, E]."""

    def encode_with_words(self, token_ids: Tensor, places: Tensor, words: Tensor) -> Tensor:
        """Texts in which a vector takes the place of some tokens' embeddings.

        Args:
            token_ids: [B, C]. Those in the places are not read, but count for where a text ends.
            places: bool [B, C].
            words: A vector a text, [B, E]; it may need a gradient.

        Returns:
            [B, D], L2-normalised.
        """

        def put(_module: nn.Module, _inputs: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
            here = places[:, : embedded.shape[1], None]  # a tower may cut its texts to the longest
            return torch.where(here, words[:, None].to(embedded.dtype), embedded)

        hook = self.word_embedding.register_forward_hook(put)
        try:
            return self._encode_in_order(token_ids)
        finally:
            hook.remove()

    def _encode_in_order(self, token_ids: Tensor) -> Tensor:
        """`encode_text` with all texts in one batch, in their order."""
        return self.encode_text(token_ids)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 pixels with the encoder's own mean and deviation."""
        return (images.to(self.mean.device).float() / 255.0 - self.mean) / self.std


class DualEncoder(ImageTextEncoder):
    """A visual transformer with a CLS token and a text transformer that share one feature space.

    More symbols: N = h x w patches, W visual width, L visual blocks.

    Args:
        mean: See `ImageTextEncoder`.
        std: See there.
    """

    patch_grid: tuple[int, int]
    """h, w."""
    width: int
    """W."""

    if TYPE_CHECKING:  # CLIP's lies inside its model, BLIP's is added: nn.Module finds both by this name

        @property
        def logit_scale(self) -> nn.Parameter:
            """log(1 / temperature) of the contrastive loss."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__(mean, std)
        self.gradient_checkpointing = False

    # What a backbone supplies -------------------------------------------------------------------

    @property
    @abstractmethod
    def image_blocks(self) -> nn.ModuleList:
        """The L visual blocks."""

    @property
    @abstractmethod
    def text_blocks(self) -> nn.ModuleList:
        """The blocks of the text tower."""

    @abstractmethod
    def image_head(self) -> Iterable[nn.Parameter]:
        """Final norm and projection of the visual tower."""

    @abstractmethod
    def text_head(self) -> Iterable[nn.Parameter]:
        """Final norm and projection of the text tower."""

    @property
    @abstractmethod
    def positions(self) -> nn.Parameter:
        """What is added to CLS and the N patches: 1 + N rows of W numbers, whatever axes of one stand before."""

    @abstractmethod
    def patchify(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] normalised pixels -> [B, N, W] patch embeddings without positions."""

    @abstractmethod
    def assemble(self, patches: Tensor) -> Tensor:
        """[B, N, W] -> [B, 1 + N, W]: CLS in front, positions added, the norm before the blocks applied."""

    @abstractmethod
    def block(self, block: nn.Module, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """One visual block on [B, T, W]; `bias` [B, T] is added to the attention scores of every token as a key."""

    @abstractmethod
    def project(self, cls: Tensor) -> Tensor:
        """[..., W] -> [..., D]: final norm and projection, L2-normalised."""

    # What follows from it -----------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """L: the number of visual blocks."""
        return len(self.image_blocks)

    def embed_patches(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1 + N, W]: what the first block reads."""
        return self.assemble(self.patchify(images))

    def run(self, tokens: Tensor, first: int, last: int, bias: Tensor | None = None) -> Tensor:
        """Visual blocks first..last-1 on [B, T, W]. T is free: super-patches are short sequences.

        Args:
            tokens: [B, T, W].
            first: From 0.
            last: One more than the last that is run.
            bias: [B, T], added in every block to the attention scores of each token as a key: minus infinity for
                padding, log(1 - M) for a mask M. It may need a gradient. None: every token is read as it is.

        Returns:
            [B, T, W].
        """
        for block in self.image_blocks[first:last]:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(self.block, block, tokens, bias, use_reentrant=False)
            else:
                tokens = self.block(block, tokens, bias)
        return tokens

    def resize(self, image_size: int) -> None:
        """Let it see squares of another side: the positions of its patches are interpolated (bicubic).

        Args:
            image_size: In pixels.

        Raises:
            ValueError: Patches do not tile such a square.
        """
        patch = self.image_size // self.patch_grid[0]
        if image_size % patch:
            raise ValueError(f"image_size {image_size} is not a multiple of the patches' {patch} pixels")
        cls, patches = self.positions.detach().reshape(-1, self.width).split([1, math.prod(self.patch_grid)])
        grid = rearrange(patches, "(h w) c -> 1 c h w", h=self.patch_grid[0])
        self.image_size, self.patch_grid = image_size, (image_size // patch, image_size // patch)
        grid = F.interpolate(grid, self.patch_grid, mode="bicubic", align_corners=False)
        rows = torch.cat([cls, rearrange(grid, "1 c h w -> (h w) c")])
        self.positions.data = rows.reshape(*self.positions.shape[:-2], *rows.shape)

    def encode_image(self, images: Tensor) -> Tensor:
        """See `ImageTextEncoder.encode_image`."""
        return self.project(self.run(self.embed_patches(images), 0, self.depth)[:, 0])

    def freeze_all_but(self, image_layers: int, text_layers: int) -> None:
        """Train the last blocks of both towers with their final norms and projections, and the temperature.

        This is FT-L in DiffComp's Table 1. A tower of which no block is trained stays frozen as a whole.

        Args:
            image_layers: Blocks of the visual tower to train.
            text_layers: Blocks of the text tower to train.

        Raises:
            ValueError: A tower has fewer blocks than that.
        """
        towers = (
            ("image", image_layers, self.image_blocks, self.image_head),
            ("text", text_layers, self.text_blocks, self.text_head),
        )
        for name, wanted, blocks, _ in towers:
            if not 0 <= wanted <= len(blocks):
                raise ValueError(f"{name}_layers: {wanted} blocks to train, the {name} tower has {len(blocks)}")
        self.requires_grad_(False)
        self.logit_scale.requires_grad_(True)
        for _, wanted, blocks, head in towers:
            if wanted:
                blocks[len(blocks) - wanted :].requires_grad_(True)
                for parameter in head():
                    parameter.requires_grad_(True)
