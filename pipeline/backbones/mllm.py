"""Training of the small Qwen2.5-VL for its three jobs.

1. Embeddings of image, text and image + text in one space: the last token's final state. All views
   of a character (two teams' images, its texts, image + text) are pulled together and away from
   the other characters (symmetric InfoNCE over pairs of views).
2. Captions: prompt + image -> the long caption.
3. Target descriptions: section 6.3's prompt with an edit instruction + image -> the description
   after the edit. Edits serve this job only: no edit ever shapes the embedding space, so the
   fused query embedding stays zero-shot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from pipeline.backbones.corpus import Corpus, Drawings, draw_kinds, texts_by_kind
from pipeline.backbones.sequences import Sequences, tokenise
from pipeline.config import Params
from pipeline.encoders.augment import augment, mix_styles
from pipeline.encoders.mllm.batched_qwen import language_states, visual_tokens
from pipeline.encoders.mllm.prompts import target_prompt
from pipeline.encoders.mllm.qwen import MERGE, SPECIAL_TOKENS

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


class View(NamedTuple):
    """B characters as the model embeds them: texts, with an image or alone."""

    sequences: Sequences
    image: int | None
    """Which batch of images; None: text alone."""


class Answer(NamedTuple):
    """Prompts with the answers that the model should give."""

    sequences: Sequences
    image: int
    """Which batch of images."""
    rows: Tensor
    """The rows of that batch."""


class MllmTrainee(nn.Module):
    """The model, the temperature of its embedding loss, and the loss itself.

    Args:
        model: The model to train.
        drop_path: Share of images that skip a residual branch of the visual tower.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, drop_path: float):
        super().__init__()
        self.model = model
        self.drop_path = drop_path
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def embed(self, sequences: Sequences, visual: Tensor | None, prefix: int) -> Tensor:
        """The embeddings z(x): the last token's state, L2-normalised.

        Args:
            sequences: B sequences.
            visual: Their images' tokens [B, n, d]; None: text alone.
            prefix: Text tokens before the visual ones.

        Returns:
            float32 [B, d].
        """
        states = language_states(self.model, sequences.ids, visual, prefix)
        last = sequences.mask.sum(1) - 1
        return F.normalize(states[torch.arange(len(last), device=last.device), last].float(), dim=-1)

    def answer_loss(self, sequences: Sequences, visual: Tensor, prefix: int) -> Tensor:
        """Mean cross-entropy of the answers' tokens; the arguments as for `embed`."""
        states = language_states(self.model, sequences.ids, visual, prefix)
        position = torch.arange(sequences.ids.shape[1], device=sequences.ids.device)
        wanted = (position[1:] >= sequences.answer.unsqueeze(1)) & (sequences.mask[:, 1:] > 0)
        logits = self.model.lm_head(states[:, :-1][wanted])  # only the answers' states meet the vocabulary
        return F.cross_entropy(logits.float(), sequences.ids[:, 1:][wanted])

    def forward(
        self,
        views: dict[str, View],
        answers: dict[str, Answer],
        images: list[Tensor],
        prefix: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The contrastive loss over all pairs of views, and the loss of every kind of answer.

        Args:
            views: The views of B characters.
            answers: Prompts with answers, by the name of their loss.
            images: Batches of pixels [B, 3, H, W] that views and answers refer to.
            prefix: Text tokens before the visual ones.
            generator: Draws the branches that are skipped.

        Returns:
            The sum of the losses, and its parts for the log.
        """
        visual = visual_tokens(self.model, torch.cat(images), self.drop_path, generator).split(
            [len(batch) for batch in images]
        )
        embedded = [
            self.embed(sequences, None, 0) if image is None else self.embed(sequences, visual[image], prefix)
            for sequences, image in views.values()
        ]
        scale = self.logit_scale.clamp(max=4.6).exp()
        contrast = _contrast(embedded, scale)
        losses = {
            name: self.answer_loss(sequences, visual[image][rows], prefix)
            for name, (sequences, image, rows) in answers.items()
        }
        total = contrast + sum(losses.values())
        parts = {name: loss.detach() for name, loss in losses.items()}
        return total, {"contrast": contrast.detach(), "scale": scale.detach(), **parts}


def _contrast(embedded: list[Tensor], scale: Tensor) -> Tensor:
    """Symmetric InfoNCE, the mean over all pairs of views [B, d]."""
    contrast = torch.zeros((), device=scale.device)
    pairs = [(a, b) for a in range(len(embedded)) for b in range(a)]
    for a, b in pairs:
        logits = scale * embedded[a] @ embedded[b].T  # [B, B]
        labels = torch.arange(len(logits), device=logits.device)
        both = F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)
        contrast = contrast + 0.5 * both / len(pairs)
    return contrast


class MllmTask:
    """The corpus as a `Task` of the training loop. Its examples are characters.

    Args:
        model: The model to train.
        tokenizer: Its tokenizer.
        corpus: The data.
        params: Sizes, regularisation, templates and prompts.
        device: Where the data goes.
    """

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        corpus: Corpus,
        params: Params,
        device: torch.device,
    ):
        embedder, describer, captioner = params.embedder, params.describer, params.captioner
        self.params = params.backbones.mllm
        self.model: nn.Module = MllmTrainee(model, self.params.drop_path)
        self.vocabulary = len(tokenizer)
        slots = (corpus.images.shape[-1] // self.params.patch_size // MERGE) ** 2
        slot = "<|vision_start|>" + "<|image_pad|>" * slots + "<|vision_end|>"
        before = describer.chat_template.split("{image}")[0] + "<|vision_start|>"
        self.prefix = len(tokenizer(before, add_special_tokens=False)["input_ids"])

        def sequences(template: str, texts: list[str], image: bool, **spans: Any) -> Sequences:
            filled = [template.format(image=slot if image else "", text=text) for text in texts]
            return tokenise(tokenizer, filled, **spans).to(device)

        self.characters = len(corpus.short)
        texts = texts_by_kind(corpus)
        self.text_alone = sequences(embedder.embed_template, texts, image=False)
        self.fused = sequences(embedder.embed_template, texts, image=True)
        self.image_alone = sequences(embedder.embed_template, [""], image=True)
        self.captions = sequences(
            captioner.chat_template, [captioner.caption_prompt] * self.characters, image=True, answers=corpus.long
        )
        edits = [edit for of_character in corpus.edits for edit in of_character]
        self.edits = sequences(
            describer.chat_template,
            [target_prompt(describer, edit.instruction, edit.shared_concept) for edit in edits],
            image=True,
            answers=[edit.target_description for edit in edits],
            instructions=[edit.instruction for edit in edits],
        )
        counts = torch.tensor([len(of_character) for of_character in corpus.edits])
        self.edit_counts, self.edit_first = counts.to(device), (counts.cumsum(0) - counts).to(device)
        self.images = corpus.images.to(device)
        self.drawings = Drawings(corpus.drawings, device)
        self.mean = torch.tensor(IMAGE_MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(IMAGE_STD, device=device).view(3, 1, 1)

    def __len__(self) -> int:
        return self.characters

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, Any]]:
        """See `Task.loss`."""
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed)
        indices = indices.to(device)
        images = self._draw_images(indices, generator)
        views = self._draw_views(indices, generator)
        answers = self._draw_answers(indices, generator)
        return model(views, answers, images, self.prefix, generator)

    def _draw_images(self, indices: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Two augmented, normalised images of every character, by two teams: 2 x [B, 3, H, W]."""
        pair = self.drawings.draw(indices, generator)  # [B, 2]
        with torch.autocast(generator.device.type, enabled=False):
            return [self._augmented(pair[:, a], pair[:, b], generator) for a, b in ((0, 1), (1, 0))]

    def _augmented(self, rows: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
        """Images [B, 3, H, W], sometimes blended with the other team's, augmented and normalised."""
        first, second = self.images[rows].float() / 255, self.images[other].float() / 255
        return (augment(mix_styles(first, second, 0.25, generator), generator) - self.mean) / self.std

    def _draw_views(self, indices: Tensor, generator: torch.Generator) -> dict[str, View]:
        """Both images, a text, and an image with a text. A whole view has one kind of text: less padding."""
        kind = self.characters * draw_kinds((2, 1), generator)
        alone = self.image_alone[torch.zeros_like(indices)]
        return {
            "image_0": View(alone, 0),
            "image_1": View(alone, 1),
            "text": View(self.text_alone[indices + kind[0]], None),
            "fused": View(self.fused[indices + kind[1]], 0),
        }

    def _draw_answers(self, indices: Tensor, generator: torch.Generator) -> dict[str, Answer]:
        """The captions of half of the batch, which are enough, and an edit of every character that has any."""
        device = generator.device
        half = torch.arange(len(indices) // 2, device=device)
        edited = (self.edit_counts[indices] > 0).nonzero().squeeze(1)
        counts = self.edit_counts[indices[edited]]
        choice = (torch.rand(len(edited), generator=generator, device=device) * counts).long()
        edit = self.edits[self.edit_first[indices[edited]] + choice]
        edit.ids = self._drop_words(edit, generator)
        return {"caption": Answer(self.captions[indices[half]], 0, half), "describe": Answer(edit, 1, edited)}

    def _drop_words(self, edit: Sequences, generator: torch.Generator) -> Tensor:
        """Replace a share of the instruction's tokens by random ones: unseen wordings must still work. -> ids [N, T]"""
        position = torch.arange(edit.ids.shape[1], device=edit.ids.device)
        inside = (position >= edit.instruction[:, :1]) & (position < edit.instruction[:, 1:])
        drop = torch.rand(edit.ids.shape, generator=generator, device=edit.ids.device) < self.params.instruction_dropout
        random = torch.randint(
            len(SPECIAL_TOKENS), self.vocabulary, edit.ids.shape, generator=generator, device=edit.ids.device
        )
        return torch.where(inside & drop, random, edit.ids)
