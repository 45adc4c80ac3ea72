"""train_decoder: features and images of the pairs -> models/decoder (frozen: training takes a GPU)."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from pipeline.artifacts import ShardSet, sha256_file, write_json
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import Origin
from pipeline.config import Params, as_dict, load_params
from pipeline.decoder import DecoderTask, save_decoder
from pipeline.decoder.checkpoints import new_decoder
from pipeline.decoder.codec import open_codec
from pipeline.decoder.fidelity import FIDELITY, fidelity
from pipeline.decoder.imagine import FOLDER, Imagination
from pipeline.encoders.embedding.readers import PairReader, training_rows
from pipeline.encoders.embedding.rejected import rejected_images
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.mllm.interface import Embedder, MllmInput
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.training_images import training_images
from pipeline.errors import run_stage
from pipeline.fusion_diff.conditions import Vectors
from pipeline.fusion_diff.tables import open_vectors
from pipeline.runtime import device, processes_here, set_up
from pipeline.training import Run, train
from pipeline.training.launch import on_all_gpus
from pipeline.training.loop import log_csv

IMAGES, TEXTS, VECTORS = Path("data/pairs/images"), Path("data/texts/pairs"), Path("data/fused/pairs")
BENCHMARKS = Path("data/benchmarks")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    _, z, embedded = open_vectors(VECTORS)
    identity = {
        "decoder": as_dict(params.decoder),
        "seed": params.seed,
        "images": sha256_file(IMAGES / MANIFEST),
        "vectors": sha256_file(VECTORS / MANIFEST),
    }
    code = ("artifacts", "decoder", "encoders", "fusion_diff", "runtime", "text", "training")
    origin = Origin(Path("models/.made/decoder.json"), identity, code)
    if not origin.made(FOLDER):
        train_decoder(params, z, {"embedder": embedded.get("embedder")}, origin)
    if PartialState().is_main_process:
        write_json(FOLDER / FIDELITY, measure(params, z))


def train_decoder(params: Params, z: Vectors, learned: dict[str, Any], origin: Origin) -> None:
    ids, rows = choose_images(params)
    decoder = new_decoder(params.decoder, z.shape[1])
    codec = open_codec(params.decoder.checkpoint, params.decoder.revision, device(params.runtime))
    workers = max(1, params.jobs.workers // processes_here())
    images = training_images(ImageTable(IMAGES, set(ids)), ids, params.decoder.image_size, workers)
    task = DecoderTask(decoder, codec, images, z, rows, params.decoder)
    log = train(task, params.decoder, Run(params.seed, FOLDER, origin.identity, params.runtime.device, "decoder"))
    if PartialState().is_main_process:
        save_decoder(FOLDER, decoder, params.decoder, learned, log_csv(log), origin)


def choose_images(params: Params) -> tuple[list[str], torch.Tensor]:
    """The ids of the images to train with, spread over all pairs, and the rows of the vectors that are theirs."""
    reader = PairReader(None, ShardSet.open(TEXTS), training_rows(params.prior.data), rejected_images(VECTORS))
    every = -(-len(reader) // (params.decoder.images or len(reader)))
    ids = [row.image_id for row in itertools.islice(reader.rows(0), 0, None, every)]
    return ids, torch.arange(len(ids)) * every


def measure(params: Params, z: Vectors) -> dict[str, Any]:
    """The fidelity of the trained decoder on the images of every benchmark that it was not trained on."""
    imagination = Imagination.open(params)
    f_m = open_mllm(params.embedder, params.jobs, params.runtime.device)
    training, seen = np.asarray(z[torch.arange(len(z))], np.float32), set(choose_images(params)[0])
    measured = {}
    for folder in sorted(path for path in BENCHMARKS.iterdir() if (path / "images" / MANIFEST).is_file()):
        source = unseen_features(folder / "images", seen, f_m, params)
        if len(source):
            decoded = f_m.embed([MllmInput(image=one) for one in imagination.images(source)])
            measured[folder.name] = {"images": len(source), **fidelity(decoded, source, training, params.seed)}
    return {"imagine": as_dict(params.imagine), "benchmarks": measured}


def unseen_features(folder: Path, seen: Collection[str], f_m: Embedder, params: Params) -> np.ndarray:
    """f_M of the images of a table that are not among the seen ones [N, d]: all, or as many as are measured."""
    table = ImageTable(folder)
    ids = [image_id for image_id in table.ids if image_id not in seen]
    ids = ids[:: -(-len(ids) // (params.decoder.measured or len(ids) or 1)) or 1]
    return f_m.embed([MllmInput(image=table.image(one, params.embedder.max_side)) for one in ids])


if __name__ == "__main__":
    run_stage(on_all_gpus(main))
