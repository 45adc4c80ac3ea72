"""Training of the small Qwen2.5-VL for its three jobs.

1. Embeddings of image, text and image + text in one space: the last token's final state. Every
   view of a character (two teams' images, its texts, image + text) is pulled together and away
   from all other characters (symmetric InfoNCE over pairs of views).
2. Captions: prompt + image -> the long caption.
3. Target descriptions: section 6.3's prompt with an edit instruction + image -> the description
   after the edit. Edits serve this job only: no edit ever shapes the embedding space, so the
   fused query embedding stays zero-shot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from pipeline.backbones.corpus import PARTIAL, Corpus
from pipeline.config import EncoderParams, SmallMllmParams
from pipeline.encoders.augment import augment, mix_styles
from pipeline.encoders.mllm.batched_qwen import language_states, visual_tokens
from pipeline.encoders.mllm.qwen import MERGE, SPECIAL_TOKENS

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class Sequences:
    """Tokenised sequences, right-padded. ids, mask [N, T]; spans [N] of the answer and the instruction."""

    ids: Tensor
    mask: Tensor
    answer: Tensor  # [N] first token of the answer (T when there is none)
    instruction: Tensor  # [N, 2] first and past-the-last token of the edit instruction

    def to(self, device: torch.device) -> Sequences:
        return Sequences(self.ids.to(device), self.mask.to(device), self.answer.to(device), self.instruction.to(device))

    def __getitem__(self, rows: Tensor) -> Sequences:
        mask = self.mask[rows]
        longest = int(mask.sum(1).max())
        return Sequences(self.ids[rows, :longest], mask[:, :longest], self.answer[rows], self.instruction[rows])


def tokenise(
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    answers: list[str] | None = None,
    instructions: list[str] | None = None,
) -> Sequences:
    """Full strings -> padded ids; an answer ends with <|im_end|>."""
    answers = [f"{answer}<|im_end|>" for answer in answers] if answers else [""] * len(prompts)
    prompt_ids = tokenizer(prompts, add_special_tokens=False, return_offsets_mapping=True)
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"] if any(answers) else [[]] * len(prompts)
    rows = [prompt + answer for prompt, answer in zip(prompt_ids["input_ids"], answer_ids, strict=True)]
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id
    spans = torch.zeros(len(rows), 2, dtype=torch.long)
    for number, instruction in enumerate(instructions or ()):
        begin = prompts[number].index(instruction)
        end, offsets = begin + len(instruction), prompt_ids["offset_mapping"][number]
        inside = [i for i, (a, b) in enumerate(offsets) if a >= begin and b <= end and b > a]
        spans[number] = torch.tensor([inside[0], inside[-1] + 1])
    return Sequences(
        ids=torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
        mask=torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        answer=torch.tensor([len(ids) for ids in prompt_ids["input_ids"]]),
        instruction=spans,
    )


def texts_by_kind(corpus: Corpus) -> list[str]:
    """All characters' short texts, then the long ones, then PARTIAL times the partial ones; see `draw_kinds`."""
    return [
        *corpus.short,
        *corpus.long,
        *(variants[number] for number in range(PARTIAL) for variants in corpus.partial),
    ]


def draw_kinds(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Which text of a character: 0 short (45%), 1 long (30%), 2.. one of the partial ones (25%)."""
    draw = torch.rand(shape, generator=generator, device=generator.device)
    partial = 2 + torch.randint(PARTIAL, shape, generator=generator, device=generator.device)
    return torch.where(draw < 0.45, 0, torch.where(draw < 0.75, 1, partial))


class MllmTrainee(nn.Module):
    """The model, the temperature of its embedding loss, and the loss itself."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, drop_path: float):
        super().__init__()
        self.model = model
        self.drop_path = drop_path
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def embed(self, sequences: Sequences, visual: Tensor | None, prefix: int) -> Tensor:
        """L2-normalised state of the last token [B, d]."""
        states = language_states(self.model, sequences.ids, visual, prefix)
        last = sequences.mask.sum(1) - 1
        return F.normalize(states[torch.arange(len(last), device=last.device), last].float(), dim=-1)

    def answer_loss(self, sequences: Sequences, visual: Tensor, prefix: int) -> Tensor:
        """Mean cross-entropy of the answers' tokens."""
        states = language_states(self.model, sequences.ids, visual, prefix)
        position = torch.arange(sequences.ids.shape[1], device=sequences.ids.device)
        wanted = (position[1:] >= sequences.answer.unsqueeze(1)) & (sequences.mask[:, 1:] > 0)
        logits = self.model.lm_head(states[:, :-1][wanted])  # only the answers' states meet the vocabulary
        return F.cross_entropy(logits.float(), sequences.ids[:, 1:][wanted])

    def forward(
        self,
        views: dict[str, tuple[Sequences, Tensor | None]],
        answers: dict[str, tuple[Sequences, int, Tensor]],
        images: list[Tensor],
        prefix: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """images: pixel batches [B, 3, H, W]; a view names its batch by index, an answer also its rows there."""
        visual = visual_tokens(self.model, torch.cat(images), self.drop_path, generator).split(
            [len(batch) for batch in images]
        )
        embedded = [
            self.embed(s, None if image is None else visual[image], prefix if image is not None else 0)
            for s, image in views.values()
        ]
        scale = self.logit_scale.clamp(max=4.6).exp()
        names = list(views)
        contrast = torch.zeros((), device=scale.device)
        pairs = [(a, b) for a in range(len(names)) for b in range(a)]
        for a, b in pairs:
            logits = scale * embedded[a] @ embedded[b].T
            labels = torch.arange(len(logits), device=logits.device)
            contrast = contrast + 0.5 * (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / len(
                pairs
            )
        losses = {
            name: self.answer_loss(sequences, visual[image][rows], prefix)
            for name, (sequences, image, rows) in answers.items()
        }
        total = contrast + sum(losses.values())
        return total, {
            "contrast": contrast.detach(),
            "scale": scale.detach(),
            **{name: loss.detach() for name, loss in losses.items()},
        }


class MllmTask:
    """The corpus as the training loop's task; its examples are characters."""

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        corpus: Corpus,
        params: SmallMllmParams,
        encoder: EncoderParams,
        device: torch.device,
    ):
        self.model = MllmTrainee(model, params.drop_path)
        self.params = params
        self.vocabulary = len(tokenizer)
        slots = (corpus.images.shape[-1] // params.patch_size // MERGE) ** 2
        picture = "<|vision_start|>" + "<|image_pad|>" * slots + "<|vision_end|>"
        self.prefix = len(
            tokenizer(encoder.chat_template.split("{image}")[0] + "<|vision_start|>", add_special_tokens=False)[
                "input_ids"
            ]
        )

        def sequences(template: str, texts: list[str], image: bool, **spans: Any) -> Sequences:
            filled = [template.format(image=picture if image else "", text=text) for text in texts]
            return tokenise(tokenizer, filled, **spans).to(device)

        self.characters = len(corpus.short)
        texts = texts_by_kind(corpus)
        self.text_alone = sequences(encoder.embed_template, texts, image=False)
        self.fused = sequences(encoder.embed_template, texts, image=True)
        self.image_alone = sequences(encoder.embed_template, [""], image=True)
        self.captions = sequences(
            encoder.chat_template, [encoder.caption_prompt] * self.characters, image=True, answers=corpus.long
        )
        edits = [edit for of_character in corpus.edits for edit in of_character]
        prompts = [encoder.target_prompt.format(modification=i, shared_concept=concept) for i, _, concept in edits]
        self.edits = sequences(
            encoder.chat_template,
            prompts,
            image=True,
            answers=[after for _, after, _ in edits],
            instructions=[i for i, _, _ in edits],
        )
        counts = torch.tensor([len(of_character) for of_character in corpus.edits])
        self.edit_counts, self.edit_first = counts.to(device), (counts.cumsum(0) - counts).to(device)
        self.images = corpus.images.to(device)
        self.pictures = torch.tensor(corpus.pictures, device=device)  # [C, 2]
        self.mean = torch.tensor(IMAGE_MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(IMAGE_STD, device=device).view(3, 1, 1)

    def __len__(self) -> int:
        return self.characters

    def _draw(self, rows: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented, normalised images [B, 3, H, W]."""
        first, second = self.images[rows].float() / 255, self.images[other].float() / 255
        return (augment(mix_styles(first, second, 0.25, generator), generator) - self.mean) / self.std

    def loss(
        self, model: nn.Module, indices: Tensor, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, Any]]:
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed)
        indices = indices.to(device)
        swap = torch.rand(len(indices), generator=generator, device=device) < 0.5
        pair = self.pictures[indices]
        pair = torch.where(swap.unsqueeze(1), pair.flip(1), pair)
        with torch.autocast(device.type, enabled=False):
            images = [self._draw(pair[:, 0], pair[:, 1], generator), self._draw(pair[:, 1], pair[:, 0], generator)]
        # One kind of text for a whole view: texts of like length, hardly any padding.
        kind = self.characters * draw_kinds((2, 1), generator)
        alone = self.image_alone[torch.zeros_like(indices)]
        views = {
            "image_0": (alone, 0),
            "image_1": (alone, 1),
            "text": (self.text_alone[indices + kind[0]], None),
            "fused": (self.fused[indices + kind[1]], 0),
        }
        half = torch.arange(len(indices) // 2, device=device)  # the long answers of half of the batch are enough
        edited = (self.edit_counts[indices] > 0).nonzero().squeeze(1)
        counts = self.edit_counts[indices[edited]]
        choice = (torch.rand(len(edited), generator=generator, device=device) * counts).long()
        edit = self.edits[self.edit_first[indices[edited]] + choice]
        edit.ids = self._drop_words(edit, generator)
        answers = {"caption": (self.captions[indices[half]], 0, half), "describe": (edit, 1, edited)}
        return model(views, answers, images, self.prefix, generator)

    def _drop_words(self, edit: Sequences, generator: torch.Generator) -> Tensor:
        """Replace a share of the instruction's tokens by random ones: wordings not seen here must still work."""
        position = torch.arange(edit.ids.shape[1], device=edit.ids.device)
        inside = (position >= edit.instruction[:, :1]) & (position < edit.instruction[:, 1:])
        drop = torch.rand(edit.ids.shape, generator=generator, device=edit.ids.device) < self.params.instruction_dropout
        random = torch.randint(
            len(SPECIAL_TOKENS), self.vocabulary, edit.ids.shape, generator=generator, device=edit.ids.device
        )
        return torch.where(inside & drop, random, edit.ids)
