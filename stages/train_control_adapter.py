"""train_control_adapter: triplets and the frozen prior -> models/control (Stage 2)."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from pipeline.artifacts import ShardSet, sha256_file
from pipeline.artifacts.model_files import skip_model
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import Origin
from pipeline.config import as_dict, load_params
from pipeline.errors import run_stage
from pipeline.fusion_diff import ControlAdapter, ControlledPrior, ControlTask
from pipeline.fusion_diff.checkpoints import load_prior, prior_hash, save_control
from pipeline.fusion_diff.tables import check_same_ids, open_conditions, open_vectors
from pipeline.fusion_diff.triplets import DESCRIPTIONS, QUERIES, TARGETS, TEXTS, open_steering
from pipeline.gpu import accelerate
from pipeline.runtime import device, is_first_process, set_up
from pipeline.training import Run, train
from pipeline.training.launch import on_all_gpus
from pipeline.training.loop import log_csv

PRIOR, FOLDER = Path("models/prior"), Path("models/control")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    if not ShardSet.open(QUERIES, verify=False).rows:
        reason = "data.web.edits lists no source, so Stage 2 and the method fusion_diff are skipped"
        if is_first_process():
            skip_model(FOLDER, reason)
            print(reason)
        return
    identity = {
        "control": as_dict(params.control),
        "seed": params.seed,
        "prior": prior_hash(PRIOR),
        "triplets": [sha256_file(folder / MANIFEST) for folder in (QUERIES, TARGETS, TEXTS, DESCRIPTIONS)],
    }
    origin = Origin(
        Path("models/.made/control.json"), identity, ("artifacts", "fusion_diff", "gpu", "runtime", "training")
    )
    if origin.made(FOLDER):
        return
    ids, signal = open_steering(params.control.signal)
    target_ids, targets, _ = open_vectors(TARGETS)  # z_t
    check_same_ids(TARGETS, target_ids, ids)
    text, _ = open_conditions(TEXTS, ids)  # the encoded edit texts
    prior, diffusion = load_prior(PRIOR)
    model = accelerate(ControlledPrior(prior, ControlAdapter(prior)), params.control.on(device(params.runtime)))
    task = ControlTask(model, diffusion, signal, targets, text, params.control.p_cfg)
    run = Run(params.seed, FOLDER, identity, params.runtime.device, "control adapter", params.control.cuda_graph)
    log = train(task, params.control, run)
    if PartialState().is_main_process:
        save_control(FOLDER, model.adapter, PRIOR, log_csv(log), origin)


if __name__ == "__main__":
    run_stage(on_all_gpus(main))
