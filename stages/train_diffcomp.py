"""train_diffcomp: captioned images and the CLIP backbone -> models/diffcomp/<variant>."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import PartialState

from pipeline.artifacts import ShardSet, sha256_file
from pipeline.artifacts.atomic import settle_only
from pipeline.artifacts.shards import MANIFEST
from pipeline.artifacts.weights import Origin
from pipeline.config import DiffCompParams, Params, as_dict, load_params
from pipeline.diffcomp import save_diffcomp
from pipeline.diffcomp.tuning import fine_tune, new_task
from pipeline.encoders.identity import backbone_identity
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.training_images import training_images
from pipeline.errors import run_stage
from pipeline.runtime import is_first_process, processes_here, set_up
from pipeline.text.captions import share_of
from pipeline.text.phrases import nouns
from pipeline.training import Run
from pipeline.training.launch import on_all_gpus
from pipeline.training.loop import log_csv

IMAGES, TEXTS, FOLDER = Path("data/pairs/images"), Path("data/texts/pairs"), Path("models/diffcomp")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    variants = params.variants()
    if is_first_process():
        settle_only(FOLDER, variants)
    rows = share_of(ShardSet.open(TEXTS), params.diffcomp.data)
    table = ImageTable(IMAGES, {row["image_id"] for row in rows})
    for name, variant in variants.items():
        train_variant(FOLDER / name, variant, params, rows, table)


def train_variant(folder: Path, variant: DiffCompParams, params: Params, rows: list[dict], table: ImageTable) -> None:
    identity = {
        "diffcomp": as_dict(variant),
        "seed": params.seed,
        "images": sha256_file(IMAGES / MANIFEST),
        "texts": sha256_file(TEXTS / MANIFEST),
        "carrier_vocabulary": params.captions.carrier_vocabulary,
        **backbone_identity(variant.backbone, variant.pretrained),
    }
    code = ("artifacts", "diffcomp", "encoders", "runtime", "text", "training")
    origin = Origin(Path("models/.made", f"{folder.name}.json"), identity, code)
    if origin.made(folder):
        return
    torch.manual_seed(params.seed)  # a variant does not depend on those before it
    captions, phrases, images = ([row[name] for row in rows] for name in ("caption", "phrases", "image_id"))
    workers = max(1, params.jobs.workers // processes_here())
    task = new_task(
        variant,
        params,
        lambda side: training_images(table, images, side, workers),
        captions,
        phrases,
        lambda: nouns(captions, params.captions),
    )
    log = fine_tune(task, Run(params.seed, folder, identity, params.runtime.device, title=folder.name))
    if PartialState().is_main_process:
        save_diffcomp(folder, task.model, log_csv(log), origin)


if __name__ == "__main__":
    run_stage(on_all_gpus(main))
