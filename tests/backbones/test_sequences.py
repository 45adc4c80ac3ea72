"""Tokenised training texts: padding, and where answers and instructions stand."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones.sequences import tokenise
from pipeline.encoders.mllm.small_qwen import train_tokenizer

PROMPTS = ["change it: 'make it black'.", "please change this one: 'a hat'."]
INSTRUCTIONS = ["make it black", "a hat"]
ANSWERS = ["a black ball", "a cat with a hat"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*PROMPTS, *ANSWERS] * 4, 330)


@pytest.fixture
def sequences(tokenizer):
    return tokenise(tokenizer, PROMPTS, answers=ANSWERS, instructions=INSTRUCTIONS)


def test_a_sequence_is_its_prompt_and_its_answer(tokenizer, sequences):
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        ids = sequences.ids[row][sequences.mask[row].bool()]
        begin = int(sequences.answer[row])
        assert tokenizer.decode(ids[:begin]) == prompt
        assert tokenizer.decode(ids[begin:]) == f"{answer}<|im_end|>"
    assert (sequences.ids[sequences.mask == 0] == tokenizer.pad_token_id).all()


def test_the_instruction_is_found_inside_its_prompt(tokenizer, sequences):
    for row, instruction in enumerate(INSTRUCTIONS):
        begin, end = sequences.instruction[row].tolist()
        assert tokenizer.decode(sequences.ids[row, begin:end]).strip() == instruction


def test_without_answers_the_answer_begins_behind_the_prompt(tokenizer):
    alone = tokenise(tokenizer, PROMPTS)
    assert alone.answer.tolist() == alone.mask.sum(1).tolist() and not alone.instruction.any()


def test_chosen_rows_are_cut_to_the_longest_of_them(sequences):
    shorter = int(sequences.mask.sum(1).argmin())
    chosen = sequences[torch.tensor([shorter, shorter])]
    length = int(sequences.mask[shorter].sum())
    assert chosen.ids.shape == (2, length) and bool(chosen.mask.all())
    assert torch.equal(chosen.ids[0], sequences.ids[shorter, :length])
