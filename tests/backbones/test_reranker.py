"""The small reranker's questions, and its loss against transformers and numbers by hand."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline.artifacts import schemas, write_table
from pipeline.backbones import reranker
from pipeline.backbones.corpus import EDITS_A_KIND, Corpus
from pipeline.backbones.reranker import RerankerTask
from pipeline.backbones.verification import Question, read_questions
from pipeline.config import Params, SmallRerankerParams
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.transformers_backend import TransformersMllm
from tests.sections import profile

CODES = ["a", "b", "c", "d"]
CPU = torch.device("cpu")


def test_questions_have_near_misses_and_no_right_one_among_them(tmp_path):
    rows = [
        {
            "triplet_id": f"{kind}/{number}",
            "reference_id": f"one/{reference}",
            "target_id": f"two/{target}",
            "instruction": instruction,
            "target_description": "",
            "shared_concept": "",
        }
        for number, (kind, reference, target, instruction) in enumerate(
            [("tone", "a", "b", "make it dark"), ("tone", "a", "c", "make it light"), ("role", "d", "x", "a cook")]
        )
    ]
    write_table(tmp_path / "triplets", pa.Table.from_pylist(rows, schemas.TRIPLETS), {})
    captions = np.eye(4)[[0, 1, 2, 2]]  # the captions of c and d are alike
    questions = read_questions(tmp_path / "triplets", CODES, captions, ["table"])
    assert len(questions) == EDITS_A_KIND, "d's target is no character of the corpus"
    for question in questions:
        assert question.reference == 0 and len(question.right) == 1
        (right,) = question.right
        assert right in (1, 2) and ("dark" if right == 1 else "light") in question.modification
        assert set(question.wrong) == {0, 1, 2, 3} - {right}
        assert question.wrong[0] == 0, "the reference itself comes first"
    assert questions == read_questions(tmp_path / "triplets", CODES, captions, ["table"])


@pytest.fixture
def params() -> Params:
    """The small f_M's question, without what is random in a loss."""
    found = profile("offline")
    sizes = dataclasses.replace(found.backbones.reranker, candidates=3, instruction_dropout=0.0)
    found.backbones.reranker = sizes
    found.reranker.path = found.embedder.path
    return found


@pytest.fixture
def task(params, monkeypatch) -> RerankerTask:
    monkeypatch.setattr(reranker, "augment", lambda pixels, generator: pixels)
    mllm = TransformersMllm(params.embedder, "cpu")
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    corpus = Corpus(CODES, images, [(0,), (1,), (2,), (3,)], [], [], [], [])
    questions = [Question(0, "make it dark", (1,), (2, 3)), Question(2, "a much longer wish", (3,), (0, 1, 2))]
    tokenizer = copy.deepcopy(mllm.processor.tokenizer)  # others may share the model
    tokenizer.padding_side = "right"
    return RerankerTask(mllm.model, tokenizer, corpus, questions, params, CPU)


def test_the_loss_is_that_of_transformers_probabilities(task, params):
    generator = torch.Generator().manual_seed(5)
    rows = torch.tensor([0, 1])
    drawn = task.characters(rows, generator)
    assert drawn[:, 0].tolist() == [0, 2] and drawn[:, 1].tolist() == [1, 3]
    assert sorted(drawn[0, 2:].tolist()) == [2, 3] and len(set(drawn[1, 2:].tolist())) == 2
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in task.images]
    texts = ("make it dark", "a much longer wish")
    inputs = [
        MllmInput(text, pictures[row[0]], candidate=pictures[candidate])
        for text, row in zip(texts, drawn.tolist(), strict=True)
        for candidate in row[1:]
    ]
    verifier = TransformersMllm(params.reranker, "cpu")
    yes = verifier.token_probabilities(inputs, params.reranker.answers)[:, 0].reshape(2, 3)
    with torch.no_grad():
        scores = task.model.scores(task.tokens(rows, generator), task.pixels(drawn, generator))
        loss, parts = task.model(task.tokens(rows, generator), task.pixels(drawn, generator))
    np.testing.assert_allclose(scores.sigmoid().numpy(), yes, atol=1e-4)
    logits = np.log(yes) - np.log1p(-yes)
    answer = 0.5 * (-np.log(yes[:, 0]).mean() - np.log1p(-yes[:, 1:]).mean())
    order = (np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]).mean()
    assert parts["answer"] == pytest.approx(answer, abs=1e-3) and parts["order"] == pytest.approx(order, abs=1e-3)
    assert loss == pytest.approx(answer + order, abs=2e-3)


def test_a_frozen_tower_gets_no_gradient_and_a_step_lowers_the_loss(task, params):
    task.model.vision = False
    task.model.model.model.visual.requires_grad_(False)
    trained = [weight for weight in task.model.parameters() if weight.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=1e-5)

    def loss():
        return task.loss(task.model, torch.tensor([0, 1]), torch.Generator().manual_seed(1), CPU)[0]

    before = loss()
    before.backward()
    assert all(weight.grad is None for weight in task.model.model.model.visual.parameters())
    optimiser.step()
    assert loss() < before
    assert len(task) == 2 and isinstance(params.backbones.reranker, SmallRerankerParams)
