"""Made-up text for the rehearsal, and tokenizers that give every one of its words one token."""

from __future__ import annotations

import random

from tokenizers import AddedToken, pre_tokenizers
from transformers import Qwen2Tokenizer, T5Tokenizer

from bench.rehearsal.sizes import SPECIAL

_NOUNS = """ball boat bird house tree dog cat horse street table chair window garden river mountain beach bridge tower
car bicycle train plate cup flower hat coat shirt dress shoe book lamp cloud field road wall door roof child woman"""
_ADJECTIVES = "red blue green yellow white black small large old new bright dark round tall wooden striped"
_LINKS = "with beside above below near behind under and"
_COMMON = "a the is of in on to make it an has picture shows one where stands describe image"
NOUNS, ADJECTIVES, LINKS, COMMON = (text.split() for text in (_NOUNS, _ADJECTIVES, _LINKS, _COMMON))


def caption(rng: random.Random, words: int) -> str:
    """A sentence of about so many words: one thing after the other."""
    parts = []
    while sum(map(len, parts)) < words:
        link = [rng.choice(LINKS)] if parts else []
        parts.append([*link, "a", rng.choice(ADJECTIVES), rng.choice(NOUNS)])
    return " ".join(word for part in parts for word in part)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """A byte-level BPE of Qwen2's class: bytes, and further entries up to the special tokens' published ids.

    What random weights generate of those reads as words, so that captions have the words they have tokens.
    """
    first_special = min(SPECIAL.values())
    entries = sorted(pre_tokenizers.ByteLevel.alphabet())
    words, merges = [*NOUNS, *ADJECTIVES, *LINKS, *COMMON], []
    known = set(entries)
    for word in dict.fromkeys(words):
        spelt = f"Ġ{word}"
        for end in range(2, len(spelt) + 1):
            if spelt[:end] not in known:
                known.add(spelt[:end])
                entries.append(spelt[:end])
                merges.append((spelt[: end - 1], spelt[end - 1]))
    rng = random.Random(0)
    entries += [f"Ġ{rng.choice(words)}{number}" for number in range(first_special - len(entries))]
    vocab = {entry: number for number, entry in enumerate(entries)} | SPECIAL
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=merges, pad_token="<|endoftext|>", eos_token="<|im_end|>", unk_token=None, bos_token=None
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def t5_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer of T5's class: the words of `caption`, an unknown token for every other, and fillers."""
    words = [f"▁{word}" for word in dict.fromkeys([*COMMON, *NOUNS, *ADJECTIVES, *LINKS])]
    entries = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -5.0) for word in words)]
    entries += [(f"▁filler{number}", -20.0) for number in range(32000 - len(entries))]
    return T5Tokenizer(vocab=entries)
