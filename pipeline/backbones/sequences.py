"""Tokenised training texts of the small Qwen2.5-VL."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast


@dataclass
class Sequences:
    """N tokenised sequences, right-padded to T tokens."""

    ids: Tensor
    """[N, T]."""
    mask: Tensor
    """[N, T]: 1 for a token, 0 for padding."""
    answer: Tensor
    """[N]: the first token of the answer; behind the last where there is none."""
    instruction: Tensor
    """[N, 2]: the first and the past-the-last token of the edit instruction."""

    def to(self, device: torch.device) -> Sequences:
        """The same on a device."""
        return Sequences(self.ids.to(device), self.mask.to(device), self.answer.to(device), self.instruction.to(device))

    def __getitem__(self, rows: Tensor) -> Sequences:
        """Some of the sequences, cut to the longest of them."""
        mask = self.mask[rows]
        longest = int(mask.sum(1).max())
        return Sequences(self.ids[rows, :longest], mask[:, :longest], self.answer[rows], self.instruction[rows])


def tokenise(
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    answers: list[str] | None = None,
    instructions: list[str] | None = None,
) -> Sequences:
    """Tokenise full strings.

    Args:
        tokenizer: Qwen's.
        prompts: N prompts, templates filled in.
        answers: What the model should continue them with; <|im_end|> is added.
        instructions: A part of each prompt, whose tokens are to be known.
    """
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
