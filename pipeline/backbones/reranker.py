"""Training of the small reranker: f_M is asked whether an image is what a modification makes of a reference.

It begins as the small f_M. Every question has one right image and near misses. Two losses share the difference of the
two answers' logits, s = logit(yes) - logit(no): the cross-entropy of yes and no, for which s is a probability's logit,
and the cross-entropy over the images of a question, which alone decides their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from pipeline.backbones.corpus import Corpus, Drawings
from pipeline.backbones.mllm import IMAGE_MEAN, IMAGE_STD
from pipeline.backbones.sequences import Sequences, tokenise
from pipeline.backbones.verification import Question
from pipeline.config import Params
from pipeline.encoders.augment import augment
from pipeline.encoders.mllm.batched_qwen import visual_tokens
from pipeline.encoders.mllm.checkpoint import single_tokens
from pipeline.encoders.mllm.packed_pairs import PairTokens, last_states
from pipeline.encoders.mllm.qwen import MERGE, SPECIAL_TOKENS


class RerankerTrainee(nn.Module):
    """The model and its losses.

    Args:
        model: The model to train.
        answers: The tokens of yes and no.
        vision: Whether the visual tower is trained, too.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, answers: tuple[int, int], vision: bool):
        super().__init__()
        self.model, self.answers, self.vision = model, answers, vision
        model.model.visual.requires_grad_(vision)

    def scores(self, tokens: PairTokens, pixels: Tensor) -> Tensor:
        """logit(yes) - logit(no).

        Args:
            tokens: B questions.
            pixels: Their references, and N images for each, normalised: [B, 1 + N, 3, H, W].

        Returns:
            float32 [B, N].
        """
        with torch.set_grad_enabled(self.vision and torch.is_grad_enabled()):
            visual = visual_tokens(self.model, pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        states = last_states(self.model, tokens, visual[:, 0], visual[:, 1:])
        yes, no = self.model.lm_head.weight[list(self.answers)]
        return (states @ (yes - no)).float()

    def forward(self, tokens: PairTokens, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of both losses, and its parts for the log. The first image of every question is the right one."""
        scores = self.scores(tokens, pixels)
        right, wrong = scores[:, 0], scores[:, 1:]
        answer = 0.5 * (F.softplus(-right).mean() + F.softplus(wrong).mean())
        order = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
        first = (right > wrong.max(dim=1).values).float().mean()
        return answer + order, {"answer": answer.detach(), "order": order.detach(), "first": first.detach()}


class RerankerTask:
    """Questions as a `Task` of the training loop.

    Args:
        model: The model to train.
        tokenizer: Its tokenizer.
        corpus: Holds the images.
        questions: The examples.
        params: Sizes, template and answers.
        device: Where the data goes.
    """

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        corpus: Corpus,
        questions: Sequence[Question],
        params: Params,
        device: torch.device,
    ):
        self.params, self.vocabulary = params.backbones.reranker, len(tokenizer)
        yes, no = single_tokens(tokenizer, params.reranker.answers, params.reranker)
        self.model: nn.Module = RerankerTrainee(model, (yes, no), self.params.vision)
        slots = (corpus.images.shape[-1] // model.model.visual.patch_size // MERGE) ** 2
        slot = "<|vision_start|>" + "<|image_pad|>" * slots + "<|vision_end|>"
        before, after = params.reranker.template.split("{candidate}")
        texts = [question.modification for question in questions]
        filled = [before.format(reference=slot, modification=text) for text in texts]
        self.before: Sequences = tokenise(tokenizer, filled, instructions=texts).to(device)
        self.after = tokenise(tokenizer, [slot + after]).ids[0].to(device)
        self.reference_at = int((self.before.ids[0] == model.config.image_token_id).nonzero()[0])
        self.references = torch.tensor([question.reference for question in questions], device=device)
        self.right, self.right_counts = _padded([question.right for question in questions], device)
        self.wrong, self.wrong_counts = _padded([question.wrong for question in questions], device)
        self.images, self.drawings = corpus.images.to(device), Drawings(corpus.drawings, device)
        self.mean = torch.tensor(IMAGE_MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(IMAGE_STD, device=device).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.references)

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, Any]]:
        """See `Task.loss`."""
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed)
        indices = indices.to(device)
        return model(self.tokens(indices, generator), self.pixels(self.characters(indices, generator), generator))

    def tokens(self, indices: Tensor, generator: torch.Generator) -> PairTokens:
        """The template around B questions, a share of the modifications' tokens being replaced by random ones."""
        before = self.before[indices]
        place = torch.arange(before.ids.shape[1], device=indices.device)
        inside = (place >= before.instruction[:, :1]) & (place < before.instruction[:, 1:])
        shape = before.ids.shape
        drop = torch.rand(shape, generator=generator, device=indices.device) < self.params.instruction_dropout
        other = torch.randint(len(SPECIAL_TOKENS), self.vocabulary, shape, generator=generator, device=indices.device)
        ids = torch.where(inside & drop, other, before.ids)
        return PairTokens(ids, before.mask.sum(1), self.reference_at, self.after, 1)

    def characters(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for B questions their reference, a right one and different wrong ones: [B, 1 + N]."""
        right = _choose(self.right[indices], self.right_counts[indices], 1, generator)
        wrong = _choose(self.wrong[indices], self.wrong_counts[indices], self.params.candidates - 1, generator)
        return torch.cat((self.references[indices].unsqueeze(1), right, wrong), dim=1)

    def pixels(self, characters: Tensor, generator: torch.Generator) -> Tensor:
        """An augmented, normalised image of each character [B, M] -> [B, M, 3, H, W]."""
        rows = self.drawings.draw(characters.flatten(), generator)[:, 0]
        with torch.autocast(characters.device.type, enabled=False):
            pixels = augment(self.images[rows].float() / 255, generator)
            return ((pixels - self.mean) / self.std).unflatten(0, characters.shape)


def _padded(rows: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Lists of different lengths as one tensor [Q, longest], and their lengths [Q]."""
    longest = max(map(len, rows))
    padded = torch.tensor([[*row, *row[:1] * (longest - len(row))] for row in rows], device=device)
    return padded, torch.tensor([len(row) for row in rows], device=device)


def _choose(rows: Tensor, counts: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Draw `number` different ones of each row's first `counts`: [B, longest] -> [B, number]."""
    order = torch.rand(rows.shape, generator=generator, device=rows.device)
    order[torch.arange(rows.shape[1], device=rows.device) >= counts.unsqueeze(1)] = torch.inf
    return rows.gather(1, order.argsort(dim=1)[:, :number])
