"""train_prior: fused embeddings and text conditions of the pairs -> models/prior (Stage 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import PartialState

from pipeline.artifacts import ShardSet, sha256_file
from pipeline.artifacts.columns import Column, map_texts
from pipeline.artifacts.mapped import scratch
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import Origin
from pipeline.config import Params, PriorDataParams, as_dict, load_params
from pipeline.encoders.embedding.readers import PairReader, RowIds, training_rows
from pipeline.encoders.embedding.rejected import rejected_images
from pipeline.encoders.identity import text_encoder_identity
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.text import open_text_encoder
from pipeline.errors import run_stage
from pipeline.fusion_diff import Diffusion, EncodedConditions, Prior, PriorSizes, PriorTask
from pipeline.fusion_diff.checkpoints import save_prior
from pipeline.fusion_diff.conditions import Texts
from pipeline.fusion_diff.tables import Ids, check_same_ids, open_conditions, open_vectors
from pipeline.gpu import accelerate
from pipeline.gpu.texts import pack_texts
from pipeline.runtime import device, set_up
from pipeline.training import Run, train
from pipeline.training.launch import on_all_gpus
from pipeline.training.loop import log_csv

PAIRS, TEXTS, FOLDER = Path("data/fused/pairs"), Path("data/fused/pairs_text"), Path("models/prior")
CAPTIONS = Path("data/texts/pairs")


def map_captions(ids: Ids, data: PriorDataParams) -> Column[str]:
    """The captions that pairs train with, in the order of their ids; they stay on disk."""
    reader = PairReader(None, ShardSet.open(CAPTIONS), training_rows(data), rejected_images(PAIRS))
    check_same_ids(CAPTIONS, RowIds(reader), ids)
    made_of = {str(folder): sha256_file(folder / MANIFEST) for folder in (CAPTIONS, PAIRS)}
    return map_texts(scratch(CAPTIONS), made_of, lambda: (row.text for row in reader.rows(0)))


def read_texts(params: Params, ids: Ids) -> tuple[Texts, dict[str, Any]]:
    """The pairs' texts, from shards or to be encoded while training, and whose states they are."""
    if not params.text_encoder.while_training:
        return open_conditions(TEXTS, ids)
    captions = map_captions(ids, params.prior.data)  # first: opening the encoder takes longer
    sizes, where = params.text_encoder, params.runtime.device
    encoder = pack_texts(open_text_encoder(sizes, lambda: open_mllm(params.embedder, params.jobs, where), where))
    texts = EncodedConditions(captions, encoder, sizes.dim, sizes.max_tokens)
    return texts, text_encoder_identity(sizes, params.embedder)


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    trained_on = {
        "prior": as_dict(params.prior),
        "text_encoder": as_dict(params.text_encoder),
        "seed": params.seed,
        "pairs": sha256_file(PAIRS / MANIFEST),
        "texts": sha256_file((CAPTIONS if params.text_encoder.while_training else TEXTS) / MANIFEST),
    }
    origin = Origin(
        Path("models/.made/prior.json"),
        trained_on,
        ("artifacts", "encoders", "fusion_diff", "gpu", "runtime", "text", "training"),
    )
    if origin.made(FOLDER):
        return
    ids, z0, embedded = open_vectors(PAIRS)
    text, encoded = read_texts(params, ids)
    sizes = PriorSizes.from_params(params.prior, z0.shape[1], text.dim, params.text_encoder.max_tokens)
    prior = accelerate(Prior(sizes), params.prior.on(device(params.runtime)))
    task = PriorTask(prior, Diffusion(params.prior.diffusion, sizes.dim), z0, text, params.prior.p_cfg)
    run = Run(params.seed, FOLDER, trained_on, params.runtime.device, "prior", params.prior.cuda_graph)
    log = train(task, params.prior, run)
    if isinstance(text, EncodedConditions):
        text.encoder.warn_truncated()
    if PartialState().is_main_process:
        made_of = {"embedder": embedded.get("embedder"), "text_encoder": encoded.get("text_encoder")}
        save_prior(FOLDER, prior, params.prior.diffusion, made_of, log_csv(log), origin)


if __name__ == "__main__":
    run_stage(on_all_gpus(main))
