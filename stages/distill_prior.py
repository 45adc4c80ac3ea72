"""distill_prior: the prior, its Control-Adapter and the triplets' conditions -> models/student, where it is enabled."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from pipeline.artifacts import ShardSet, read_json, sha256_file
from pipeline.artifacts.model_files import CONFIG, WEIGHTS, is_skipped, skip_model
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import Origin
from pipeline.config import Params, as_dict, load_params
from pipeline.distill import DistillTask, Jumps, Limits, Student, Teacher
from pipeline.distill.checkpoints import save_student
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.text import open_text_encoder
from pipeline.errors import run_stage
from pipeline.fusion_diff import EncodedConditions, TextConditions
from pipeline.fusion_diff.checkpoints import load_control, load_prior
from pipeline.fusion_diff.conditions import Texts
from pipeline.fusion_diff.tables import Ids
from pipeline.fusion_diff.triplets import DESCRIPTIONS, QUERIES, open_steering
from pipeline.gpu.texts import pack_texts
from pipeline.runtime import device, is_first_process, set_up
from pipeline.training import Run, train
from pipeline.training.launch import on_all_gpus
from pipeline.training.loop import log_csv

TRIPLETS, PRIOR, CONTROL = Path("data/triplets/sampled"), Path("models/prior"), Path("models/control")
FOLDER = Path("models/student")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    reason = ""
    if not params.distill.enabled:
        reason = "distill.enabled is false"
    elif is_skipped(CONTROL):
        reason = "Stage 2 was skipped, so there is no Control-Adapter to learn from"
    if not reason:
        distill(params)
    elif is_first_process():
        skip_model(FOLDER, reason)


def read_descriptions(params: Params, ids: Ids) -> Texts:
    """The described targets, as queries bring them; a student never samples from an edit text."""
    rows = ShardSet.open(TRIPLETS).table(["triplet_id", "target_description"])
    described = dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    texts, sizes, where = [described[name] for name in ids], params.text_encoder, params.runtime.device
    encoder = pack_texts(open_text_encoder(sizes, lambda: open_mllm(params.embedder, params.jobs, where), where))
    if sizes.while_training:
        return EncodedConditions(texts, encoder, sizes.dim, sizes.max_tokens)
    return TextConditions.from_list(encoder.encode(texts), list(ids))


def distill(params: Params) -> None:
    """Train the student, unless it is there already."""
    teacher_hashes = {folder.name: sha256_file(folder / WEIGHTS) for folder in (PRIOR, CONTROL)}
    identity = {
        "distill": as_dict(params.distill),
        "seed": params.seed,
        "signal": params.control.signal,
        "text_encoder": as_dict(params.text_encoder),
        "teacher": teacher_hashes,
        "triplets": [sha256_file(folder / MANIFEST) for folder in (QUERIES, DESCRIPTIONS, TRIPLETS)],
    }
    code = ("artifacts", "distill", "encoders", "fusion_diff", "gpu", "runtime", "training")
    origin = Origin(Path("models/.made/student.json"), identity, code)
    if origin.made(FOLDER):
        return
    where, section = device(params.runtime), params.distill
    prior, diffusion = load_prior(PRIOR)
    adapter = load_control(CONTROL, prior, PRIOR)
    student = Student.of(prior, adapter, Limits(section.guidance_scale, section.control_scale))
    jumps = Jumps(diffusion, section.solver_steps)
    teacher = Teacher(prior.to(where), adapter.to(where), diffusion, section.solver_steps)
    ids, control = open_steering(params.control.signal)
    task = DistillTask(student, teacher, jumps, control, read_descriptions(params, ids))
    log = train(task, section, Run(params.seed, FOLDER, identity, params.runtime.device, "student"))
    if PartialState().is_main_process:
        stored = read_json(PRIOR / CONFIG)
        learned = {name: stored[name] for name in ("embedder", "text_encoder")} | {"teacher": teacher_hashes}
        save_student(FOLDER, student, jumps, learned, log_csv(log), origin)


if __name__ == "__main__":
    run_stage(on_all_gpus(main))
