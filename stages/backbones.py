"""backbones: trains the small models of the embedded default (frozen: their weights are shipped).

They are the MLLM, the CLIP, and the reranker: a copy of the trained MLLM that is taught to verify answers.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from transformers import PreTrainedTokenizerFast

from pipeline.artifacts import write_atomically
from pipeline.backbones.clip import ClipTask, build_clip, clip_tokenizer
from pipeline.backbones.corpus import Corpus, load_corpus
from pipeline.backbones.mllm import MllmTask
from pipeline.backbones.reranker import RerankerTask
from pipeline.backbones.verification import read_questions
from pipeline.config import Params, SmallClipParams, SmallMllmParams, SmallRerankerParams, as_dict, load_params
from pipeline.encoders.hub import resolve_model_path
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.small_qwen import build_model, make_processor, save_model, train_tokenizer
from pipeline.encoders.mllm.transformers_backend import TransformersMllm
from pipeline.errors import run_stage
from pipeline.sources.emoji.artists import ARTISTS, Files, read_artist
from pipeline.sources.emoji.cldr import read_emoji
from pipeline.text.carriers import carrier_words
from pipeline.training import Run, train
from pipeline.training.loop import Task, log_csv, make_accelerator

Sizes = SmallMllmParams | SmallClipParams | SmallRerankerParams
FOLDER, TRIPLETS = Path("models/backbones"), Path("data/triplets/all")


def main(
    only: Annotated[str, typer.Option(help="Train only this one: mllm, clip, or reranker.")] = "", folder: Path = FOLDER
) -> None:
    params = load_params()
    corpus = read_corpus(params)
    if only != "reranker":
        prompts = [params.describer.target_prompt, params.captioner.caption_prompt, params.describer.chat_template]
        tokenizer = train_tokenizer(corpus.texts() + prompts * 100, params.backbones.mllm.vocabulary)
        for name, trainer in (("mllm", train_mllm), ("clip", train_clip)):
            if only in ("", name):
                trainer(params, corpus, tokenizer, folder / name)
    if only in ("", "reranker"):
        train_reranker(params, corpus, folder / "mllm", folder / "reranker")


def read_corpus(params: Params) -> Corpus:
    """The pairs' teams and the artists that only the backbones learn from."""
    teams, raw = params.backbones.teams, Path(params.data.fixture or params.data.raw)
    further = [name for name in teams if name in ARTISTS]
    emoji = read_emoji(raw) if further else []
    artists: dict[str, Files] = {name: read_artist(name, raw, emoji, params.data.image_size) for name in further}
    vocabulary = resolve_model_path(params.captions.carrier_vocabulary)
    return load_corpus("data/pairs", TRIPLETS, vocabulary, teams, artists)


def train_mllm(params: Params, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    torch.manual_seed(params.seed)
    sizes = params.backbones.mllm
    device = make_accelerator(sizes, params.runtime.device).device
    model = build_model(sizes, tokenizer).to(device)
    log = run_training(params, sizes, MllmTask(model, tokenizer, corpus, params, device), folder)
    with write_atomically(folder) as aside:
        save_model(aside, model, make_processor(tokenizer, sizes, params.data.image_size))
        (aside / "training.csv").write_text(log)
    shutil.rmtree(f"{folder}.run", ignore_errors=True)


def train_clip(params: Params, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    torch.manual_seed(params.seed)
    sizes = params.backbones.clip
    device = make_accelerator(sizes, params.runtime.device).device
    encoder = build_clip(sizes, clip_tokenizer(tokenizer))
    log = run_training(params, sizes, ClipTask(encoder, corpus, device), folder)
    encoder.half().save(folder)
    (folder / "training.csv").write_text(log)
    shutil.rmtree(f"{folder}.run", ignore_errors=True)


def train_reranker(params: Params, corpus: Corpus, start: Path, folder: Path) -> None:
    """Teach a copy of the trained MLLM the question of `reranker`.

    Args:
        params: All parameters.
        corpus: The images.
        start: The trained MLLM.
        folder: Where the reranker goes.
    """
    torch.manual_seed(params.seed)
    sizes = params.backbones.reranker
    device = make_accelerator(sizes, params.runtime.device).device
    mllm = TransformersMllm(replace(params.embedder, path=str(start), dtype="float32"), str(device))
    inputs, size = [MllmInput(text) for text in corpus.short], params.embedder.batch_size
    captions = np.concatenate([mllm.embed(inputs[first : first + size]) for first in range(0, len(inputs), size)])
    fillers = carrier_words(corpus.short, resolve_model_path(params.captions.carrier_vocabulary))
    questions = read_questions(TRIPLETS, corpus.codes, captions, fillers)
    task = RerankerTask(mllm.model, mllm.processor.tokenizer, corpus, questions, params, device)
    log = run_training(params, sizes, task, folder)
    with write_atomically(folder) as aside:
        save_model(aside, mllm.model, mllm.processor)
        (aside / "training.csv").write_text(log)
    shutil.rmtree(f"{folder}.run", ignore_errors=True)


def run_training(
    params: Params, sizes: SmallMllmParams | SmallClipParams | SmallRerankerParams, task: Task, folder: Path
) -> str:
    """Train, with checkpoints in `<folder>.run`; the log as CSV."""
    scratch = Path(f"{folder}.run")
    run = Run(params.seed, scratch, as_dict(sizes), params.runtime.device, title=folder.name)
    return log_csv(train(task, sizes, run))


if __name__ == "__main__":
    run_stage(lambda: typer.run(main))
