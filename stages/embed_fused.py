"""embed_fused: images, captions and triplets -> data/fused: f_M's embeddings and E_text's token states."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import ShardSet, schemas, sha256_file, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import load_params
from pipeline.encoders import text
from pipeline.encoders.embedding.job import job_options, run_condition_job, run_embedding_job
from pipeline.encoders.embedding.readers import ImageStore, PairReader, TripletReader, triplet_images
from pipeline.encoders.embedding.rejected import rejected_images
from pipeline.encoders.mllm import interface as mllm
from pipeline.errors import run_stage
from pipeline.runtime import set_up
from pipeline.text.captions import training_caption

IMAGES, TEXTS, TRIPLETS, FUSED = (
    Path("data/pairs/images"),
    Path("data/texts/pairs"),
    Path("data/triplets/sampled"),
    Path("data/fused"),
)
MANY = 10_000
"""Rows a shard where many inputs of a shard are equal: those are encoded once."""


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    images, texts, triplets = (ShardSet.open(folder) for folder in (IMAGES, TEXTS, TRIPLETS))
    inputs = {"inputs": {str(folder): sha256_file(folder / MANIFEST) for folder in (IMAGES, TEXTS, TRIPLETS)}}

    f_m, size = mllm.open_mllm(params.encoder, params.runtime.device), params.encoder.batch_size
    fused = mllm.identity(params.encoder, **inputs)
    options = job_options(params.encoder)
    run_embedding_job(PairReader(images, texts, training_caption), f_m, FUSED / "pairs", fused, size, **options)

    unreadable = rejected_images(FUSED / "pairs")
    store = ImageStore(images, triplet_images(triplets))
    queries = TripletReader(triplets, "instruction", "reference_id", store, unreadable)
    targets = TripletReader(triplets, "target_description", "target_id", store, unreadable)
    run_embedding_job(queries, f_m, FUSED / "triplets_query", fused, size, **options)
    run_embedding_job(targets, f_m, FUSED / "triplets_target", fused, size, rows_per_shard=MANY, **options)

    e_text = text.TextEncoder(params.text_encoder, params.runtime.device)
    conditions = text.identity(params.text_encoder) | inputs
    captions, instructions = (
        PairReader(None, texts, training_caption, unreadable),
        TripletReader(triplets, "instruction", skip=unreadable),
    )
    if params.text_encoder.while_training:
        write_table(FUSED / "pairs_text", schemas.conditions(params.text_encoder.dim).empty_table(), conditions)
    else:
        run_condition_job(captions, e_text, FUSED / "pairs_text", conditions, size, rows_per_shard=MANY)
    run_condition_job(instructions, e_text, FUSED / "triplets_text", conditions, size, rows_per_shard=MANY)


if __name__ == "__main__":
    run_stage(main)
