"""One reference and modification with many candidates, in one sequence of a `Qwen2_5_VLForConditionalGeneration`.

Every candidate sees the reference, the modification and itself, as in a sequence of its own. What they share is
computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from pipeline.encoders.mllm.batched_qwen import decoder_states, position_ids


@dataclass
class PairTokens:
    """The template's tokens around B references and N candidates each. Images have g x g tokens."""

    before: Tensor
    """[B, P]: all before the candidate, right-padded."""
    lengths: Tensor
    """[B]: how many of them are no padding."""
    reference_at: int
    """Where the reference's tokens begin."""
    after: Tensor
    """[S]: the candidate and all that follows."""
    candidate_at: int
    """Where the candidate's tokens begin in `after`."""


def last_states(
    model: Qwen2_5_VLForConditionalGeneration, tokens: PairTokens, references: Tensor, candidates: Tensor
) -> Tensor:
    """The states from which every pair's answer follows.

    Args:
        model: The model.
        tokens: The template's tokens.
        references: The visual tower's tokens of B references [B, g * g, width].
        candidates: Those of N candidates for each [B, N, g * g, width].

    Returns:
        [B, N, width]: the final state of every pair's last token.
    """
    batch, count, slots, width = candidates.shape
    embed = model.model.language_model.embed_tokens
    before = _with_image(embed(tokens.before), references, tokens.reference_at)  # [B, P, D]
    after = embed(tokens.after).expand(batch * count, -1, -1)
    after = _with_image(after, candidates.flatten(0, 1), tokens.candidate_at).view(batch, -1, width)  # [B, N * S, D]
    states = decoder_states(
        model, torch.cat((before, after), dim=1), _positions(tokens, count, slots), _mask(tokens, count)
    )
    return states[:, before.shape[1] :].unflatten(1, (count, -1))[:, :, -1]


def _with_image(embedded: Tensor, visual: Tensor, begin: int) -> Tensor:
    """Put visual tokens [B, n, D] in the place of some of [B, T, D]."""
    end = begin + visual.shape[1]
    return torch.cat((embedded[:, :begin], visual.to(embedded.dtype), embedded[:, end:]), dim=1)


def _positions(tokens: PairTokens, count: int, slots: int) -> Tensor:
    """[B, 3, P + N * S]: every candidate follows its reference and modification. An image takes the room of a side."""
    grid, device = int(slots**0.5), tokens.before.device
    before = position_ids(tokens.reference_at, grid, tokens.before.shape[1], device)  # [3, P]
    after = position_ids(tokens.candidate_at, grid, len(tokens.after), device).repeat(1, count)  # [3, N * S]
    begins = (tokens.lengths - slots + grid).view(-1, 1, 1)
    return torch.cat((before.expand(len(begins), -1, -1), after + begins), dim=2)


def _mask(tokens: PairTokens, count: int) -> Tensor:
    """[B, 1, P + N * S, P + N * S]: True where a token sees another one."""
    prefix, suffix, device = tokens.before.shape[1], len(tokens.after), tokens.before.device
    place = torch.arange(prefix + count * suffix, device=device)
    part = torch.where(place < prefix, -1, (place - prefix) // suffix)  # the candidate's number; -1: before it
    real = (place >= prefix) | (place < tokens.lengths.unsqueeze(1))  # [B, T]
    causal = place.unsqueeze(1) >= place
    related = (part.unsqueeze(1) == part) | (part == -1)
    return ((causal & related) & real.unsqueeze(1) | torch.eye(len(place), dtype=torch.bool, device=device)).unsqueeze(
        1
    )
