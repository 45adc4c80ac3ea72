"""embed_fused: images, captions and triplets -> data/fused: f_M's embeddings and E_text's token states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import ShardSet, schemas, sha256_file, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import Params, as_dict, load_params
from pipeline.encoders.embedding.conditions import run_condition_job
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import (
    ImageStore,
    PairReader,
    TripletReader,
    training_rows,
    triplet_images,
)
from pipeline.encoders.embedding.rejected import rejected_images
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.identity import mllm_identity, text_encoder_identity
from pipeline.encoders.mllm.interface import Mllm
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.text import open_text_encoder
from pipeline.errors import run_stage
from pipeline.runtime import set_up

IMAGES, TEXTS, TRIPLETS = Path("data/pairs/images"), Path("data/texts/pairs"), Path("data/triplets/sampled")
FUSED = Path("data/fused")
MANY = 10_000
"""Rows a shard where many inputs of a shard are equal: those are encoded once."""


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    texts, triplets = ShardSet.open(TEXTS), ShardSet.open(TRIPLETS)
    inputs = {"inputs": {str(folder): sha256_file(folder / MANIFEST) for folder in (IMAGES, TEXTS, TRIPLETS)}}
    mllm = open_mllm(params.embedder, params.jobs, params.runtime.device)
    embed_images(params, mllm, texts, triplets, inputs)
    encode_texts(params, mllm, texts, triplets, inputs)


def embed_images(params: Params, mllm: Mllm, texts: ShardSet, triplets: ShardSet, inputs: dict[str, Any]) -> None:
    """f_M's vectors: z_0 of the pairs, z_r,delta of the queries, z_t of the targets, z of their descriptions."""
    images, section = ShardSet.open(IMAGES), params.embedder
    job = embedding_job(mllm)
    identity = mllm_identity(section, targets=section.targets, **inputs)
    options = JobOptions.from_params(section, params.jobs)
    many = JobOptions.from_params(section, params.jobs, MANY)
    fused = section.targets == "fused"
    pairs = PairReader(images, texts, training_rows(params.prior.data, texts=fused))
    run_job(pairs, job, FUSED / "pairs", identity | pairs_identity(params), options)
    if not triplets.rows:
        print("there are no edits: nothing is embedded for Stage 2")
        for name in ("triplets_query", "triplets_target", "triplets_description"):
            write_table(
                FUSED / name, schemas.embeddings(job.schema.field("vector").type.list_size).empty_table(), identity
            )
        return

    unreadable = rejected_images(FUSED / "pairs")
    store = ImageStore(images, triplet_images(triplets))
    queries = TripletReader(triplets, "instruction", "reference_id", store, unreadable)
    targets = TripletReader(triplets, "target_description" if fused else None, "target_id", store, unreadable)
    descriptions = TripletReader(triplets, "target_description", skip=unreadable)
    run_job(queries, job, FUSED / "triplets_query", identity, options)
    run_job(targets, job, FUSED / "triplets_target", identity, many)
    run_job(descriptions, job, FUSED / "triplets_description", identity, many)


def pairs_identity(params: Params) -> dict[str, Any]:
    """What says which pairs are embedded, where it is not all that train."""
    data = params.prior.data
    return {"pairs_of": as_dict(data)} if data.sources or data.short_share else {}


def encode_texts(params: Params, mllm: Mllm, texts: ShardSet, triplets: ShardSet, inputs: dict[str, Any]) -> None:
    """E_text's token states: of the captions, unless training encodes them itself, and of the instructions."""
    encoder = open_text_encoder(params.text_encoder, lambda: mllm, params.runtime.device)
    identity = text_encoder_identity(params.text_encoder, params.embedder) | inputs
    options = JobOptions(params.embedder.batch_size, rows_per_shard=MANY)
    unreadable = rejected_images(FUSED / "pairs")
    if params.text_encoder.while_training:
        write_table(FUSED / "pairs_text", schemas.conditions(params.text_encoder.dim).empty_table(), identity)
    else:
        captions = PairReader(None, texts, training_rows(params.prior.data), unreadable)
        run_condition_job(captions, encoder, FUSED / "pairs_text", identity | pairs_identity(params), options)
    if not triplets.rows:
        write_table(FUSED / "triplets_text", schemas.conditions(params.text_encoder.dim).empty_table(), identity)
        return
    instructions = TripletReader(triplets, "instruction", skip=unreadable)
    run_condition_job(instructions, encoder, FUSED / "triplets_text", identity, options)


if __name__ == "__main__":
    run_stage(main)
