"""train_prior: fused embeddings and text conditions of the pairs -> models/prior (Stage 1)."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from pipeline.app.errors import run_stage
from pipeline.artifacts import sha256_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import Origin
from pipeline.config import as_dict, load_params
from pipeline.fusion_diff import Diffusion, Prior, PriorSizes, PriorTask
from pipeline.fusion_diff.files import read_conditions, read_vectors, save_prior
from pipeline.runtime import set_up
from pipeline.training import train
from pipeline.training.loop import log_csv

PAIRS, TEXTS, FOLDER = Path("data/fused/pairs"), Path("data/fused/pairs_text"), Path("models/prior")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    identity = {
        "prior": as_dict(params.prior), "text_encoder": as_dict(params.text_encoder), "seed": params.seed,
        "pairs": sha256_file(PAIRS / MANIFEST), "texts": sha256_file(TEXTS / MANIFEST),
    }
    origin = Origin(Path("models/.made/prior.json"), identity, ("artifacts", "fusion_diff", "runtime", "training"))
    if origin.made(FOLDER):
        return
    ids, z0, embedded = read_vectors(PAIRS)
    text, encoded = read_conditions(TEXTS, ids)
    sizes = PriorSizes.from_params(params.prior, z0.shape[1], text.dim, params.text_encoder.max_tokens)
    task = PriorTask(Prior(sizes), Diffusion(params.prior.diffusion, sizes.dim), z0, text, params.prior.p_cfg)
    log = train(task, params.prior, seed=params.seed, folder=FOLDER, identity=identity, device=params.runtime.device, title="prior")
    if PartialState().is_main_process:
        made_of = {"encoder": embedded.get("encoder"), "text_encoder": encoded.get("text_encoder")}
        save_prior(FOLDER, task.model, params.prior.diffusion, made_of, log_csv(log), origin)


if __name__ == "__main__":
    run_stage(main)
